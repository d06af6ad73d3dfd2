//! `tmpcopyup`: a tmpfs that begins with what it covers.

use std::os::fd::{AsFd, BorrowedFd};

use sys::path::at::{self, Stat};
use sys::{Error, fd};

use super::{InitError, Step};

/// How deep directories are followed; deeper ones are an error, never a stack overflow.
const DEEPEST: usize = 64;
/// The largest file that is copied: what is larger does not belong into memory.
const LARGEST: usize = 64 << 20;

/// Copies what lies in the directory `from` into the empty file system `to`, with owners and modes.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), InitError> {
    let attributes = at::stat_fd(from).and_then(|stat| {
        at::chown_fd(to, stat.uid, stat.gid)?;
        at::chmod_handle(to, stat.mode & 0o7777)
    });
    attributes.and_then(|()| entries(from, to, 0)).step(|| "tmpcopyup".into())
}

fn entries(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(Error::new(ELOOP, "copy of a directory that is too deep"));
    }
    for (name, _) in at::entries(from)? {
        let stat = at::stat(from, &name)?;
        if stat.is_dir() {
            at::make_dir(to, &name, 0o700)?;
            let below = at::open(from, &name, O_DIRECTORY, 0)?;
            let made = at::open(to, &name, O_DIRECTORY, 0)?;
            entries(below.as_fd(), made.as_fd(), depth + 1)?;
        } else if stat.is_file() {
            file(from, to, &name, &stat)?;
        } else if stat.is_link() {
            at::make_link(at::read_link(from, &name)?.as_ref(), to, &name)?;
        } else {
            at::make_node(to, &name, stat.mode, stat.rdev)?;
        }
        at::chown(to, &name, stat.uid, stat.gid)?;
        if !stat.is_link() {
            at::chmod(to, &name, stat.mode & 0o7777)?;
        }
    }
    Ok(())
}

fn file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &std::ffi::OsStr, stat: &Stat) -> Result<(), Error> {
    let source = at::open(from, name, O_NONBLOCK, 0)?;
    let bytes = fd::read_all(source.as_fd(), LARGEST)?;
    let target = at::make_file(to, name, stat.mode & 0o7777)?;
    fd::write_all(target.as_fd(), &bytes)
}

const ELOOP: i32 = 40;
const O_DIRECTORY: i32 = 0o200_000;
const O_NONBLOCK: i32 = 0o4000;
