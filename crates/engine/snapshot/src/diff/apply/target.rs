//! The tree that a layer is written into.
//!
//! Invariant: an object is made by name in an open directory and never through a link.
//! Invariant: what one layer writes does not depend on the order of its deletions: those speak of the layers below.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::io::BufRead;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use model::Cx;
use sys::path::at;

use super::ApplyError;
use super::metadata::{self, Step, Times, step};
use super::names::{Meaning, Name, show};
use super::parents::{Parent, Parents};
use crate::lower::Lower;
use crate::marks::{Marks, is_whiteout};
use crate::tar::{Entry, EntryType, Reader};

/// Where deletions go.
pub(super) enum Style {
    /// Overlay's marks, in the layer's own directory. `lower` is what is below, when it is known already.
    Stacked { marks: Marks, lower: Option<Lower> },
    /// Real deletions; what this layer made (as hashes of paths) is spared.
    Merged { made: Made },
}

/// The paths that this layer made, as keyed hashes: a hostile image cannot make two of them collide.
#[derive(Default)]
pub(super) struct Made {
    hasher: RandomState,
    hashes: HashSet<u64>,
}

impl Made {
    pub fn add(&mut self, path: &Path) {
        self.hashes.insert(self.hasher.hash_one(path));
    }

    pub fn has(&self, path: &Path) -> bool {
        self.hashes.contains(&self.hasher.hash_one(path))
    }
}

/// A directory that no entry has named.
#[derive(Clone, Copy, Debug)]
pub(super) struct Implicit {
    /// The times of the entry that needed it.
    pub times: Times,
    /// Whether it looks as it does in the layers below. One that replaces a deleted directory does not.
    pub inherits: bool,
}

/// A tree being written.
pub(super) struct Target {
    pub(super) parents: Parents,
    pub(super) style: Style,
    /// Times of directories, set at the end, when nothing more is made in them.
    pub(super) dirs: BTreeMap<PathBuf, Times>,
    /// Directories that no entry has named (yet).
    pub(super) implicit: BTreeMap<PathBuf, Implicit>,
    /// Directories with whiteouts in them.
    pub(super) whitened: BTreeSet<PathBuf>,
    /// Directories that hide what the layers below have in them.
    pub(super) opaque: BTreeSet<PathBuf>,
    umask: u32,
    /// Set when a directory got a default access control list: then creation sets other permissions than it was asked.
    has_default_acl: Cell<bool>,
}

/// What stood in the way of an entry, and was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Something,
}

impl Target {
    pub fn stacked(root: OwnedFd, lower: Option<Lower>) -> Self {
        Self::new(root, Style::Stacked { marks: Marks::here(), lower })
    }

    pub fn merged(root: OwnedFd) -> Self {
        Self::new(root, Style::Merged { made: Made::default() })
    }

    fn new(root: OwnedFd, style: Style) -> Self {
        Self {
            parents: Parents::new(root),
            style,
            dirs: BTreeMap::new(),
            implicit: BTreeMap::new(),
            whitened: BTreeSet::new(),
            opaque: BTreeSet::new(),
            umask: umask(),
            has_default_acl: Cell::new(false),
        }
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.parents.root()
    }

    /// Writes one entry; `data` has its bytes.
    pub fn entry<R: BufRead>(
        &mut self,
        cx: &Cx<'_>,
        entry: &Entry,
        data: &mut Reader<R>,
    ) -> Result<(), ApplyError> {
        // The root's own entry changes nothing, as in containerd.
        let Some(name) = Name::parse(&entry.name)? else { return Ok(()) };
        let meaning = name.meaning()?;
        let is_device = matches!(entry.kind, EntryType::CharDevice | EntryType::BlockDevice);
        let is_skipped = meaning == Meaning::Nothing
            || meaning == Meaning::Object && is_device && crate::mount::in_user_namespace();
        if is_skipped {
            return Ok(());
        }
        let parent = self.parent(&name, entry)?;
        let named = |(what, source)| ApplyError::Entry { name: show(&entry.name), what, source };
        match meaning {
            Meaning::Nothing => Ok(()),
            Meaning::Opaque => self.make_opaque(&parent).map_err(named),
            Meaning::Delete(deleted) => self.delete(&parent, &deleted).map_err(named),
            Meaning::Object => {
                let path = parent.path.join(&name.last);
                self.object(cx, &parent, &name.last, &path, entry, data)?;
                if let Style::Merged { made } = &mut self.style {
                    made.add(&path);
                }
                Ok(())
            }
        }
    }

