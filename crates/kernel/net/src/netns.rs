//! Network namespaces that stay without a process: bind mounts of their files, as `ip netns` and containerd keep them.
//!
//! ```text
//! /var/run/netns/cni-UUID      a namespace file (nsfs) mounted on an empty file
//! ```
//!
//! A thread changes its namespace for itself alone, so everything that happens inside one runs on a thread made for
//! it, which ends there; no thread of the caller ever moves. Nothing is executed.
//!
//! Invariant: a path that [`create`] returned is a namespace; when it failed, nothing of it is left.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use spec::error::{HasKind, Kind};
use sys::namespace::{self, Kind as Namespace};

/// Where a thread sees the network namespace that it is in.
const OWN: &str = "/proc/thread-self/ns/net";

/// Why a network namespace was not made, entered or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The directory or the file in it cannot be made.
    #[error("cannot make {path}")]
    Reserve {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A namespace cannot be made, or not be mounted on its file.
    #[error("cannot make network namespace {path}")]
    Create {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: sys::Error,
    },
    /// It cannot be opened or is none.
    #[error("cannot open network namespace {path}")]
    Open {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: sys::Error,
    },
    /// It cannot be entered.
    #[error("cannot enter network namespace")]
    Enter(#[source] sys::Error),
    /// No thread could be started, or the one that was started panicked.
    #[error("no thread for a network namespace")]
    Thread(#[source] io::Error),
    /// It cannot be unmounted or its file cannot be removed.
    #[error("cannot remove network namespace {path}")]
    Remove {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl HasKind for NetnsError {
    fn kind(&self) -> Kind {
        match self {
            Self::Create { source, .. } | Self::Open { source, .. } | Self::Enter(source) => {
                Kind::from_errno(source.errno())
            }
            Self::Reserve { source, .. } | Self::Remove { source, .. } => {
                Kind::from_errno(source.raw_os_error().unwrap_or(0))
            }
            Self::Thread(_) => Kind::ResourceExhausted,
        }
    }
}

/// A path `dir/cni-UUID` that nobody has used. Nothing is made yet, so that whoever must remember the namespace can
/// write its path down before it exists.
pub fn fresh_path(dir: &Path) -> Result<PathBuf, NetnsError> {
    let name = uuid().map_err(|source| NetnsError::Reserve { path: dir.to_owned(), source })?;
    Ok(dir.join(format!("cni-{name}")))
}

/// Makes a network namespace, kept at `path`, which must not exist; its directory is made if need be.
pub fn create_at(path: &Path) -> Result<(), NetnsError> {
    reserve(path)?;
    let made = on_thread(|| {
        namespace::unshare(Namespace::Network.flag())?;
        pin(namespace::open(Path::new(OWN), Namespace::Network)?.as_fd(), path)
    });
    settle(made, path)
}

/// Makes a network namespace kept at `path`, as [`create_at`], which belongs to a new user namespace whose ids are mapped
/// by the texts of `uid_map` and `gid_map`: who is root there may configure it, and nothing else.
pub fn create_owned_at(path: &Path, uid_map: &str, gid_map: &str) -> Result<(), NetnsError> {
    reserve(path)?;
    let made = namespace::make_mapped(uid_map, gid_map, Namespace::Network)
        .and_then(|(_, netns)| netns.map_or(Ok(()), |netns| pin(netns.as_fd(), path)));
    settle(Ok(made), path)
}

/// Keeps the user namespace that the network namespace at `path` belongs to at `at`, which must not exist.
/// [`remove`] lets it go.
pub fn keep_owner_at(path: &Path, at: &Path) -> Result<(), NetnsError> {
    let netns = open(path)?;
    reserve(at)?;
    settle(Ok(namespace::owner(netns.as_fd()).and_then(|user| pin(user.as_fd(), at))), at)
}

/// [`create_at`] a [`fresh_path`] in `dir`.
pub fn create(dir: &Path) -> Result<PathBuf, NetnsError> {
    let path = fresh_path(dir)?;
    create_at(&path).map(|()| path)
}

/// Keeps the network namespace open as `netns` at `path`, which must not exist.
pub fn keep_at(path: &Path, netns: BorrowedFd<'_>) -> Result<(), NetnsError> {
    reserve(path)?;
    settle(Ok(pin(netns, path)), path)
}

/// Opens the namespace at `path`; anything else is refused.
pub fn open(path: &Path) -> Result<OwnedFd, NetnsError> {
    namespace::open(path, Namespace::Network)
        .map_err(|source| NetnsError::Open { path: path.to_owned(), source })
}

/// Whether `path` is a network namespace now.
pub fn exists(path: &Path) -> bool {
    open(path).is_ok()
}

/// Runs `work` inside the namespace open as `netns`, on a thread of its own, and waits for it.
pub fn run<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    on_thread(|| {
        namespace::join(netns, Namespace::Network).map_err(NetnsError::Enter)?;
        Ok(work())
    })?
}

/// Brings the loopback interface of the namespace at `path` up.
pub fn loopback_up(path: &Path) -> Result<(), NetnsError> {
    let netns = open(path)?;
    run(netns.as_fd(), namespace::loopback_up)?.map_err(NetnsError::Enter)
}

/// Lets the namespace at `path` go: unmounts it, busy or not, and removes its file. One that is gone is success.
///
/// The kernel takes the namespace apart, and with it its interfaces, when the last process and socket have left it.
pub fn remove(path: &Path) -> Result<(), NetnsError> {
    let failed = |source| NetnsError::Remove { path: path.to_owned(), source };
    sys::mount::unmount_all(path).map_err(|error| failed(error.into()))?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Paths in `dir` that [`create`] may have made, whether they are still namespaces or not, sorted.
pub fn list(dir: &Path) -> Result<Vec<PathBuf>, NetnsError> {
    let failed = |source| NetnsError::Reserve { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        if name.to_str().is_some_and(is_our_name) {
            found.push(dir.join(name));
        }
    }
    found.sort();
    Ok(found)
}

/// `cni-` and a UUID in lower case.
fn is_our_name(name: &str) -> bool {
    let Some(uuid) = name.strip_prefix("cni-") else { return false };
    let groups: Vec<_> = uuid.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

/// Makes an empty file at `path`, and its directory if need be.
fn reserve(path: &Path) -> Result<(), NetnsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| NetnsError::Reserve { path, source }
    };
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(failed(dir))?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o444);
    options.open(path).map(|_: File| ()).map_err(failed(path))
}

/// Mounts the namespace file open as `netns` on `path`.
fn pin(netns: BorrowedFd<'_>, path: &Path) -> sys::Result<()> {
    let tree = sys::mount::copy_fd(netns, false)?;
    sys::mount::attach_at(tree.as_fd(), path)
}

fn settle(made: Result<sys::Result<()>, NetnsError>, path: &Path) -> Result<(), NetnsError> {
    let error = match made {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(source)) => NetnsError::Create { path: path.to_owned(), source },
        Err(error) => error,
    };
    // The first failure is the one to tell; what is left then is an empty file, which `list` shows.
    let _ = remove(path);
    Err(error)
}

fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)
            .map_err(NetnsError::Thread)?;
        thread.join().map_err(|_| NetnsError::Thread(io::Error::other("it panicked")))
    })
}

