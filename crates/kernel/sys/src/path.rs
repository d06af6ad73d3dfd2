//! Paths from outside, walked under a root descriptor.
//!
//! [`Root`] resolves a hostile path with `openat2(2)`: absolute links and `..` stay below the root, magic links are
//! refused, and what comes back is a descriptor, so renaming a parent afterwards changes nothing.
//! [`at`] holds the calls on one name in one directory, which never follow a link.
//!
//! Invariant: no function here follows a link out of the root it was given.
//! Invariant: every descriptor returned is close-on-exec.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::{Error, Result, call};

pub mod at;
mod missing;
mod tree;

pub use tree::{remove_contents, remove_tree};

/// Flags that open a directory as a handle.
const HANDLE_OF_DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// How many times a walk that lost a race with a rename is tried again.
const RETRIES: u32 = 64;

/// A directory below which everything is resolved.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
}

/// How [`Root::open`] opens a file that may exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For reading.
    Read,
    /// For writing, without truncating.
    Write,
    /// For reading and writing.
    ReadWrite,
    /// As a handle only (`O_PATH`): no right of access is used, no driver is opened.
    Handle,
    /// As a directory, for reading its entries.
    Directory,
}

impl Access {
    fn flags(self) -> OFlags {
        // A hostile tree may hold a FIFO or a terminal where a file is expected: never wait, never take a terminal.
        let calm = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        match self {
            Self::Read => OFlags::RDONLY | calm,
            Self::Write => OFlags::WRONLY | calm,
            Self::ReadWrite => OFlags::RDWR | calm,
            Self::Handle => OFlags::PATH | OFlags::CLOEXEC,
            Self::Directory => OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        }
    }
}

impl Root {
    /// Opens the directory `path`, a path of ours that is trusted, as a root.
    pub fn open_dir(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(call!("open", path))?;
        Ok(Self { dir })
    }

    /// Takes `dir`, a descriptor of a directory, as a root.
    pub fn from_fd(dir: OwnedFd) -> Self {
        Self { dir }
    }

    /// Gives the descriptor back.
    pub fn into_fd(self) -> OwnedFd {
        self.dir
    }

    /// Opens what `path` names below the root. Links are followed inside the root.
    ///
    /// `openat2(2)`, Linux 5.6.
    pub fn open(&self, path: &Path, access: Access) -> Result<OwnedFd> {
        self.resolve(path, access.flags(), Mode::empty(), ResolveFlags::empty())
    }

    /// Opens what `path` names, refusing any link on the way, the last part included.
    pub fn open_without_links(&self, path: &Path, access: Access) -> Result<OwnedFd> {
        self.resolve(path, access.flags(), Mode::empty(), ResolveFlags::NO_SYMLINKS)
    }

    /// Opens what `path` names without following a link in its last part: the link itself is the result.
    pub fn open_link(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.resolve(path, flags, Mode::empty(), ResolveFlags::empty())
    }

    /// Opens what `path` names on the root's own mount, refusing links and anything mounted on the way.
    pub fn open_on_mount(&self, path: &Path, access: Access) -> Result<OwnedFd> {
        self.resolve(path, access.flags(), Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV)
    }

    /// Opens the directory `path` as a handle, making what is missing with `mode`.
    ///
    /// A link to something missing is followed below the root: what it names is made.
    pub fn make_dirs(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        let clean = clean(path);
        match self.resolve(&clean, HANDLE_OF_DIRECTORY, Mode::empty(), ResolveFlags::empty()) {
            Err(error) if error.is(libc::ENOENT) => {}
            done => return done,
        }
        self.make_plain_dirs(&missing::destination(self, &clean)?, mode)
    }

    /// Makes the directories of `path`, none of which is a link.
    fn make_plain_dirs(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        match self.resolve(path, HANDLE_OF_DIRECTORY, Mode::empty(), ResolveFlags::empty()) {
            Err(error) if error.is(libc::ENOENT) => {}
            done => return done,
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::new(libc::ENOENT, format!("openat2({path:?})")));
        };
        let parent = self.make_plain_dirs(parent, mode)?;
        match at::make_dir(parent.as_fd(), name, mode) {
            // Another process was faster; the open below finds out what it made.
            Err(error) if error.is(libc::EEXIST) => {}
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        let flags = HANDLE_OF_DIRECTORY | OFlags::NOFOLLOW;
        rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(call!("openat", parent, name))
    }

