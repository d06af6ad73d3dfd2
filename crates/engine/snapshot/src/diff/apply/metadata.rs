//! What an entry says of its object besides content: owner, permissions, attributes, times.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use sys::path::at;
use sys::xattr;

use crate::lower::is_overlays_own;
use crate::tar::{Entry, EntryType, Time};

/// A step that failed, and how.
pub(super) type Step<T = ()> = Result<T, (&'static str, sys::Error)>;

/// Names a step for the error.
pub(super) fn step<T>(what: &'static str, done: sys::Result<T>) -> Step<T> {
    done.map_err(|error| (what, error))
}

/// Access and modification time of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub atime: Time,
    pub mtime: Time,
}

impl Times {
    /// The entry's times as containerd sets them: an access is never earlier than the modification, and what the
    /// kernel cannot hold becomes 1970.
    pub fn of(entry: &Entry) -> Self {
        let atime = entry.atime.unwrap_or(entry.mtime).max(entry.mtime);
        Self { atime: bound(atime), mtime: bound(entry.mtime) }
    }
}

/// Times that fit 64 bits of nanoseconds.
fn bound(time: Time) -> Time {
    if (0..=9_223_372_035).contains(&time.0) { time } else { (0, 0) }
}

/// Sets everything but the times of an open file or directory. `umask` is what creation took off its permissions.
pub(super) fn set_fd(fd: BorrowedFd<'_>, entry: &Entry, mode_is_set: bool) -> Step {
    step("change the owner", at::chown_fd(fd, entry.uid, entry.gid))?;
    set_xattrs(entry, |name, value| xattr::set_fd(fd, name, value))?;
    // Changing the owner clears set-id bits, and an access control list changes permissions.
    if mode_is_set && entry.mode & 0o7000 == 0 && entry.xattrs.is_empty() {
        return Ok(());
    }
    step("change the mode", at::chmod_fd(fd, entry.mode))
}

/// Sets everything of an object that is not opened: links, devices, pipes, and further names of a file.
pub(super) fn set_at(dir: BorrowedFd<'_>, name: &OsStr, entry: &Entry, is_link: bool) -> Step {
    step("change the owner", at::chown(dir, name, entry.uid, entry.gid))?;
    set_xattrs(entry, |attribute, value| xattr::set_at(dir, name, attribute, value))?;
    if !is_link {
        step("change the mode", at::chmod(dir, name, entry.mode))?;
    }
    let times = Times::of(entry);
    step("set the times", at::set_times(dir, name, times.atime, times.mtime))
}

fn set_xattrs(entry: &Entry, set: impl Fn(&OsStr, &[u8]) -> sys::Result<()>) -> Step {
    for (name, value) in &entry.xattrs {
        // Overlay's books and everything else that only the administrator writes are no image's to set.
        if is_overlays_own(name) {
            continue;
        }
        match set(OsStr::from_bytes(name), value) {
            Err(error) if error.is(libc::EOPNOTSUPP) => {}
            // The kernel keeps `user.` attributes of files and directories only.
            Err(error)
                if error.is(libc::EPERM) && name.starts_with(b"user.") && !has_user_xattrs(entry.kind) => {}
            done => step("set an extended attribute", done)?,
        }
    }
    Ok(())
}

fn has_user_xattrs(kind: EntryType) -> bool {
    matches!(kind, EntryType::File | EntryType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_bounded_and_ordered() {
        let mut entry = Entry::new(EntryType::File, "x");
        entry.mtime = (100, 5);
        entry.atime = Some((50, 0));
        assert_eq!(Times::of(&entry), Times { atime: (100, 5), mtime: (100, 5) });
        entry.mtime = (-1, 0);
        assert_eq!(Times::of(&entry).mtime, (0, 0));
        entry.mtime = (i64::MAX, 0);
        assert_eq!(Times::of(&entry).mtime, (0, 0));
    }
}
