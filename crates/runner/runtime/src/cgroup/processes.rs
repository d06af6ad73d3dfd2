//! Who is in a cgroup, and how to signal all of them.

use std::path::Path;

use super::freeze::Freezing;
use super::{Cgroup, CgroupError, FreezerState, file};
use crate::ongoing::{Ongoing, Wait, complete};

/// How deep containers may nest cgroups of their own before we stop looking.
const MAX_DEPTH: usize = 64;

/// SIGKILL.
const KILL: i32 = 9;

impl Cgroup {
    /// Pids of every process in it and below, in no order; none if it is gone.
    pub fn processes(&self) -> Result<Vec<i32>, CgroupError> {
        let mut pids = Vec::new();
        if let Some(path) = self.census() {
            collect(path, MAX_DEPTH, &mut pids)?;
        }
        Ok(pids)
    }

    /// Sends `signal` to every process in it and below. Those that are being forked right now are reached too.
    pub fn kill(&self, signal: i32) -> Result<(), CgroupError> {
        complete(self.begin_kill(signal))
    }

    /// Begins to send `signal` to every process in it and below.
    pub fn begin_kill(&self, signal: i32) -> Killing {
        Killing { cgroup: self.clone(), signal, was_frozen: false, phase: Phase::First }
    }

    /// Has the kernel kill everything, where it can; `false` where it cannot.
    fn kill_at_once(&self) -> Result<bool, CgroupError> {
        let Some(path) = self.census().filter(|_| self.is_v2()) else { return Ok(false) };
        match file::write(path, "cgroup.kill", "1") {
            Ok(()) => Ok(true),
            // Linux 5.14; a cgroup that is gone has no processes either.
            Err(error) if file::is_absent(&error) => Ok(!path.exists()),
            Err(error) => Err(error.into()),
        }
    }

    fn signal_each(&self, signal: i32) -> Result<(), CgroupError> {
        for pid in self.processes()? {
            match sys::process::kill(pid, signal) {
                Err(error) if !error.is(file::ESRCH) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// The directory whose `cgroup.procs` is read: every hierarchy holds the same processes, unless a container with
    /// write access moved some, which the device controller's directory is the least likely to allow.
    fn census(&self) -> Option<&Path> {
        ["devices", "freezer", "pids", "memory"].iter().find_map(|controller| self.path(controller))
    }
}

/// A signal to every process of a cgroup, under way.
///
/// Frozen processes cannot fork, so one look finds all. A cgroup that will not freeze is signalled as it is; one that
/// was frozen before stays so, unless the signal is the one that a frozen process could never take.
#[derive(Debug)]
pub struct Killing {
    cgroup: Cgroup,
    signal: i32,
    was_frozen: bool,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    First,
    Freezing(Freezing),
}

impl Ongoing for Killing {
    type Output = Result<(), CgroupError>;

    fn wait(&self) -> Wait<'_> {
        match &self.phase {
            Phase::First => Wait { fd: None, until: std::time::Instant::now() },
            Phase::Freezing(freezing) => freezing.wait(),
        }
    }

    fn advance(&mut self) -> Option<Self::Output> {
        if let Phase::First = &self.phase {
            match if self.signal == KILL { self.cgroup.kill_at_once() } else { Ok(false) } {
                Ok(false) => {}
                Ok(true) => return Some(Ok(())),
                Err(error) => return Some(Err(error)),
            }
            self.was_frozen = self.cgroup.freezer_state().is_ok_and(|state| state == FreezerState::Frozen);
            if self.was_frozen {
                return Some(self.send(true));
            }
            self.phase = Phase::Freezing(self.cgroup.begin_freeze());
        }
        let Phase::Freezing(freezing) = &mut self.phase else { return None };
        let frozen = freezing.advance()?.is_ok();
        Some(self.send(frozen))
    }
}

impl Killing {
    fn send(&self, frozen: bool) -> Result<(), CgroupError> {
        let sent = self.cgroup.signal_each(self.signal);
        if frozen && (self.signal == KILL || !self.was_frozen) {
            // The cgroup may have gone with its last process.
            let _ = self.cgroup.thaw();
        }
        sent
    }
}

fn collect(path: &Path, depth: usize, pids: &mut Vec<i32>) -> Result<(), CgroupError> {
    match file::read_optional(path, "cgroup.procs")? {
        Some(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        None if !path.exists() => return Ok(()),
        None => {}
    }
    if depth > 0 {
        for child in children(path) {
            collect(&child, depth - 1, pids)?;
        }
    }
    Ok(())
}

/// The cgroups directly below `path`.
pub(super) fn children(path: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}
