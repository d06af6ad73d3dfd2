//! A bundle with a busybox root, in a directory of its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use spec::runtime::{Spec, default_unix_spec};
use tempfile::TempDir;

/// A directory that stands for a daemon's state.
pub struct Place {
    dir: TempDir,
    /// The containerd namespace, unique so that cgroups do not meet.
    pub namespace: String,
}

impl Place {
    pub fn new() -> Self {
        Self { dir: testkit::place::temp(), namespace: testkit::place::unique("shimtest") }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn events_socket(&self) -> PathBuf {
        self.path().join("events.sock")
    }

    /// A bundle of container `id` that runs `command` by the shell.
    pub fn bundle(&self, id: &str, command: &str) -> PathBuf {
        self.bundle_of(id, &["/bin/sh", "-c", command], |_| {})
    }

    /// A bundle of container `id` that runs `args`, changed by `change`.
    pub fn bundle_of(&self, id: &str, args: &[&str], change: impl FnOnce(&mut Spec)) -> PathBuf {
        let mut spec = default_unix_spec(&self.namespace, id);
        // Debian's crun 1.8 knows no later version.
        spec.oci_version = "1.0.2".into();
        let process = spec.process_mut();
        process.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        process.env.push("PATH=/bin".into());
        change(&mut spec);
        let bundle = self.path().join("bundles").join(id);
        fs::create_dir_all(bundle.join("rootfs")).unwrap();
        fs::write(bundle.join("config.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
        bundle
    }

    /// The root that bundles bind to their `rootfs`.
    pub fn root(&self) -> PathBuf {
        let root = self.path().join("root");
        if !root.exists() {
            for dir in ["bin", "dev", "proc", "sys", "tmp", "etc", "run"] {
                fs::create_dir_all(root.join(dir)).unwrap();
            }
            fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
            for name in ["sh", "true", "false", "cat", "echo", "sleep", "tty", "stty", "dd", "head", "kill"] {
                symlink("busybox", root.join("bin").join(name)).unwrap();
            }
        }
        root
    }

    /// A FIFO.
    pub fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The cgroups of the namespace: containerd's own leaves them, a test does not.
        let Ok(controllers) = fs::read_dir("/sys/fs/cgroup") else { return };
        let roots = controllers.flatten().map(|controller| controller.path());
        for root in roots.chain([Path::new("/sys/fs/cgroup").to_owned()]) {
            let _ = fs::remove_dir(root.join(&self.namespace).join("stuck"));
            let _ = fs::remove_dir(root.join(&self.namespace));
        }
    }
}
