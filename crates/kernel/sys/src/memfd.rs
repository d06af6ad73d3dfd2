//! Files that only a descriptor names.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, SeekFrom};

use crate::Result;
use crate::error::call;

/// An anonymous file that holds `bytes`, at its beginning. `memfd_create(2)`, Linux 3.17.
pub fn holding(bytes: &[u8]) -> Result<OwnedFd> {
    let file =
        rustix::fs::memfd_create(c"text", MemfdFlags::CLOEXEC).map_err(call!("memfd_create", "text"))?;
    crate::fd::write_all(file.as_fd(), bytes)?;
    rustix::fs::seek(&file, SeekFrom::Start(0)).map_err(call!("lseek", file, 0))?;
    Ok(file)
}
