//! Extended attributes, of open files and of names in a directory. Links are never followed.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::XattrFlags;

use crate::error::{Error, Result, call};
use crate::path::{at, of_fd};

/// The longest value the kernel accepts (`XATTR_SIZE_MAX`); also the longest list (`XATTR_LIST_MAX`).
const LARGEST: usize = 65536;

/// Sets an attribute of an open file (not a handle). `fsetxattr(2)`.
pub fn set_fd(fd: BorrowedFd<'_>, name: &OsStr, value: &[u8]) -> Result<()> {
    rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()).map_err(call!("fsetxattr", fd, name))
}

/// Reads an attribute of an open file; `None` when it has none of that name, or its file system has no attributes.
pub fn get_fd(fd: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Vec<u8>>> {
    absent(sized(|buffer| rustix::fs::fgetxattr(fd, name, buffer)).map_err(call!("fgetxattr", fd, name)))
}

/// The attribute names of an open file.
pub fn list_fd(fd: BorrowedFd<'_>) -> Result<Vec<CString>> {
    names(sized(|buffer| rustix::fs::flistxattr(fd, buffer)).map_err(call!("flistxattr", fd)))
}

/// Removes an attribute of an open file; an absent one is success.
pub fn remove_fd(fd: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    absent(rustix::fs::fremovexattr(fd, name).map_err(call!("fremovexattr", fd, name))).map(|_| ())
}

/// Sets an attribute of `name` in `dir`, whatever kind of object it is.
///
/// `setxattrat(2)` is young (Linux 6.13), so the object is opened as a handle and reached through `/proc/self/fd`.
pub fn set_at(dir: BorrowedFd<'_>, name: &OsStr, attribute: &OsStr, value: &[u8]) -> Result<()> {
    let handle = at::open(dir, name, libc::O_PATH, 0)?;
    let path = of_fd(handle.as_fd());
    rustix::fs::setxattr(&path, attribute, value, XattrFlags::empty())
        .map_err(call!("setxattr", name, attribute))
}

/// Reads an attribute of `name` in `dir`; `None` when it has none of that name.
pub fn get_at(dir: BorrowedFd<'_>, name: &OsStr, attribute: &OsStr) -> Result<Option<Vec<u8>>> {
    let handle = at::open(dir, name, libc::O_PATH, 0)?;
    let path = of_fd(handle.as_fd());
    absent(
        sized(|buffer| rustix::fs::getxattr(&path, attribute, buffer))
            .map_err(call!("getxattr", name, attribute)),
    )
}

/// The attribute names of `name` in `dir`.
pub fn list_at(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Vec<CString>> {
    let handle = at::open(dir, name, libc::O_PATH, 0)?;
    let path = of_fd(handle.as_fd());
    names(sized(|buffer| rustix::fs::listxattr(&path, buffer)).map_err(call!("listxattr", name)))
}

/// Calls `read` with a small buffer and, when the value does not fit, with the largest there can be.
fn sized(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    let length = match read(&mut buffer) {
        Err(rustix::io::Errno::RANGE) => {
            buffer.resize(LARGEST, 0);
            read(&mut buffer)?
        }
        done => done?,
    };
    buffer.truncate(length);
    Ok(buffer)
}

fn absent<T>(done: Result<T>) -> Result<Option<T>> {
    match done {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is(libc::ENODATA) || error.is(libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

fn names(list: Result<Vec<u8>>) -> Result<Vec<CString>> {
    let Some(list) = absent(list)? else { return Ok(Vec::new()) };
    list.split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            CString::new(name)
                .map_err(|_| Error::new(libc::EINVAL, format!("listxattr: {:?}", OsStr::from_bytes(name))))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Root;
    use std::path::Path;

    #[test]
    fn attributes_of_a_link_are_its_own() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
        let root = Root::open_dir(dir.path()).unwrap();
        let name = OsStr::new("trusted.berth");
        match set_at(root.as_fd(), OsStr::new("link"), name, b"link") {
            Err(error) if error.is(libc::EPERM) || error.is(libc::EOPNOTSUPP) => {
                println!("SKIP attributes_of_a_link_are_its_own: no trusted attributes here");
                return;
            }
            done => done.unwrap(),
        }
        assert_eq!(get_at(root.as_fd(), OsStr::new("file"), name).unwrap(), None);
        assert_eq!(get_at(root.as_fd(), OsStr::new("link"), name).unwrap(), Some(b"link".to_vec()));
        assert_eq!(list_at(root.as_fd(), OsStr::new("link")).unwrap(), vec![c"trusted.berth".to_owned()]);
        let file = root.open(Path::new("file"), crate::path::Access::ReadWrite).unwrap();
        let long = vec![7; 3000];
        set_fd(file.as_fd(), name, &long).unwrap();
        assert_eq!(get_fd(file.as_fd(), name).unwrap(), Some(long));
        remove_fd(file.as_fd(), name).unwrap();
        remove_fd(file.as_fd(), name).unwrap();
        assert!(list_fd(file.as_fd()).unwrap().is_empty());
    }
}
