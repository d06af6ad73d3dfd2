//! A container's root file system seen from the client: mounted for a person, or read without mounting.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use api::containerd::types::Mount;
use sys::mount::{self, fstab};
use sys::path::{Access, Root};

use crate::failure::{Failure, Result};

/// Mounts a snapshot at `target`, all of it or nothing.
pub fn mount_all(mounts: &[Mount], target: &Path) -> Result {
    for (done, wanted) in mounts.iter().enumerate() {
        let at = if wanted.target.is_empty() { target.to_owned() } else { target.join(&wanted.target) };
        if let Err(error) = fstab::mount(&wanted.r#type, OsStr::new(&wanted.source), &wanted.options, &at) {
            if done > 0 {
                mount::unmount_all(target)?;
            }
            return Err(error.into());
        }
    }
    Ok(())
}

/// Unmounts everything at `target`.
pub fn unmount(target: &Path) -> Result {
    Ok(mount::unmount_all(target)?)
}

/// The tree of a root file system, which an image's author filled and which is therefore walked only from its root.
#[derive(Debug)]
pub struct Tree {
    root: Root,
}

/// The largest user or group file that is read, in bytes.
const MAX_FILE: u64 = 10 << 20;

impl Tree {
    /// Opens a directory.
    pub fn of_directory(path: &Path) -> Result<Self> {
        Ok(Self { root: Root::open_dir(path)? })
    }

    /// Opens a snapshot by its mounts, read-only and attached nowhere.
    pub fn of_mounts(mounts: &[Mount]) -> Result<Self> {
        let [mount] = mounts else {
            return Err(Failure::new("cannot look into a snapshot of several mounts"));
        };
        let mut options: Vec<&str> = mount
            .options
            .iter()
            .map(String::as_str)
            .filter(|option| !matches!(*option, "rw") && !option.starts_with("workdir="))
            .collect();
        // Read-only, the upper directory is just the topmost layer; the kernel then writes nothing into it.
        let upper = options.iter().position(|option| option.starts_with("upperdir="));
        let merged;
        if let Some(upper) = upper {
            let upper = options.remove(upper).trim_start_matches("upperdir=");
            let lower = options.iter().position(|option| option.starts_with("lowerdir="));
            let lower =
                lower.map(|at| options.remove(at).trim_start_matches("lowerdir=")).unwrap_or_default();
            merged = format!("lowerdir={upper}:{lower}");
            options.push(&merged);
        }
        options.push("ro");
        // An overlay without a mount point needs Linux 6.8; before that one is mounted where nobody looks, and hidden.
        match fstab::detached(&mount.r#type, OsStr::new(&mount.source), &options) {
            Ok(tree) => Ok(Self { root: Root::from_fd(tree) }),
            Err(_) => Self::mounted(&mount.r#type, &mount.source, &options),
        }
    }

    /// Mounts at a directory of its own and lets go of the place at once: the descriptor keeps the tree.
    fn mounted(kind: &str, source: &str, options: &[&str]) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("ctr-look-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let root = fstab::mount(kind, OsStr::new(source), options, &dir).and_then(|()| {
            let root = Root::open_dir(&dir);
            mount::detach(&dir)?;
            root
        });
        std::fs::remove_dir(&dir)?;
        Ok(Self { root: root? })
    }

    /// The text of a regular file, or nothing when it is not there.
    pub fn read(&self, path: &str) -> Result<Option<String>> {
        let fd = match self.root.open(Path::new(path), Access::Read) {
            Ok(fd) => fd,
            Err(error) if error.is(rustix::io::Errno::NOENT.raw_os_error()) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let file = std::fs::File::from(fd);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() > MAX_FILE {
            return Err(Failure::new(format!("{path} of the image is no file of at most {MAX_FILE} bytes")));
        }
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An overlay of two layers, the upper with a file of its own.
    fn layers(dir: &Path) -> Mount {
        for part in ["lower/etc", "upper/etc", "work"] {
            std::fs::create_dir_all(dir.join(part)).unwrap();
        }
        std::fs::write(dir.join("lower/etc/passwd"), "root:x:0:0::/:\n").unwrap();
        std::fs::write(dir.join("upper/etc/group"), "root:x:0:\n").unwrap();
        let path = |part: &str| dir.join(part).display().to_string();
        let options = [
            "index=off".to_owned(),
            format!("workdir={}", path("work")),
            format!("upperdir={}", path("upper")),
            format!("lowerdir={}", path("lower")),
        ];
        Mount {
            r#type: "overlay".into(),
            source: "overlay".into(),
            options: options.into(),
            ..Mount::default()
        }
    }

    #[test]
    fn a_snapshot_is_read_with_and_without_a_mount_point() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP a_snapshot_is_read_with_and_without_a_mount_point: not root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mount = layers(dir.path());
        let read_only = format!("lowerdir={0}/upper:{0}/lower", dir.path().display());
        let trees = [
            Tree::of_mounts(&[mount]).unwrap(),
            Tree::mounted("overlay", "overlay", &[&read_only, "ro"]).unwrap(),
        ];
        for tree in trees {
            assert_eq!(tree.read("etc/passwd").unwrap().as_deref(), Some("root:x:0:0::/:\n"));
            assert_eq!(tree.read("etc/group").unwrap().as_deref(), Some("root:x:0:\n"));
            assert_eq!(tree.read("etc/shadow").unwrap(), None);
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains("ctr-look"), "nothing stays mounted");
    }
}