    /// Opens the parent directory of `path` as a handle, with the last name of `path`.
    ///
    /// Fails with `EINVAL` for a path that ends in `..` or has no name at all.
    pub fn open_parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr)> {
        let Some(name) = path.file_name() else {
            return Err(Error::new(libc::EINVAL, format!("openat2({path:?})")));
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok((self.resolve(parent, flags, Mode::empty(), ResolveFlags::empty())?, name))
    }

    /// Opens the file `path` as a handle, making it (empty) and its parents when they are missing.
    ///
    /// A link to something missing is followed below the root: what it names is made.
    pub fn make_file(&self, path: &Path, mode: u32, parents_mode: u32) -> Result<OwnedFd> {
        let clean = clean(path);
        match self.open(&clean, Access::Handle) {
            Err(error) if error.is(libc::ENOENT) => {}
            done => return done,
        }
        let place = missing::destination(self, &clean)?;
        let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else {
            return Err(Error::new(libc::EINVAL, format!("openat2({path:?})")));
        };
        let parent = self.make_plain_dirs(parent, parents_mode)?;
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(mode))
            .map_err(call!("openat", parent, name))?;
        drop(file);
        rustix::fs::openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(call!("openat", parent, name))
    }

    /// The path below the root, without a leading slash, at which the kernel shows `fd`, an object below the root.
    ///
    /// Reads `/proc/self/fd`, so the caller's `/proc` must be trusted.
    ///
    /// # Errors
    /// `EXDEV`: `fd` is not below the root.
    pub fn locate(&self, fd: BorrowedFd<'_>) -> Result<PathBuf> {
        let shown = |fd: BorrowedFd<'_>| at::read_link(at::here(), of_fd(fd).as_os_str()).map(PathBuf::from);
        let (root, place) = (shown(self.as_fd())?, shown(fd)?);
        match place.strip_prefix(&root) {
            Ok(below) => Ok(below.to_owned()),
            Err(_) => Err(Error::new(libc::EXDEV, format!("readlink({place:?}, below {root:?})"))),
        }
    }

    /// Opens `path`, which must be relative and lead nowhere above the root, not even by a link: `EXDEV` else.
    pub fn open_beneath(&self, path: &Path, access: Access) -> Result<OwnedFd> {
        self.resolve(path, access.flags(), Mode::empty(), ResolveFlags::BENEATH)
    }

    fn resolve(&self, path: &Path, flags: OFlags, mode: Mode, more: ResolveFlags) -> Result<OwnedFd> {
        // The kernel takes one of the two.
        let within = if more.contains(ResolveFlags::BENEATH) { more } else { ResolveFlags::IN_ROOT | more };
        let how = within | ResolveFlags::NO_MAGICLINKS;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&self.dir, path, flags, mode, how) {
                // Something was renamed while the kernel walked `..`: the kernel asks for another try.
                Err(rustix::io::Errno::AGAIN) if tries < RETRIES => tries += 1,
                Err(rustix::io::Errno::INTR) => {}
                done => return done.map_err(call!("openat2", self.dir, path)),
            }
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Removes `.` and `..` from `path` by its text alone, as Go's `filepath.Clean("/" + path)` does, without the slash.
pub fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// The path under which the calling process reaches `fd` again: `/proc/self/fd/N`.
///
/// For the few calls that take no descriptor. Only as good as the `/proc` it is used with.
pub fn of_fd(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open_dir(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn links_and_dots_stay_below_the_root() {
        let (dir, root) = root();
        symlink("/etc", dir.path().join("abs")).unwrap();
        symlink("../../../../etc", dir.path().join("up")).unwrap();
        for name in ["abs/passwd", "up/passwd", "../../etc/passwd"] {
            let error = root.open(Path::new(name), Access::Read).unwrap_err();
            assert_eq!(error.errno(), libc::ENOENT, "{name}");
        }
    }

    #[test]
    fn missing_directories_are_made_through_inner_links() {
        let (dir, root) = root();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        symlink("/real", dir.path().join("link")).unwrap();
        root.make_dirs(Path::new("/link/a/./b/../c"), 0o755).unwrap();
        assert!(dir.path().join("real/a/c").is_dir());
    }

    #[test]
    fn a_link_to_something_missing_is_made_below_the_root() {
        // Link, its text, what is asked for, and what that makes.
        for (link, text, path, made) in [
            ("link", "/nowhere", "link/x", "nowhere/x"),
            ("localtime", "/usr/share/zone", "localtime", "usr/share/zone"),
            ("up", "../../../q/w", "up/b", "q/w/b"),
            ("run", "gone/../run2", "run/./c", "run2/c"),
        ] {
            let (dir, root) = root();
            symlink(text, dir.path().join(link)).unwrap();
            root.make_dirs(Path::new(path), 0o755).unwrap();
            assert!(dir.path().join(made).is_dir(), "{path} as directory");
            std::fs::remove_dir_all(dir.path().join(made.split('/').next().unwrap())).unwrap();
            root.make_file(Path::new(path), 0o644, 0o755).unwrap();
            assert!(dir.path().join(made).is_file(), "{path} as file");
            assert!(dir.path().join(link).is_symlink());
        }
    }

    #[test]
    fn a_chain_of_links_ends_and_a_circle_is_refused() {
        let (dir, root) = root();
        for (link, text) in [("t1", "t2"), ("t2", "/t3"), ("a", "b/x"), ("b", "a")] {
            symlink(text, dir.path().join(link)).unwrap();
        }
        root.make_dirs(Path::new("/t1"), 0o755).unwrap();
        assert!(dir.path().join("t3").is_dir());
        assert_eq!(root.make_dirs(Path::new("/a"), 0o755).unwrap_err().errno(), libc::ELOOP);
    }

    #[test]
    fn an_open_object_is_located_below_the_root() {
        let (dir, root) = root();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        symlink("a", dir.path().join("l")).unwrap();
        let below = root.open(Path::new("/l/b"), Access::Handle).unwrap();
        assert_eq!(root.locate(below.as_fd()).unwrap(), Path::new("a/b"));
        let outside = Root::open_dir(Path::new("/")).unwrap();
        assert_eq!(root.locate(outside.as_fd()).unwrap_err().errno(), libc::EXDEV);
    }

    #[test]
    fn a_file_is_made_with_its_parents() {
        let (dir, root) = root();
        root.make_file(Path::new("/a/b/file"), 0o644, 0o755).unwrap();
        assert!(dir.path().join("a/b/file").is_file());
        root.make_file(Path::new("/a/b/file"), 0o644, 0o755).unwrap();
    }

    #[test]
    fn cleaning_never_climbs() {
        assert_eq!(clean(Path::new("/../a/./b/../../c")), Path::new("c"));
        assert_eq!(clean(Path::new("/")), Path::new(""));
    }

    #[test]
    fn without_links_refuses_a_linked_directory() {
        let (dir, root) = root();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        symlink("d", dir.path().join("l")).unwrap();
        let error = root.open_without_links(Path::new("l"), Access::Handle).unwrap_err();
        assert_eq!(error.errno(), libc::ELOOP);
    }
}
