//! A copy of a whole tree: content, owners, permissions, times, attributes, links and devices.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use model::Cx;
use spec::{Kind, Result};
use sys::path::at::{self, Stat};
use sys::path::{Access, Root};
use sys::xattr;

use crate::walk::{self, Entry};

/// Copies what is in `from`, and the attributes of `from` itself, into the empty directory `to`.
pub(crate) fn copy_tree(cx: &Cx<'_>, from: &Root, to: BorrowedFd<'_>) -> Result<()> {
    let top = walk::duplicate(to).map_err(|error| failed(Path::new(""), error))?;
    let copy = Copy { to: Root::from_fd(top) };
    let mut linked: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut dirs = vec![PathBuf::new()];
    walk::each_dir(from.as_fd(), failed, |path, dir, entries| {
        let target = copy.open(path)?;
        for entry in entries {
            cx.check()?;
            let inner = path.join(&entry.name);
            copy.entry(dir, target.as_fd(), entry, &inner, &mut linked)
                .map_err(|error| failed(&inner, error))?;
            if entry.stat.is_dir() {
                dirs.push(inner);
            }
        }
        Ok(())
    })?;
    // Children before parents, and times after everything was made in a directory.
    for path in dirs.iter().rev() {
        let source = from.open_on_mount(path, Access::Directory).map_err(|error| failed(path, error))?;
        let target = copy.open(path)?;
        finish_dir(source.as_fd(), target.as_fd()).map_err(|error| failed(path, error))?;
    }
    Ok(())
}

fn failed(path: &Path, error: sys::Error) -> spec::Error {
    let kind = match Kind::from_errno(error.errno()) {
        Kind::ResourceExhausted => Kind::ResourceExhausted,
        _ => Kind::Internal,
    };
    spec::Error::new(kind, format!("{}: {error}", path.display()))
}

struct Copy {
    to: Root,
}

impl Copy {
    fn open(&self, path: &Path) -> Result<std::os::fd::OwnedFd> {
        self.to.open_on_mount(path, Access::Directory).map_err(|error| failed(path, error))
    }

    fn entry(
        &self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        entry: &Entry,
        path: &Path,
        linked: &mut HashMap<(u64, u64), PathBuf>,
    ) -> sys::Result<()> {
        let (name, stat) = (entry.name.as_os_str(), &entry.stat);
        if stat.is_dir() {
            return at::make_dir(to, name, 0o700);
        }
        if stat.nlink > 1 {
            if let Some(first) = linked.get(&(stat.dev, stat.ino)) {
                let (parent, first) = self.to.open_parent(first)?;
                return at::hard_link(parent.as_fd(), first, to, name);
            }
            linked.insert((stat.dev, stat.ino), path.to_owned());
        }
        match stat.mode & libc::S_IFMT {
            libc::S_IFREG => return copy_file(from, to, name, stat),
            libc::S_IFLNK => {
                let target = at::read_link(from, name)?;
                at::make_link(Path::new(&target), to, name)?;
            }
            libc::S_IFSOCK => return Ok(()),
            _ => at::make_node(to, name, stat.mode, stat.rdev)?,
        }
        at::chown(to, name, stat.uid, stat.gid)?;
        for attribute in xattr::list_at(from, name)? {
            let attribute = OsStr::from_bytes(attribute.as_bytes());
            if let Some(value) = xattr::get_at(from, name, attribute)? {
                xattr::set_at(to, name, attribute, &value)?;
            }
        }
        if !stat.is_link() {
            at::chmod(to, name, stat.mode & 0o7777)?;
        }
        at::set_times(to, name, stat.atime, stat.mtime)
    }
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> sys::Result<()> {
    let source = File::from(at::open(from, name, libc::O_RDONLY | libc::O_NONBLOCK, 0)?);
    let target = File::from(at::make_file(to, name, 0o600)?);
    copy_bytes(&source, &target, stat).map_err(|error| {
        sys::Error::new(error.raw_os_error().unwrap_or(libc::EIO), format!("copy_file_range({name:?})"))
    })?;
    at::chown_fd(target.as_fd(), stat.uid, stat.gid)?;
    copy_attributes(source.as_fd(), target.as_fd())?;
    at::chmod_fd(target.as_fd(), stat.mode & 0o7777)?;
    at::set_times_fd(target.as_fd(), stat.atime, stat.mtime)
}

/// Copies what a file holds. Holes stay holes, or a small layer could fill the disk.
fn copy_bytes(mut source: &File, mut target: &File, stat: &Stat) -> std::io::Result<()> {
    // The standard library asks the kernel to copy (and the file system to share blocks) where it can.
    if stat.blocks.saturating_mul(512) >= stat.size {
        return std::io::copy(&mut source, &mut target).map(drop);
    }
    let mut at = 0;
    while let Some(run) = sys::fd::next_data(source.as_fd(), at)? {
        source.seek(SeekFrom::Start(run.start))?;
        target.seek(SeekFrom::Start(run.start))?;
        std::io::copy(&mut source.take(run.end - run.start), &mut target)?;
        at = run.end;
    }
    target.set_len(stat.size)
}

fn finish_dir(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> sys::Result<()> {
    let stat = at::stat_fd(from)?;
    at::chown_fd(to, stat.uid, stat.gid)?;
    copy_attributes(from, to)?;
    at::chmod_fd(to, stat.mode & 0o7777)?;
    at::set_times_fd(to, stat.atime, stat.mtime)
}

/// Copies extended attributes; those that this process may not write are left out, as containerd leaves them.
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> sys::Result<()> {
    for name in xattr::list_fd(from)? {
        let name = OsStr::from_bytes(name.as_bytes());
        let Some(value) = xattr::get_fd(from, name)? else { continue };
        match xattr::set_fd(to, name, &value) {
            Err(error) if error.is(libc::EPERM) || error.is(libc::EOPNOTSUPP) => {}
            done => done?,
        }
    }
    Ok(())
}