fn uuid() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    let read = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if read != bytes.len() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok([&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use testkit::needs;

    #[test]
    fn a_namespace_lives_without_a_process_and_goes_completely() {
        needs!(root);
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("netns");
        let path = create(&dir).unwrap();
        assert!(exists(&path));
        assert_eq!(list(&dir).unwrap(), std::slice::from_ref(&path));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!exists(&path));
        assert!(list(&dir).unwrap().is_empty());
    }

    #[test]
    fn work_runs_inside_and_the_caller_stays() {
        needs!(root);
        let dir = tempfile::tempdir().unwrap();
        let path = create(dir.path()).unwrap();
        let of_thread = || fs::read_link(OWN).unwrap();
        let before = of_thread();
        let netns = open(&path).unwrap();
        let inside =
            run(netns.as_fd(), || (of_thread(), fs::read_to_string("/proc/thread-self/net/dev").unwrap()));
        let (namespace, devices) = inside.unwrap();
        assert_ne!(namespace, before);
        assert_eq!(of_thread(), before);
        let names: Vec<_> =
            devices.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();
        assert!(names.contains(&"lo"));
        loopback_up(&path).unwrap();
        let reached = run(netns.as_fd(), || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            std::net::TcpStream::connect(listener.local_addr().unwrap()).is_ok()
        });
        assert!(reached.unwrap());
        drop(netns);
        remove(&path).unwrap();
    }

    #[test]
    fn a_namespace_of_a_user_namespaces_own() {
        needs!(root);
        let dir = tempfile::tempdir().unwrap();
        let path = fresh_path(dir.path()).unwrap();
        create_owned_at(&path, "0 100000 65536\n", "0 100000 65536\n").unwrap();
        let user = dir.path().join("user");
        keep_owner_at(&path, &user).unwrap();
        let kept = namespace::open(&user, Namespace::User).unwrap();
        let ours = namespace::open(Path::new("/proc/self/ns/user"), Namespace::User).unwrap();
        let inode = |fd: &OwnedFd| sys::path::at::stat_fd(fd.as_fd()).unwrap().ino;
        assert_ne!(inode(&kept), inode(&ours));
        loopback_up(&path).unwrap();
        for path in [&path, &user] {
            remove(path).unwrap();
            assert!(!path.exists());
        }
        assert!(create_owned_at(&path, "nonsense", "0 1 1\n").is_err());
        assert!(!path.exists());
    }

    #[test]
    fn a_namespace_can_be_kept_at_a_second_path() {
        needs!(root);
        let dir = tempfile::tempdir().unwrap();
        let first = create(dir.path()).unwrap();
        let second = fresh_path(dir.path()).unwrap();
        keep_at(&second, open(&first).unwrap().as_fd()).unwrap();
        assert!(matches!(create_at(&second), Err(NetnsError::Reserve { .. })));
        assert!(exists(&second));
        remove(&first).unwrap();
        assert!(exists(&second));
        remove(&second).unwrap();
    }

    #[test]
    fn what_is_no_namespace_is_not_entered() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(open(file.path()), Err(NetnsError::Open { .. })));
        assert_eq!(open(Path::new("/nowhere")).unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn a_failure_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        // A directory cannot be mounted on a file.
        let no_namespace = File::open("/").unwrap();
        let error = keep_at(&fresh_path(dir.path()).unwrap(), no_namespace.as_fd()).unwrap_err();
        assert!(matches!(error, NetnsError::Create { .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn names_of_others_are_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["cni-0", "blue", "cni-00000000-0000-0000-0000-00000000000G", ".cni"] {
            File::create(dir.path().join(name)).unwrap();
        }
        File::create(dir.path().join("cni-01234567-89ab-cdef-0123-456789abcdef")).unwrap();
        assert_eq!(list(dir.path()).unwrap().len(), 1);
        assert!(list(&dir.path().join("absent")).unwrap().is_empty());
    }

    #[test]
    fn many_are_made_at_once() {
        needs!(root);
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| create(dir.path()).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(list(dir.path()).unwrap().len(), 16);
        for path in paths {
            remove(&path).unwrap();
        }
    }
}
