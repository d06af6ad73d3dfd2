//! A container's root file system seen from the client: mounted for a person, or read without mounting.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::OwnedFd;
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
        let tree: OwnedFd = fstab::detached(&mount.r#type, OsStr::new(&mount.source), &options)?;
        Ok(Self { root: Root::from_fd(tree) })
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