    /// The directory of an entry, made when it is missing.
    fn parent(&mut self, name: &Name, entry: &Entry) -> Result<std::rc::Rc<Parent>, ApplyError> {
        let mut made = Vec::new();
        let mut found = self.parents.get(&name.parent, &mut made);
        if matches!(found, Err(ApplyError::Parent { .. })) {
            let cleared = self.clear_whiteouts(&name.parent)?;
            if !cleared.is_empty() {
                found = self.parents.get(&name.parent, &mut made);
            }
            self.add_implicit(cleared, entry, false);
        }
        self.add_implicit(made, entry, true);
        found
    }

    fn add_implicit(&mut self, paths: Vec<PathBuf>, entry: &Entry, inherits: bool) {
        let times = Times::of(entry);
        self.implicit.extend(paths.into_iter().map(|path| (path, Implicit { times, inherits })));
    }

    fn object<R: BufRead>(
        &mut self,
        cx: &Cx<'_>,
        parent: &Parent,
        name: &OsStr,
        path: &Path,
        entry: &Entry,
        data: &mut Reader<R>,
    ) -> Result<(), ApplyError> {
        let dir = parent.fd.as_fd();
        let named = |(what, source)| ApplyError::Entry { name: show(&entry.name), what, source };
        match entry.kind {
            EntryType::File => {
                let file = self.retry(dir, name, |this| this.make_file(dir, name, entry)).map_err(named)?;
                self.fill(cx, file, entry, data)
            }
            EntryType::Directory => {
                self.directory(dir, name, path, entry).map_err(named)?;
                self.implicit.remove(path);
                self.dirs.insert(path.to_owned(), Times::of(entry));
                Ok(())
            }
            EntryType::HardLink => self.hard_link(parent, name, entry),
            EntryType::Symlink => {
                let target = Path::new(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&entry.link));
                let make = |_: &mut Self| at::make_link(target, dir, name);
                self.retry(dir, name, make)
                    .and_then(|()| metadata::set_at(dir, name, entry, true))
                    .map_err(named)
            }
            EntryType::CharDevice | EntryType::BlockDevice | EntryType::Fifo => {
                let (mode, rdev) = node(entry);
                self.retry(dir, name, |_| at::make_node(dir, name, mode, rdev))
                    .and_then(|()| metadata::set_at(dir, name, entry, false))
                    .map_err(named)
            }
        }
    }

    /// Makes something whose name may be taken: then what has it is removed first.
    fn retry<T>(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        mut make: impl FnMut(&mut Self) -> sys::Result<T>,
    ) -> Step<T> {
        match make(self) {
            Err(error) if error.is(libc::EEXIST) => {}
            done => return step("make it", done),
        }
        self.remove(dir, name)?;
        step("make it", make(self))
    }

    /// Removes whatever `name` is.
    fn remove(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Step<Found> {
        let stat = match at::stat(dir, name) {
            Err(error) if error.is(libc::ENOENT) => return Ok(Found::Nothing),
            done => step("look at what is in the way", done)?,
        };
        if stat.is_dir() || stat.is_link() {
            self.parents.forget();
        }
        step("remove what is in the way", sys::path::remove_tree(dir, name))?;
        Ok(Found::Something)
    }

    fn make_file(&self, dir: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> sys::Result<OwnedFd> {
        at::open(dir, name, libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY, entry.mode & 0o777)
    }

    fn fill<R: BufRead>(
        &self,
        cx: &Cx<'_>,
        file: OwnedFd,
        entry: &Entry,
        data: &mut Reader<R>,
    ) -> Result<(), ApplyError> {
        use std::os::unix::fs::FileExt;
        let named = |(what, source)| ApplyError::Entry { name: show(&entry.name), what, source };
        let failed = |call: &str, error: std::io::Error| {
            named(("write it", sys::Error::new(error.raw_os_error().unwrap_or(libc::EIO), call)))
        };
        let file = std::fs::File::from(file);
        let mut end = 0;
        loop {
            let (offset, bytes) = data.data()?;
            let count = bytes.len();
            if count == 0 {
                break;
            }
            file.write_all_at(bytes, offset).map_err(|error| failed("pwrite", error))?;
            data.consume(count);
            end = offset + count as u64;
            cx.check().map_err(ApplyError::Stopped)?;
        }
        // A sparse file may end in a hole.
        if end < entry.size {
            file.set_len(entry.size).map_err(|error| failed("ftruncate", error))?;
        }
        let mode_is_set = entry.mode & self.umask == 0 && !self.has_default_acl.get();
        metadata::set_fd(file.as_fd(), entry, mode_is_set).map_err(named)?;
        let times = Times::of(entry);
        step("set the times", at::set_times_fd(file.as_fd(), times.atime, times.mtime)).map_err(named)
    }

    /// A directory that exists takes the entry's attributes and keeps its content.
    fn directory(&mut self, dir: BorrowedFd<'_>, name: &OsStr, path: &Path, entry: &Entry) -> Step {
        let mut replaced = false;
        match at::make_dir(dir, name, entry.mode & 0o777) {
            Err(error) if error.is(libc::EEXIST) => {
                let stat = step("look at what is in the way", at::stat(dir, name))?;
                if !stat.is_dir() {
                    replaced = self.remove(dir, name)? == Found::Something;
                    step("make it", at::make_dir(dir, name, entry.mode & 0o777))?;
                }
            }
            done => step("make it", done)?,
        }
        let opened = step("open it", at::open(dir, name, libc::O_RDONLY | libc::O_DIRECTORY, 0))?;
        // What stood here before (a whiteout, or a file) hid the directory of the layers below; so must this.
        if let (true, Style::Stacked { marks, .. }) = (replaced, &self.style) {
            step("make it opaque", marks.set_opaque(opened.as_fd()))?;
            self.opaque.insert(path.to_owned());
        }
        if entry.xattrs.iter().any(|(name, _)| name == b"system.posix_acl_default") {
            self.has_default_acl.set(true);
        }
        metadata::set_fd(opened.as_fd(), entry, false)
    }

    fn hard_link(&mut self, parent: &Parent, name: &OsStr, entry: &Entry) -> Result<(), ApplyError> {
        let named = |(what, source)| ApplyError::Entry { name: show(&entry.name), what, source };
        let Some(target) = Name::parse(&entry.link)? else {
            return Err(named(("link to the root", sys::Error::new(libc::EPERM, "linkat(\"/\")"))));
        };
        let mut made = Vec::new();
        let from = self.parents.get(&target.parent, &mut made)?;
        self.add_implicit(made, entry, true);
        let dir = parent.fd.as_fd();
        let stat =
            step("find the file to link to", at::stat(from.fd.as_fd(), &target.last)).map_err(named)?;
        let is_hidden = matches!(self.style, Style::Stacked { .. }) && is_whiteout(&stat);
        if is_hidden || stat.is_dir() {
            let errno = if is_hidden { libc::ENOENT } else { libc::EPERM };
            let call = format!("linkat({:?})", String::from_utf8_lossy(&entry.link));
            return Err(named(("link", sys::Error::new(errno, call))));
        }
        let make = |_: &mut Self| at::hard_link(from.fd.as_fd(), &target.last, dir, name);
        self.retry(dir, name, make)
            .and_then(|()| metadata::set_at(dir, name, entry, stat.is_link()))
            .map_err(named)
    }
}

fn node(entry: &Entry) -> (u32, u64) {
    let kind = match entry.kind {
        EntryType::CharDevice => libc::S_IFCHR,
        EntryType::BlockDevice => libc::S_IFBLK,
        _ => libc::S_IFIFO,
    };
    let rdev = match entry.kind {
        EntryType::Fifo => 0,
        _ => at::device_number(entry.device.0, entry.device.1),
    };
    (kind | entry.mode & 0o7777, rdev)
}

/// The permissions that creation takes off; only read, since setting it would change it for every thread.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    field.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o777)
}
