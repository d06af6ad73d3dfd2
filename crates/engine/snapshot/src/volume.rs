//! A directory of a snapshot, copied out of it: what a volume that an image defines begins with.
//!
//! Invariant: links are followed inside the snapshot only, and the snapshot is not written.

use std::os::fd::AsFd as _;
use std::path::Path;

use model::Cx;
use model::snapshot::Mount;
use spec::{Error, Kind, Result};
use sys::path::{Access, Root};

use crate::driver::copy_tree;
use crate::mount::{read_only, temporary};

/// Copies what is in the directory `inside` of the snapshot of `mounts`, and the directory's own attributes, into the
/// empty directory `to`; says whether there was such a directory. `dir` is where a mount is made that cannot be detached.
///
/// # Errors
/// The snapshot cannot be mounted; the disk is full.
pub fn copy_out(cx: &Cx<'_>, dir: &Path, mounts: &[Mount], inside: &Path, to: &Path) -> Result<bool> {
    temporary(dir, &read_only(mounts), |root| {
        let failed = |error: sys::Error| Error::internal(format!("volume {}: {error}", inside.display()));
        let root = Root::from_fd(sys::path::at::duplicate(root).map_err(failed)?);
        let from = match root.open(inside.strip_prefix("/").unwrap_or(inside), Access::Directory) {
            Ok(from) => Root::from_fd(from),
            // Nothing there, or a file: the volume is empty then.
            Err(error) if error.is(libc::ENOTDIR) || Kind::from_errno(error.errno()) == Kind::NotFound => {
                return Ok(false);
            }
            Err(error) => return Err(failed(error)),
        };
        let to = Root::open_dir(to).map_err(failed)?;
        copy_tree(cx, &from, to.as_fd())?;
        Ok(true)
    })
}
