//! The directories that entries are made in, found below the root and kept open.
//!
//! A parent is resolved as the container would see it: links are followed, absolute ones and `..` stay below the root,
//! what is missing is made. The quick way is one `openat2(2)` that meets no link; the other walks by hand, descriptor
//! by descriptor, so `..` is the descriptor it came from and nothing can be swapped underneath.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use sys::path::{Access, Root, at};

use super::ApplyError;

/// Directories that are kept open.
const KEPT: usize = 128;
/// Links that one path may meet, as in containerd.
const MOST_LINKS: u32 = 255;
/// The longest real path of a directory: below the system's bound, so that whatever is made can be removed.
const LONGEST: usize = 3800;

/// A directory below the root.
#[derive(Debug)]
pub(super) struct Parent {
    /// It, open for reading.
    pub fd: OwnedFd,
    /// Its path below the root, without links.
    pub path: PathBuf,
}

/// The root, and the directories opened last.
pub(super) struct Parents {
    root: Root,
    kept: HashMap<PathBuf, Rc<Parent>>,
}

/// Made by a walk, because no entry had named it yet.
pub(super) type Made = Vec<PathBuf>;

impl Parents {
    pub fn new(root: OwnedFd) -> Self {
        Self { root: Root::from_fd(root), kept: HashMap::new() }
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Forgets what is open: a directory or a link on the way to it may have gone.
    pub fn forget(&mut self) {
        self.kept.clear();
    }

    /// The directory `path`, made if it is missing. `made` learns the real paths of what was made.
    pub fn get(&mut self, path: &Path, made: &mut Made) -> Result<Rc<Parent>, ApplyError> {
        if let Some(parent) = self.kept.get(path) {
            return Ok(parent.clone());
        }
        let parent = match self.root.open_on_mount(path, Access::Directory) {
            Ok(fd) => Parent { fd, path: path.to_owned() },
            Err(error) if [libc::ENOENT, libc::ELOOP, libc::ENOTDIR].contains(&error.errno()) => {
                Walk::new(&self.root, path, made)?.run()?
            }
            Err(source) => return Err(failed(path, "open the parent", source)),
        };
        if parent.path.as_os_str().len() > LONGEST {
            let length = parent.path.as_os_str().len();
            return Err(ApplyError::Long { name: super::names::show(path.as_os_str().as_bytes()), length });
        }
        let parent = Rc::new(parent);
        if self.kept.len() >= KEPT {
            self.kept.clear();
        }
        self.kept.insert(path.to_owned(), parent.clone());
        Ok(parent)
    }

    /// Opens the directory at the real path `path`, which meets no link; `None` when it has gone.
    pub fn open_real(&self, path: &Path) -> sys::Result<Option<OwnedFd>> {
        match self.root.open_on_mount(path, Access::Directory) {
            Err(error) if [libc::ENOENT, libc::ELOOP, libc::ENOTDIR].contains(&error.errno()) => Ok(None),
            done => done.map(Some),
        }
    }
}

fn failed(path: &Path, what: &'static str, source: sys::Error) -> ApplyError {
    ApplyError::Entry { name: path.display().to_string(), what, source }
}

/// A walk by hand.
struct Walk<'a> {
    wanted: &'a Path,
    made: &'a mut Made,
    /// Parts still to go, the next one last.
    todo: Vec<OsString>,
    /// The directories from the root to here.
    stack: Vec<(OsString, OwnedFd)>,
    links: u32,
    top: OwnedFd,
}

impl<'a> Walk<'a> {
    fn new(root: &Root, wanted: &'a Path, made: &'a mut Made) -> Result<Self, ApplyError> {
        let top =
            crate::walk::duplicate(root.as_fd()).map_err(|error| failed(wanted, "open the root", error))?;
        let mut walk = Self { wanted, made, todo: Vec::new(), stack: Vec::new(), links: 0, top };
        walk.push(wanted);
        Ok(walk)
    }

    fn push(&mut self, path: &Path) {
        let parts = path.components().rev().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        });
        self.todo.extend(parts);
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.stack.last().map_or(self.top.as_fd(), |(_, fd)| fd.as_fd())
    }

    fn path(&self) -> PathBuf {
        self.stack.iter().map(|(name, _)| name).collect()
    }

    fn run(mut self) -> Result<Parent, ApplyError> {
        while let Some(name) = self.todo.pop() {
            if name == ".." {
                self.stack.pop();
                continue;
            }
            let depth: usize = self.stack.iter().map(|(name, _)| name.len() + 1).sum();
            if depth + name.len() > LONGEST {
                let length = depth + name.len();
                return Err(ApplyError::Long { name: self.wanted.display().to_string(), length });
            }
            self.step(&name)?;
        }
        let path = self.path();
        let fd = match self.stack.pop() {
            Some((_, fd)) => fd,
            None => self.top,
        };
        Ok(Parent { fd, path })
    }

    fn step(&mut self, name: &OsStr) -> Result<(), ApplyError> {
        match open_dir(self.here(), name) {
            Ok(fd) => self.stack.push((name.to_owned(), fd)),
            Err(error) if error.is(libc::ENOENT) => self.make(name)?,
            Err(error) if error.is(libc::ELOOP) || error.is(libc::ENOTDIR) => self.turn(name)?,
            Err(error) => return Err(failed(self.wanted, "open the parent", error)),
        }
        Ok(())
    }

    fn make(&mut self, name: &OsStr) -> Result<(), ApplyError> {
        let fail = |error| failed(self.wanted, "make the parent", error);
        at::make_dir(self.here(), name, 0o755).map_err(fail)?;
        let fd = open_dir(self.here(), name).map_err(fail)?;
        at::chmod_fd(fd.as_fd(), 0o755).map_err(fail)?;
        self.stack.push((name.to_owned(), fd));
        let path = self.path();
        self.made.push(path);
        Ok(())
    }

    /// Goes where a link leads. What is neither a directory nor a link (a whiteout too) ends the walk.
    fn turn(&mut self, name: &OsStr) -> Result<(), ApplyError> {
        let target = match at::read_link(self.here(), name) {
            Err(error) if error.is(libc::EINVAL) => {
                return Err(ApplyError::Parent { name: self.wanted.display().to_string() });
            }
            done => PathBuf::from(done.map_err(|error| failed(self.wanted, "read the link", error))?),
        };
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(ApplyError::Links { name: self.wanted.display().to_string() });
        }
        if target.is_absolute() {
            self.stack.clear();
        }
        self.push(&target);
        Ok(())
    }
}

fn open_dir(dir: BorrowedFd<'_>, name: &OsStr) -> sys::Result<OwnedFd> {
    at::open(dir, name, libc::O_RDONLY | libc::O_DIRECTORY, 0)
}
