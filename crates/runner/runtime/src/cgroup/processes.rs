//! Who is in a cgroup, and how to signal all of them.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
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

    /// Fails where it holds processes, in any of its directories; it need not exist.
    pub(super) fn check_empty(&self) -> Result<(), CgroupError> {
        match self.everyone()?.len() {
            0 => Ok(()),
            count => Err(CgroupError::NotEmpty(count)),
        }
    }

    /// Pids of every process in any of its directories, each once: on v1 a process can be moved in one hierarchy only.
    fn everyone(&self) -> Result<BTreeSet<i32>, CgroupError> {
        let mut pids = Vec::new();
        for directory in self.directories() {
            collect(directory, MAX_DEPTH, &mut pids)?;
        }
        Ok(pids.into_iter().collect())
    }

    /// Sends `signal` to every process in it and below. Those that are being forked right now are reached too.
    pub fn kill(&self, signal: i32) -> Result<(), CgroupError> {
        complete(self.begin_kill(signal))
    }

    /// Begins to send `signal` to every process in it and below.
    pub fn begin_kill(&self, signal: i32) -> Killing {
        Killing {
            cgroup: self.clone(),
            signal,
            init: None,
            is_thorough: false,
            was_frozen: false,
            phase: Phase::First,
        }
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

    /// Signals the processes of the census or, when `is_thorough`, of every directory; their pids.
    fn signal_each(&self, signal: i32, is_thorough: bool) -> Result<BTreeSet<i32>, CgroupError> {
        let pids = if is_thorough { self.everyone()? } else { self.processes()?.into_iter().collect() };
        for &pid in &pids {
            match sys::process::kill(pid, signal) {
                Err(error) if !error.is(file::ESRCH) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(pids)
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
    /// The container's first process, which gets the signal wherever it is.
    init: Option<(i32, OwnedFd)>,
    /// Whether every directory is looked through.
    is_thorough: bool,
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
                Ok(true) => return Some(self.signal_init(&BTreeSet::new())),
                Err(error) => return Some(self.signal_init(&BTreeSet::new()).and(Err(error))),
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
    /// Signals init by its pidfd as well: its cgroup can have been removed, or it moved to another.
    pub(crate) fn with_init(self, pid: i32, pidfd: OwnedFd) -> Self {
        Self { init: Some((pid, pidfd)), ..self }
    }

    /// Looks for processes in every hierarchy, for a cgroup that does not get empty.
    pub(crate) fn thorough(self) -> Self {
        Self { is_thorough: true, ..self }
    }

    /// Signals init unless it is among the `reached`.
    fn signal_init(&self, reached: &BTreeSet<i32>) -> Result<(), CgroupError> {
        match &self.init {
            Some((pid, pidfd)) if !reached.contains(pid) => {
                match sys::process::signal(pidfd.as_fd(), self.signal) {
                    Err(error) if !error.is(file::ESRCH) => Err(error.into()),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn send(&self, frozen: bool) -> Result<(), CgroupError> {
        let sent = match self.cgroup.signal_each(self.signal, self.is_thorough) {
            Ok(reached) => self.signal_init(&reached),
            Err(error) => self.signal_init(&BTreeSet::new()).and(Err(error)),
        };
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
