//! How overlay's directories say "deleted" and "hides what is below", and our own mark beside them.
//!
//! A whiteout is the character device 0:0. An opaque directory has an extended attribute, in the `trusted` name space,
//! or in `user` inside a user namespace (where overlay is mounted with `userxattr`).

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

use sys::path::at::{self, Stat};
use sys::xattr;

/// The names of the attributes, for this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    /// The directory hides what the layers below have in it.
    pub opaque: &'static str,
    /// The layer had no entry for the directory, and the layers below, whose attributes it shall have, were not known
    /// when it was made. Commit replaces the mark by the attributes.
    pub implicit: &'static str,
}

impl Marks {
    /// The marks that this process can write and that its overlay mounts read.
    pub fn here() -> Self {
        if crate::mount::in_user_namespace() {
            Self { opaque: "user.overlay.opaque", implicit: "user.berth.implicit" }
        } else {
            Self { opaque: "trusted.overlay.opaque", implicit: "trusted.berth.implicit" }
        }
    }

    /// Makes an open directory opaque.
    pub fn set_opaque(self, dir: BorrowedFd<'_>) -> sys::Result<()> {
        xattr::set_fd(dir, OsStr::new(self.opaque), b"y")
    }

    /// Whether an open directory is opaque.
    pub fn is_opaque(self, dir: BorrowedFd<'_>) -> sys::Result<bool> {
        Ok(xattr::get_fd(dir, OsStr::new(self.opaque))?.is_some_and(|value| value == b"y"))
    }
}

/// Whether an object is overlay's whiteout.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    stat.is_device(0, 0)
}

/// Makes overlay's whiteout. Nobody sees its times; they are fixed so that equal layers are equal on disk.
pub(crate) fn make_whiteout(dir: BorrowedFd<'_>, name: &OsStr) -> sys::Result<()> {
    at::make_node(dir, name, libc::S_IFCHR, 0)?;
    at::set_times(dir, name, (0, 0), (0, 0))
}
