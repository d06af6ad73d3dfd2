//! What the cgroup file systems need beyond plain files: telling them apart, and descriptors that report events.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::EventfdFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::error::call;
use crate::{Error, Result};

/// The file systems that matter where cgroups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filesystem {
    /// A cgroup v1 hierarchy.
    V1,
    /// The cgroup v2 hierarchy.
    V2,
    /// A tmpfs, which holds the mount points of v1 hierarchies.
    Tmpfs,
    /// Anything else.
    Other,
}

const CGROUP_SUPER_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// The file system that `path` is on. `statfs(2)`.
pub fn filesystem(path: &Path) -> Result<Filesystem> {
    let found = rustix::fs::statfs(path).map_err(call!("statfs", path))?;
    Ok(match found.f_type {
        CGROUP_SUPER_MAGIC => Filesystem::V1,
        CGROUP2_SUPER_MAGIC => Filesystem::V2,
        TMPFS_MAGIC => Filesystem::Tmpfs,
        _ => Filesystem::Other,
    })
}

/// A descriptor that becomes readable when the v1 memory cgroup `memory` runs out of memory, and when it is removed.
pub fn watch_oom_v1(memory: &Path) -> Result<OwnedFd> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let event = rustix::event::eventfd(0, flags).map_err(call!("eventfd", flags))?;
    let control = open(&memory.join("memory.oom_control"))?;
    let registration = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    let path = memory.join("cgroup.event_control");
    std::fs::write(&path, &registration).map_err(|error| {
        Error::new(error.raw_os_error().unwrap_or(libc::EIO), format!("write({path:?}, {registration:?})"))
    })?;
    Ok(event)
}

/// A descriptor that becomes readable when the cgroup file `path` changes, and when it is removed. `inotify(7)`.
pub fn watch_file(path: &Path) -> Result<OwnedFd> {
    let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
    let events = inotify::init(flags).map_err(call!("inotify_init1", flags))?;
    inotify::add_watch(&events, path, WatchFlags::MODIFY).map_err(call!(
        "inotify_add_watch",
        events,
        path
    ))?;
    Ok(events)
}

/// Takes whatever is pending on an event descriptor; whether there was anything.
pub fn drain(events: BorrowedFd<'_>) -> Result<bool> {
    let mut buffer = [0u8; 4096];
    let mut any = false;
    loop {
        match rustix::io::read(events.as_fd(), &mut buffer) {
            Ok(0) | Err(Errno::AGAIN) => return Ok(any),
            // An eventfd holds one counter; an inotify queue may hold more than one buffer of events.
            Ok(8) => return Ok(true),
            Ok(_) => any = true,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(call!("read", events)(errno)),
        }
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(call!("open", path))
}
