//! Listening on a unix socket that an earlier daemon may have left.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use spec::{HasKind, Kind};
use tokio::net::UnixListener;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another daemon listens there.
    #[error("another daemon listens on {}", .0.display())]
    Busy(PathBuf),
    /// What is there is no socket, and stays.
    #[error("{} is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// A step failed.
    #[error("cannot {step} {}", path.display())]
    Step {
        /// The step.
        step: &'static str,
        /// The socket or its directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl HasKind for ListenError {
    fn kind(&self) -> Kind {
        match self {
            Self::Busy(_) | Self::NotASocket(_) => Kind::FailedPrecondition,
            Self::Step { source, .. } => Kind::from_errno(source.raw_os_error().unwrap_or(0)),
        }
    }
}

/// Listens at `path` with mode 0660 and the owner given; a socket that nobody serves is replaced.
///
/// # Errors
/// See [`ListenError`].
pub fn listen(path: &Path, uid: u32, gid: u32) -> Result<UnixListener, ListenError> {
    let failed = |step| move |source| ListenError::Step { step, path: path.into(), source };
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(failed("make the directory of"))?;
    }
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look at")(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NotASocket(path.into())),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(ListenError::Busy(path.into())),
            Err(_) => std::fs::remove_file(path).map_err(failed("remove"))?,
        },
    }
    let listener = UnixListener::bind(path).map_err(failed("listen on"))?;
    std::os::unix::fs::chown(path, Some(uid), Some(gid)).map_err(failed("chown"))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(failed("chmod"))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below").join("x.sock");
        let (uid, gid) = (0, 0);
        let first = listen(&path, uid, gid).unwrap();
        assert!(matches!(listen(&path, uid, gid), Err(ListenError::Busy(_))));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        drop(first);
        drop(listen(&path, uid, gid).unwrap());
        let file = dir.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(matches!(listen(&file, uid, gid), Err(ListenError::NotASocket(_))));
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    }
}
