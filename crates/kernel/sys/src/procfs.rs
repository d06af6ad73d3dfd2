//! A procfs of one's own: mounted nowhere, so nothing can be mounted over its files.
//!
//! A container's `/proc` is under the control of its image and its mounts; a write meant for a kernel file could be
//! led elsewhere (CVE-2019-16884, CVE-2025-52881). This handle cannot.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use crate::error::{Error, Result};
use crate::fd;
use crate::mount::{Attributes, Context, PROC_MAGIC, file_system_magic};
use crate::path::{Access, Root, at};

/// A private procfs of the caller's pid namespace.
#[derive(Debug)]
pub struct Procfs {
    root: Root,
}

impl Procfs {
    /// Mounts one, attached nowhere.
    pub fn open() -> Result<Self> {
        let context = Context::open("proc")?;
        let mount = context.mount(Attributes::NOSUID | Attributes::NODEV | Attributes::NOEXEC)?;
        Ok(Self { root: Root::from_fd(mount) })
    }

    /// Uses the procfs mounted at `/proc`, for callers whose own mount namespace is trusted.
    pub fn of_host() -> Result<Self> {
        let root = Root::open_dir(Path::new("/proc"))?;
        if file_system_magic(root.as_fd())? != PROC_MAGIC {
            return Err(Error::new(libc::ENODEV, "open(/proc) is not procfs"));
        }
        Ok(Self { root })
    }

    /// Writes `text` to the file `path` (below the root, without a leading slash) in one call.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let file = self.root.open_on_mount(Path::new(path), Access::Write)?;
        fd::write_once(file.as_fd(), text.as_bytes()).map_err(|error| name(&error, path))
    }

    /// Writes `text` to the file `path` of this process.
    pub fn write_self(&self, path: &str, text: &str) -> Result<()> {
        self.write(&self.of_self(path)?, text)
    }

    /// Reads the file `path` of this process.
    pub fn read_self(&self, path: &str, limit: usize) -> Result<Vec<u8>> {
        self.read(&self.of_self(path)?, limit)
    }

    /// `self` is a link; its text is the pid in this procfs, whatever namespace the process is in by now.
    fn of_self(&self, path: &str) -> Result<String> {
        let pid = at::read_link(self.root.as_fd(), OsStr::new("self"))?;
        Ok(format!("{}/{path}", pid.display()))
    }

    /// Reads the file `path`.
    pub fn read(&self, path: &str, limit: usize) -> Result<Vec<u8>> {
        let file = self.root.open_on_mount(Path::new(path), Access::Read)?;
        fd::read_all(file.as_fd(), limit).map_err(|error| name(&error, path))
    }
}

fn name(error: &Error, path: &str) -> Error {
    Error::new(error.errno(), format!("/proc/{path}: {}", error.call()))
}
