//! A bundle of a test's own, and the program under test.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use spec::runtime::{Namespace, NamespaceKind, Process, Spec, default_unix_spec};

/// Programs of busybox that the tests use.
const PROGRAMS: [&str; 26] = [
    "sh", "true", "false", "cat", "ls", "id", "sleep", "mount", "env", "hostname", "stat", "touch", "ps",
    "kill", "echo", "grep", "head", "mkdir", "pwd", "readlink", "wc", "tty", "chmod", "dd", "test", "sort",
];

/// How long one command may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command left.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// A container of this test alone; it goes with everything it made.
pub struct Bundle {
    pub id: String,
    pub spec: Spec,
    dir: tempfile::TempDir,
}

/// A bundle whose process runs `script` in a shell; `None` with a printed reason where the machine cannot.
pub fn bundle(test: &str, script: &str) -> Option<Bundle> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if sys::identity::uid() != 0 || !Path::new("/bin/busybox").exists() {
        println!("SKIP {test}: needs root and /bin/busybox");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("rootfs/bin");
    std::fs::create_dir_all(&bin).unwrap();
    for name in ["etc", "tmp", "proc"] {
        std::fs::create_dir(dir.path().join("rootfs").join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
    for program in PROGRAMS {
        std::os::unix::fs::symlink("busybox", bin.join(program)).unwrap();
    }
    std::fs::write(
        dir.path().join("rootfs/etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/web:/bin/sh\n",
    )
    .unwrap();
    let id = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut spec = default_unix_spec("berth-runtime-test", &id);
    let process = spec.process_mut();
    process.args = vec!["/bin/sh".into(), "-c".into(), script.into()];
    process.env = vec!["PATH=/bin:/usr/bin".into()];
    Some(Bundle { id, spec, dir })
}

impl Bundle {
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// The state root.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn process(&mut self) -> &mut Process {
        self.spec.process_mut()
    }

    /// Replaces the namespace of `kind` (if there is one) by `namespace` (if there is one).
    pub fn namespace(&mut self, kind: NamespaceKind, namespace: Option<Namespace>) {
        let namespaces = &mut self.spec.linux_mut().namespaces;
        namespaces.retain(|known| known.kind != kind);
        namespaces.extend(namespace);
    }

    /// A user namespace whose root is user 100000 of the host, who also owns the root file system.
    pub fn user_namespace(&mut self) {
        let set = |path: &Path| std::os::unix::fs::lchown(path, Some(100_000), Some(100_000)).unwrap();
        for dir in ["", "bin", "etc", "tmp", "proc"] {
            set(&self.rootfs().join(dir));
        }
        std::fs::set_permissions(self.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        self.namespace(NamespaceKind::User, Some(Namespace::new(NamespaceKind::User)));
        let map = vec![spec::runtime::IdMapping { container_id: 0, host_id: 100_000, size: 65536 }];
        let linux = self.spec.linux_mut();
        linux.uid_mappings.clone_from(&map);
        linux.gid_mappings = map;
    }

    /// A command line of the runtime, with this bundle's configuration on disk.
    pub fn command(&self, args: &[&str]) -> Command {
        std::fs::write(self.path().join("config.json"), serde_json::to_vec(&self.spec).unwrap()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_runc"));
        command.arg("--root").arg(self.root()).args(args).current_dir(self.path()).stdin(Stdio::null());
        command
    }

    /// Runs the runtime with `args`, then the id.
    pub fn runc(&self, args: &[&str]) -> Done {
        let mut all = args.to_vec();
        all.push(&self.id);
        finish(self.command(&all))
    }

    /// Runs a process in the container.
    pub fn exec(&self, program: &[&str]) -> Done {
        finish(self.command(&[&["exec", &self.id], program].concat()))
    }

    /// Runs the container to its end.
    pub fn run(&self) -> Done {
        self.runc(&["run"])
    }

    /// Runs the container to its end, which must be a success, and returns what it said.
    #[must_use]
    pub fn says(&self) -> String {
        let done = self.run();
        assert_eq!(done.code, 0, "{done:?}");
        done.out
    }

    /// Starts the container and leaves it running, its streams on the null device.
    pub fn start(&self) {
        let mut command = self.command(&["run", "--detach", &self.id]);
        let log = self.path().join("errors");
        command.stderr(std::fs::File::create(&log).unwrap());
        let done = finish_detached(command);
        assert_eq!(done, 0, "{}: {}", self.id, std::fs::read_to_string(log).unwrap());
    }

    /// Nothing of the container is left: no state, no cgroup, no mount.
    pub fn assert_gone(&self) {
        assert!(!self.root().join(&self.id).exists(), "state of {} is left", self.id);
        for mount in sys::mount::table::read().unwrap() {
            assert!(!mount.target.starts_with(self.path()), "{mount:?} is left");
        }
        let left = cgroup_dirs(&self.id);
        assert!(left.is_empty(), "{left:?} are left");
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self
            .command(&["delete", "--force", &self.id])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// Cgroup directories of `id`.
pub fn cgroup_dirs(id: &str) -> Vec<PathBuf> {
    let Ok(hierarchies) = std::fs::read_dir("/sys/fs/cgroup") else { return Vec::new() };
    let mut bases: Vec<PathBuf> = hierarchies.flatten().map(|entry| entry.path()).collect();
    bases.push("/sys/fs/cgroup".into());
    bases
        .into_iter()
        .map(|base| base.join("berth-runtime-test").join(id))
        .filter(|path| path.exists())
        .collect()
}

/// Runs to the end, which must come in time.
pub fn finish(mut command: Command) -> Done {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let pidfd = sys::process::pidfd(child.id() as i32).unwrap();
    // Both streams are read to their ends in here; a watcher thread would be the only other way to bound this.
    let killer = std::thread::spawn(move || {
        if !sys::process::ended(pidfd.as_fd(), PATIENCE).unwrap() {
            let _ = sys::process::signal(pidfd.as_fd(), 9);
        }
    });
    let output = child.wait_with_output().unwrap();
    killer.join().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
    // Log lines quote their message.
    let err = text(output.stderr).replace("\\\"", "\"");
    Done { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err }
}

/// Runs to the end without pipes, which a detached container would keep open; the exit code.
pub fn finish_detached(mut command: Command) -> i32 {
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let pidfd = sys::process::pidfd(child.id() as i32).unwrap();
    if !sys::process::ended(pidfd.as_fd(), PATIENCE).unwrap() {
        let _ = child.kill();
    }
    child.wait().unwrap().code().unwrap_or(-1)
}
