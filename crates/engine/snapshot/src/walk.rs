//! A walk over a tree, one directory descriptor at a time however wide or deep the tree is.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use sys::path::at::{self, Stat};
use sys::path::{Access, Root};

/// A name in a directory, with what it names.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub name: OsString,
    pub stat: Stat,
}

/// Calls `visit` for every directory below `top` (`""` itself first, then parents before children), with its entries
/// sorted by name. Mounts and links are not crossed; what vanishes meanwhile is left out.
///
/// `visit` returns the error to stop with.
pub(crate) fn each_dir<E>(
    top: BorrowedFd<'_>,
    mut failed: impl FnMut(&Path, sys::Error) -> E,
    mut visit: impl FnMut(&Path, BorrowedFd<'_>, &[Entry]) -> Result<(), E>,
) -> Result<(), E> {
    let root = duplicate(top).map(Root::from_fd).map_err(|error| failed(Path::new(""), error))?;
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let dir = match root.open_on_mount(&path, Access::Directory) {
            Err(error) if error.is(libc::ENOENT) || error.is(libc::EXDEV) => continue,
            done => done.map_err(|error| failed(&path, error))?,
        };
        let entries = list(dir.as_fd()).map_err(|error| failed(&path, error))?;
        visit(&path, dir.as_fd(), &entries)?;
        let inner = entries.iter().rev().filter(|entry| entry.stat.is_dir());
        pending.extend(inner.map(|entry| path.join(&entry.name)));
    }
    Ok(())
}

/// The entries of a directory, sorted by name.
pub(crate) fn list(dir: BorrowedFd<'_>) -> sys::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for (name, _) in at::entries(dir)? {
        match at::stat(dir, &name) {
            Ok(stat) => entries.push(Entry { name, stat }),
            Err(error) if error.is(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Opens the directory `dir` once more.
pub(crate) fn duplicate(dir: BorrowedFd<'_>) -> sys::Result<OwnedFd> {
    at::open(dir, std::ffi::OsStr::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0)
}
