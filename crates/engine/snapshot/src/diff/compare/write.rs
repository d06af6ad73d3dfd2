//! The archive of a layer: changes turned into entries.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::BufWriter;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use model::Cx;
use model::diff::Compare;
use spec::Digest;
use sys::path::at::{self, Stat};
use sys::xattr;

use super::CompareError;
use super::sink::Packer;
use crate::tar::{Entry, EntryType, Writer};

/// A layer's archive being written.
pub(super) struct LayerWriter<'a> {
    cx: &'a Cx<'a>,
    tar: Writer<BufWriter<Packer<'a>>>,
    /// The tree with the new state.
    tree: BorrowedFd<'a>,
    /// No time is later, when given: seconds since 1970.
    latest: Option<i64>,
    /// Directories that have their entry.
    dirs: HashSet<PathBuf>,
    /// The entry's name of files with several names.
    sources: HashMap<(u64, u64), Vec<u8>>,
    /// Names of unchanged files with several names, until one of these has changed.
    waiting: BTreeMap<(u64, u64), Vec<PathBuf>>,
}

impl<'a> LayerWriter<'a> {
    pub fn new(cx: &'a Cx<'a>, to: Packer<'a>, tree: BorrowedFd<'a>, compare: &Compare) -> Self {
        let latest = compare.source_date_epoch.map(|time| {
            time.duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
        });
        Self {
            cx,
            tar: Writer::new(BufWriter::with_capacity(128 << 10, to)),
            tree,
            latest,
            dirs: HashSet::new(),
            sources: HashMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// Writes an object that is new or has changed: `name` in the open directory `dir`, which is at `path`.
    pub fn changed(
        &mut self,
        path: &Path,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        stat: &Stat,
    ) -> Result<(), CompareError> {
        self.cx.check().map_err(CompareError::Content)?;
        if stat.mode & libc::S_IFMT == libc::S_IFSOCK {
            return Ok(());
        }
        let inode = (stat.dev, stat.ino);
        if stat.is_dir() {
            return self.directory(path, dir, name, stat);
        }
        self.parents(path)?;
        let mut entry = self.entry(path, dir, name, stat)?;
        if stat.nlink > 1 {
            if let Some(source) = self.sources.get(&inode) {
                entry.kind = EntryType::HardLink;
                entry.link = source.clone();
                return self.put(&entry);
            }
            self.sources.insert(inode, entry.name.clone());
        }
        if entry.kind == EntryType::File {
            self.file(&entry, path, dir, name)?;
        } else {
            self.put(&entry)?;
        }
        let source = entry.name.clone();
        for other in self.waiting.remove(&inode).unwrap_or_default() {
            self.parents(&other)?;
            let name = other.into_os_string().into_vec();
            self.put(&Entry { name, kind: EntryType::HardLink, link: source.clone(), ..entry.clone() })?;
        }
        Ok(())
    }

    /// Notes an object that has not changed: as another name of a changed file it belongs to the layer all the same.
    pub fn unchanged(
        &mut self,
        path: &Path,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        stat: &Stat,
    ) -> Result<(), CompareError> {
        if stat.is_dir() || stat.nlink < 2 {
            return Ok(());
        }
        if self.sources.contains_key(&(stat.dev, stat.ino)) {
            return self.changed(path, dir, name, stat);
        }
        self.waiting.entry((stat.dev, stat.ino)).or_default().push(path.to_owned());
        Ok(())
    }

    /// Writes the deletion of `path`.
    pub fn deleted(&mut self, path: &Path) -> Result<(), CompareError> {
        self.cx.check().map_err(CompareError::Content)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        self.parents(path)?;
        let whiteout = [b".wh.", name.as_bytes()].concat();
        self.mark(parent, &whiteout)
    }

    /// Writes that nothing below shows in the directory `path`.
    pub fn opaque(&mut self, path: &Path) -> Result<(), CompareError> {
        self.mark(path, b".wh..wh..opq")
    }

    /// Ends the archive; its digest.
    pub fn finish(self) -> Result<Digest, CompareError> {
        let buffer = self.tar.finish().map_err(CompareError::Write)?;
        let packer = buffer.into_inner().map_err(|error| CompareError::Write(error.into_error()))?;
        packer.finish()
    }

    fn mark(&mut self, dir: &Path, name: &[u8]) -> Result<(), CompareError> {
        let path = dir.join(OsStr::from_bytes(name));
        self.put(&Entry::new(EntryType::File, path.into_os_string().into_vec()))
    }

    fn put(&mut self, entry: &Entry) -> Result<(), CompareError> {
        self.tar.entry(entry).map_err(CompareError::Write)
    }

    fn directory(
        &mut self,
        path: &Path,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        stat: &Stat,
    ) -> Result<(), CompareError> {
        if self.dirs.contains(path) {
            return Ok(());
        }
        self.parents(path)?;
        let entry = self.entry(path, dir, name, stat)?;
        self.dirs.insert(path.to_owned());
        self.put(&entry)
    }

    /// Writes the directories that `path` is in, which an applier may not have to guess.
    fn parents(&mut self, path: &Path) -> Result<(), CompareError> {
        let missing: Vec<_> = path
            .ancestors()
            .skip(1)
            .take_while(|parent| !parent.as_os_str().is_empty() && !self.dirs.contains(*parent))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let root = crate::walk::duplicate(self.tree).map_err(CompareError::files("open", path))?;
        let root = sys::path::Root::from_fd(root);
        for parent in missing.into_iter().rev() {
            let failed = CompareError::files("open", parent);
            let Some(name) = parent.file_name() else { continue };
            let above = parent.parent().unwrap_or(Path::new(""));
            let dir = root.open_on_mount(above, sys::path::Access::Directory).map_err(failed)?;
            let stat = at::stat(dir.as_fd(), name).map_err(CompareError::files("stat", parent))?;
            let entry = self.entry(parent, dir.as_fd(), name, &stat)?;
            self.dirs.insert(parent.to_owned());
            self.put(&entry)?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        entry: &Entry,
        path: &Path,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), CompareError> {
        let fd = at::open(dir, name, libc::O_RDONLY | libc::O_NONBLOCK, 0)
            .map_err(CompareError::files("open", path))?;
        let mut file = File::from(fd);
        self.tar.file(entry, &mut file).map_err(|error| match error.kind() {
            // The one failure of reading that the writer reports itself.
            std::io::ErrorKind::UnexpectedEof => CompareError::Read { path: path.to_owned(), source: error },
            _ => CompareError::Write(error),
        })
    }

    fn entry(
        &self,
        path: &Path,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        stat: &Stat,
    ) -> Result<Entry, CompareError> {
        let kind = match stat.mode & libc::S_IFMT {
            libc::S_IFDIR => EntryType::Directory,
            libc::S_IFLNK => EntryType::Symlink,
            libc::S_IFCHR => EntryType::CharDevice,
            libc::S_IFBLK => EntryType::BlockDevice,
            libc::S_IFIFO => EntryType::Fifo,
            _ => EntryType::File,
        };
        let mut text = path.as_os_str().as_bytes().to_vec();
        if kind == EntryType::Directory {
            text.push(b'/');
        }
        let mut entry = Entry::new(kind, text);
        entry.mode = stat.mode & 0o7777;
        (entry.uid, entry.gid) = (stat.uid, stat.gid);
        entry.mtime = (self.latest.map_or(stat.mtime.0, |latest| stat.mtime.0.min(latest)), 0);
        match kind {
            EntryType::File => entry.size = stat.size,
            EntryType::Symlink => {
                let target = at::read_link(dir, name).map_err(CompareError::files("read the link", path))?;
                entry.link = target.into_vec();
            }
            EntryType::CharDevice | EntryType::BlockDevice => entry.device = at::device_parts(stat.rdev),
            EntryType::Directory | EntryType::Fifo | EntryType::HardLink => {}
        }
        entry.xattrs = attributes(dir, name).map_err(CompareError::files("read the attributes of", path))?;
        Ok(entry)
    }
}

/// The extended attributes that a layer carries: capabilities, access control lists and the user's own. Labels of
/// security modules and overlay's books are the host's.
pub(super) fn attributes(dir: BorrowedFd<'_>, name: &OsStr) -> sys::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut out = Vec::new();
    for attribute in xattr::list_at(dir, name)? {
        let bytes = attribute.as_bytes();
        let is_carried = bytes == b"security.capability"
            || bytes.starts_with(b"system.posix_acl_")
            || bytes.starts_with(b"user.") && !crate::lower::is_overlays_own(bytes);
        if !is_carried {
            continue;
        }
        if let Some(value) = xattr::get_at(dir, name, OsStr::from_bytes(bytes))? {
            out.push((bytes.to_vec(), value));
        }
    }
    out.sort();
    Ok(out)
}
