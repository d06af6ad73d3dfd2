//! Noticing that the kernel killed for lack of memory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use super::{Cgroup, CgroupError, file};

/// Reports kills for lack of memory in one cgroup.
#[derive(Debug)]
pub struct OomWatch {
    events: OwnedFd,
    directory: PathBuf,
    file: &'static str,
    kills: u64,
}

impl Cgroup {
    /// Starts watching.
    pub fn watch_oom(&self) -> Result<OomWatch, CgroupError> {
        let directory =
            self.path("memory").ok_or(CgroupError::NoController { controller: "memory" })?.to_owned();
        let (file, events) = if self.is_v2() {
            ("memory.events", sys::cgroup::watch_file(&directory.join("memory.events"))?)
        } else {
            ("memory.oom_control", sys::cgroup::watch_oom_v1(&directory)?)
        };
        let mut watch = OomWatch { events, directory, file, kills: 0 };
        watch.kills = watch.count()?.unwrap_or(0);
        Ok(watch)
    }

    /// How many processes were killed for lack of memory.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        let Some(directory) = self.path("memory") else { return Ok(0) };
        let name = if self.is_v2() { "memory.events" } else { "memory.oom_control" };
        let text = file::read_optional(directory, name)?.unwrap_or_default();
        Ok(file::value_of(&text, "oom_kill").unwrap_or(0))
    }
}

/// What a readable [`OomWatch`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OomEvent {
    /// Something was killed, or waits for memory where killing is disabled.
    Oom,
    /// Something else changed.
    Nothing,
    /// The cgroup is gone; nothing will come any more.
    Gone,
}

impl OomWatch {
    /// The descriptor that becomes readable when [`Self::take`] has something to say.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Takes what is pending.
    pub fn take(&mut self) -> Result<OomEvent, CgroupError> {
        let pending = sys::cgroup::drain(self.fd())?;
        let Some(kills) = self.count()? else { return Ok(OomEvent::Gone) };
        let grown = kills > self.kills;
        self.kills = kills;
        // v1 signals before it kills; the count may not have grown yet.
        let is_v1 = self.file == "memory.oom_control";
        Ok(if grown || (pending && is_v1) { OomEvent::Oom } else { OomEvent::Nothing })
    }

    fn count(&self) -> Result<Option<u64>, CgroupError> {
        let text = file::read_optional(&self.directory, self.file)?;
        Ok(text.map(|text| file::value_of(&text, "oom_kill").unwrap_or(0)))
    }
}
