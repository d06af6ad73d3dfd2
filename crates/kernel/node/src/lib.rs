//! What a host offers to containers by name: devices that vendors describe ([`cdi`]), [`apparmor`] profiles, and classes
//! of [`blockio`]. The daemon asks for pods, `ctr` for what a person runs.
//!
//! Invariant: nothing here is taken from a file whose form is not wholly understood.

pub mod apparmor;
pub mod blockio;
pub mod cdi;

use std::os::fd::AsFd as _;
use std::path::Path;

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// It is none, is longer, or cannot be read.
pub fn read_file(path: &Path, limit: usize) -> sys::Result<Vec<u8>> {
    // Not blocking: a pipe of that name would never answer.
    let file = sys::fd::open(path, NONBLOCK)?;
    let stat = sys::path::at::stat_fd(file.as_fd())?;
    if !stat.is_file() {
        return Err(sys::Error::new(EINVAL, format!("read({}): no regular file", path.display())));
    }
    sys::fd::read_all(file.as_fd(), limit)
}

/// Numbers of asm-generic: this crate links no libc.
const NONBLOCK: i32 = 0o4000;
const EINVAL: i32 = 22;
