//! The shim's socket: where it is, making it, and telling a dead one from a live one.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use spec::error::{HasKind, Kind};

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Its directory cannot be made.
    #[error("mkdir failed for {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What mkdir(2) said.
        source: io::Error,
    },
    /// The socket cannot be bound.
    #[error("create new shim socket {}", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What bind(2) said.
        source: io::Error,
    },
}

impl HasKind for ListenError {
    fn kind(&self) -> Kind {
        match self {
            Self::Directory { source, .. } | Self::Bind { source, .. } => {
                Kind::from_errno(source.raw_os_error().unwrap_or(0))
            }
        }
    }
}

/// A socket, made or found.
#[derive(Debug)]
pub enum Socket {
    /// A new one, listening, that no process serves yet.
    New(UnixListener),
    /// One that a live shim serves.
    Served,
}

/// The address of the shim that serves `group` in `namespace` for the daemon at `grpc_address`.
pub fn address(socket_dir: &Path, grpc_address: &str, namespace: &str, group: &str) -> String {
    let joined = join(&[grpc_address, namespace, group]);
    let mut address = format!("unix://{}/", socket_dir.display());
    for byte in Sha256::digest(joined.as_bytes()) {
        address.push_str(&format!("{byte:02x}"));
    }
    address
}

/// Go's `filepath.Join` of parts that hold no `.` or `..`: empty parts vanish, slashes are single.
fn join(parts: &[&str]) -> String {
    let rooted = parts.iter().find(|part| !part.is_empty()).is_some_and(|part| part.starts_with('/'));
    let words: Vec<&str> = parts
        .iter()
        .flat_map(|part| part.split('/'))
        .filter(|word| !word.is_empty() && *word != ".")
        .collect();
    format!("{}{}", if rooted { "/" } else { "" }, words.join("/"))
}

/// The path in an address.
pub fn path_of(address: &str) -> &Path {
    Path::new(address.strip_prefix("unix://").unwrap_or(address))
}

/// Listens at `path`, or finds out that another shim does. A socket that nobody serves is replaced.
///
/// # Errors
/// See [`ListenError`].
pub fn listen(path: &Path) -> Result<Socket, ListenError> {
    if let Some(dir) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| ListenError::Directory { path: dir.into(), source })?;
    }
    let bind = |source| ListenError::Bind { path: path.into(), source };
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        made => return made.and_then(|listener| private(path, listener)).map_err(bind),
    }
    if UnixStream::connect(path).is_ok() {
        return Ok(Socket::Served);
    }
    fs::remove_file(path).map_err(bind)?;
    UnixListener::bind(path).and_then(|listener| private(path, listener)).map_err(bind)
}

fn private(path: &Path, listener: UnixListener) -> io::Result<Socket> {
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(Socket::New(listener))
}

/// Removes the socket at `path` if nobody serves it any more.
pub fn remove_dead(path: &Path) {
    if UnixStream::connect(path).is_err() {
        // It may be gone already, and a name left behind costs one inode.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_containerds() {
        // printf %s /run/containerd/containerd.sock/default/a | sha256sum
        assert_eq!(
            address(Path::new("/run/containerd/s"), "/run/containerd/containerd.sock", "default", "a"),
            "unix:///run/containerd/s/82795ca4b9b166c1139546afbf9dfd59d74776e0b49c8edfbb195f9d8b9e94a6"
        );
        assert_eq!(join(&["", "ns", "a"]), "ns/a");
        assert_eq!(join(&["/a//b/", "ns", "c"]), "/a/b/ns/c");
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s").join("x");
        let Socket::New(listener) = listen(&path).unwrap() else { panic!("nobody listens yet") };
        assert!(matches!(listen(&path).unwrap(), Socket::Served));
        drop(listener);
        assert!(matches!(listen(&path).unwrap(), Socket::New(_)));
        remove_dead(&path);
        assert!(!path.exists());
    }
}
