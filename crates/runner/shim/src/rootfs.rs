//! The container's root file system: the mounts of a create request on `<bundle>/rootfs`, and their end.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use api::containerd::types::Mount;
use spec::error::{HasKind, Kind};
use sys::path::Root;

/// Why there is no root file system.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point cannot be made.
    #[error("mkdir {}", path.display())]
    Directory {
        /// The mount point.
        path: PathBuf,
        /// What mkdir(2) said.
        source: io::Error,
    },
    /// One of the mounts failed; those before it are undone.
    #[error("failed to mount rootfs component")]
    Mount(#[source] sys::Error),
}

impl HasKind for MountError {
    fn kind(&self) -> Kind {
        match self {
            Self::Directory { source, .. } => Kind::from_errno(source.raw_os_error().unwrap_or(0)),
            // A missing layer is not a missing task, which is what NotFound would mean to the caller.
            Self::Mount(_) => Kind::Unknown,
        }
    }
}

/// Mounts `mounts`, in order, on `rootfs`; without any the directory is the container's as it stands.
///
/// # Errors
/// See [`MountError`]; nothing stays mounted.
pub fn mount(mounts: &[Mount], rootfs: &Path) -> Result<(), MountError> {
    if mounts.is_empty() {
        return Ok(());
    }
    match DirBuilder::new().mode(0o711).create(rootfs) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(MountError::Directory { path: rootfs.into(), source: error });
        }
        _ => {}
    }
    for mount in mounts {
        mount_one(mount, rootfs).map_err(MountError::Mount).inspect_err(|_| {
            // The first failure is the one to tell; what cannot be undone is found by the delete action.
            let _ = unmount(rootfs);
        })?;
    }
    Ok(())
}

fn mount_one(mount: &Mount, rootfs: &Path) -> sys::Result<()> {
    let source = OsStr::new(&mount.source);
    if mount.target.is_empty() {
        return sys::mount::fstab::mount(&mount.r#type, source, &mount.options, rootfs);
    }
    let root = Root::open_dir(rootfs)?;
    sys::mount::fstab::mount_below(&root, &mount.r#type, source, &mount.options, Path::new(&mount.target))
}

/// Unmounts whatever is on `rootfs` and below it. Nothing there is success.
///
/// # Errors
/// The kernel's, for the mount that stays.
pub fn unmount(rootfs: &Path) -> sys::Result<()> {
    if fs::symlink_metadata(rootfs).is_err() {
        return Ok(());
    }
    sys::mount::unmount_all(rootfs)
}
