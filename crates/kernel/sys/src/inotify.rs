//! Changes of directories, read as events. `inotify(7)`.

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use crate::error::{Result, call};

/// What happened to a watched directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Number of the watch, as [`Inotify::watch`] gave it; -1 when events were lost.
    pub watch: i32,
    /// Name of the entry, empty when it is the directory itself.
    pub name: OsString,
    /// An entry appeared that has not been written yet.
    pub created: bool,
    /// The directory itself was removed, moved or unmounted: this watch says nothing more.
    pub gone: bool,
}

/// A queue of events. Non-blocking: it becomes readable when something happens.
#[derive(Debug)]
pub struct Inotify(OwnedFd);

impl Inotify {
    /// Opens an empty queue.
    pub fn new() -> Result<Self> {
        let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
        inotify::init(flags).map(Self).map_err(call!("inotify_init1", flags))
    }

    /// Watches the directory `path`: entries made, written and closed, moved and removed. A path watched before keeps
    /// its number.
    pub fn watch(&self, path: &Path) -> Result<i32> {
        let flags = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&self.0, path, flags).map_err(call!("inotify_add_watch", path, flags))
    }

    /// Stops the watch of that number; one that is gone is success.
    pub fn forget(&self, watch: i32) -> Result<()> {
        match inotify::remove_watch(&self.0, watch) {
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(call!("inotify_rm_watch", watch)(errno)),
        }
    }

    /// The events that have come; none when none have.
    pub fn read(&self) -> Result<Vec<Event>> {
        // One event with the longest name takes 272 bytes.
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.0, &mut buffer);
        let mut events = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => {
                    let flags = event.events();
                    let name = event.file_name().map_or(&[][..], |name| name.to_bytes());
                    events.push(Event {
                        watch: event.wd(),
                        name: OsStr::from_bytes(name).to_owned(),
                        created: flags.contains(ReadFlags::CREATE),
                        gone: flags.intersects(
                            ReadFlags::DELETE_SELF
                                | ReadFlags::MOVE_SELF
                                | ReadFlags::IGNORED
                                | ReadFlags::UNMOUNT,
                        ),
                    });
                }
                Err(Errno::AGAIN) => return Ok(events),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(call!("read", "inotify")(errno)),
            }
        }
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_happens_in_a_directory_is_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let inotify = Inotify::new().unwrap();
        let watch = inotify.watch(dir.path()).unwrap();
        assert_eq!(inotify.read().unwrap(), []);
        fs::write(dir.path().join("a"), "x").unwrap();
        let events = inotify.read().unwrap();
        let event = |created| Event { watch, name: "a".into(), created, gone: false };
        assert_eq!(events, [event(true), event(false)]);
        fs::remove_dir_all(dir.path()).unwrap();
        assert!(inotify.read().unwrap().iter().any(|event| event.gone));
        inotify.forget(watch).unwrap();
    }

    #[test]
    fn only_a_directory_is_watched() {
        let error = Inotify::new().unwrap().watch(Path::new("/etc/passwd")).unwrap_err();
        assert_eq!(error.errno(), libc::ENOTDIR);
    }
}
