//! Removal of whole trees, without crossing a mount and without following a link.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::{Access, Root, at};
use crate::error::{Error, Result};

/// Removes `name` in `dir` and everything below it. A name that does not exist is success.
///
/// Deep trees cost no stack; a directory on which something is mounted fails with `EBUSY` and keeps its content.
pub fn remove_tree(dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    match at::remove_file(dir, name) {
        Ok(()) => return Ok(()),
        Err(error) if error.is(libc::ENOENT) => return Ok(()),
        Err(error) if error.is(libc::EISDIR) || error.is(libc::EPERM) => {}
        Err(error) => return Err(error),
    }
    let top = open_dir(dir, name)?;
    remove_contents(top.as_fd())?;
    absent_is_fine(at::remove_dir(dir, name))
}

/// Removes everything below the directory `dir`, which itself stays.
pub fn remove_contents(dir: BorrowedFd<'_>) -> Result<()> {
    let root = Root::from_fd(at::open(dir, OsStr::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0)?);
    // Directories still to be emptied, as paths below `dir`: one descriptor at a time however deep the tree is.
    let mut pending: Vec<(PathBuf, bool)> = vec![(PathBuf::new(), false)];
    while let Some((path, emptied)) = pending.pop() {
        if emptied {
            let (parent, name) = root.open_parent(&path)?;
            absent_is_fine(at::remove_dir(parent.as_fd(), name))?;
            continue;
        }
        let opened = open_below(&root, &path)?;
        let subdirectories = remove_files(opened.as_fd())?;
        if !path.as_os_str().is_empty() {
            pending.push((path.clone(), true));
        }
        pending.extend(subdirectories.into_iter().map(|name| (path.join(name), false)));
    }
    Ok(())
}

/// Removes what is not a directory from `dir` and returns the names of the directories.
fn remove_files(dir: BorrowedFd<'_>) -> Result<Vec<OsString>> {
    let mut directories = Vec::new();
    for (name, kind) in at::entries(dir)? {
        if kind == at::Type::Directory {
            directories.push(name);
            continue;
        }
        match at::remove_file(dir, &name) {
            Err(error) if error.is(libc::EISDIR) => directories.push(name),
            done => absent_is_fine(done)?,
        }
    }
    Ok(directories)
}

fn open_below(root: &Root, path: &Path) -> Result<OwnedFd> {
    match root.open_on_mount(path, Access::Directory) {
        Err(error) if error.is(libc::EXDEV) => Err(Error::new(libc::EBUSY, error.call().to_owned())),
        done => done,
    }
}

fn open_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    let root = Root::from_fd(at::open(dir, OsStr::new("."), libc::O_PATH | libc::O_DIRECTORY, 0)?);
    open_below(&root, Path::new(name))
}

fn absent_is_fine(done: Result<()>) -> Result<()> {
    match done {
        Err(error) if error.is(libc::ENOENT) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tree_goes_and_what_its_links_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::create_dir_all(outside.join("keep")).unwrap();
        std::fs::create_dir_all(dir.path().join("tree/a/b/c")).unwrap();
        std::fs::write(dir.path().join("tree/a/file"), "x").unwrap();
        symlink(&outside, dir.path().join("tree/a/b/link")).unwrap();
        let root = Root::open_dir(dir.path()).unwrap();
        remove_tree(root.as_fd(), OsStr::new("tree")).unwrap();
        assert!(!dir.path().join("tree").exists());
        assert!(outside.join("keep").is_dir());
        remove_tree(root.as_fd(), OsStr::new("tree")).unwrap();
    }

    #[test]
    fn a_very_deep_tree_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut path = dir.path().join("deep");
        for _ in 0..200 {
            path.push("d");
        }
        std::fs::create_dir_all(&path).unwrap();
        let root = Root::open_dir(dir.path()).unwrap();
        remove_tree(root.as_fd(), OsStr::new("deep")).unwrap();
        assert!(!dir.path().join("deep").exists());
    }
}
