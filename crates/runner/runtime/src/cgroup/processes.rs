//! Who is in a cgroup, and how to signal all of them.

use std::path::Path;

use super::{Cgroup, CgroupError, FreezerState, file};

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
        if signal == KILL && self.is_v2() {
            let Some(path) = self.census() else { return Ok(()) };
            match file::write(path, "cgroup.kill", "1") {
                Ok(()) => return Ok(()),
                // Linux 5.14; a cgroup that is gone has no processes either.
                Err(error) if file::is_absent(&error) && path.exists() => {}
                Err(error) if file::is_absent(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.kill_each(signal)
    }

    /// Frozen processes cannot fork, so one look finds all. A cgroup that will not freeze is signalled as it is; one
    /// that was frozen before stays so, unless the signal is the one that a frozen process could never take.
    fn kill_each(&self, signal: i32) -> Result<(), CgroupError> {
        let was_frozen = self.freezer_state().is_ok_and(|state| state == FreezerState::Frozen);
        let frozen = was_frozen || self.freeze().is_ok();
        let sent = self.processes().and_then(|pids| {
            for pid in pids {
                match sys::process::kill(pid, signal) {
                    Err(error) if !error.is(file::ESRCH) => return Err(error.into()),
                    _ => {}
                }
            }
            Ok(())
        });
        if frozen && (signal == KILL || !was_frozen) {
            // The cgroup may have gone with its last process.
            let _ = self.thaw();
        }
        sent
    }

    /// The directory whose `cgroup.procs` is read: every hierarchy holds the same processes, unless a container with
    /// write access moved some, which the device controller's directory is the least likely to allow.
    fn census(&self) -> Option<&Path> {
        ["devices", "freezer", "pids", "memory"].iter().find_map(|controller| self.path(controller))
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
