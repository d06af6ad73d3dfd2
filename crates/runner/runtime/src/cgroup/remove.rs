//! Removing a container's directories.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::processes::children;
use super::{Cgroup, CgroupError, file, systemd};
use crate::ongoing::{Ongoing, Wait, complete};

/// Pauses between tries: a zombie that is being reaped keeps its cgroup busy for a moment. 1.3 s in all.
const PAUSES_MS: [u64; 9] = [1, 2, 5, 10, 25, 60, 150, 350, 700];

/// How many directories are removed before the caller may do something else: a container can make any number.
const BATCH: usize = 64;

impl Cgroup {
    /// Removes its directories, whatever the container made below them included. All are tried; the first failure is
    /// reported. Directories that are gone are no failure.
    pub fn destroy(&self) -> Result<(), CgroupError> {
        complete(self.begin_destroy())
    }

    /// Has systemd stop the scope, which is empty.
    fn stop(&self) -> Result<(), CgroupError> {
        let Some(unit) = self.unit() else { return Ok(()) };
        match self.processes()?.is_empty() {
            true => systemd::stop(unit),
            false => {
                let path = self.directories().next().unwrap_or(Path::new("")).to_owned();
                Err(CgroupError::Timeout { path, what: "become empty" })
            }
        }
    }

    /// Begins to remove its directories.
    pub fn begin_destroy(&self) -> Removal {
        let mut directories: Vec<PathBuf> = self.directories().map(Path::to_owned).collect();
        directories.reverse();
        let scope = self.unit().map(|_| self.clone());
        Removal { scope, directories, tries: 0, next: Instant::now(), stopped: Ok(()), failure: None }
    }
}

/// The removal of a cgroup, under way.
#[derive(Debug)]
pub struct Removal {
    /// The cgroup of a scope that systemd is still to stop.
    scope: Option<Cgroup>,
    /// Those that are left, the next one last.
    directories: Vec<PathBuf>,
    /// How often the next one, or the scope, was busy.
    tries: usize,
    next: Instant,
    stopped: Result<(), CgroupError>,
    failure: Option<sys::Error>,
}

impl Ongoing for Removal {
    type Output = Result<(), CgroupError>;

    fn wait(&self) -> Wait<'_> {
        Wait { fd: None, until: self.next }
    }

    fn advance(&mut self) -> Option<Self::Output> {
        if let Some(scope) = self.scope.take() {
            // Systemd, whose answer is waited for, waits for the processes of a scope in its turn.
            if scope.processes().is_ok_and(|pids| !pids.is_empty()) && self.pause() {
                self.scope = Some(scope);
                return None;
            }
            self.stopped = scope.stop();
            self.tries = 0;
        }
        while let Some(directory) = self.directories.last() {
            match remove(directory) {
                Ok(true) => {}
                Ok(false) => {
                    self.next = Instant::now();
                    return None;
                }
                Err(error) if error.is(file::EBUSY) && self.pause() => return None,
                Err(error) => drop(self.failure.get_or_insert(error)),
            }
            self.directories.pop();
            self.tries = 0;
        }
        let stopped = std::mem::replace(&mut self.stopped, Ok(()));
        Some(match self.failure.take() {
            // Without its directories a scope is gone, whether or not systemd could be told.
            None => Ok(()),
            Some(error) => Err(stopped.err().unwrap_or_else(|| error.into())),
        })
    }
}

impl Removal {
    /// Arranges for another try later; `false` when there have been enough.
    fn pause(&mut self) -> bool {
        let Some(pause) = PAUSES_MS.get(self.tries) else { return false };
        self.next = spec::time::deadline(Duration::from_millis(*pause));
        self.tries += 1;
        true
    }
}

/// Removes `directory` and what is below it, at most [`BATCH`] of them; whether it is gone.
fn remove(directory: &Path) -> Result<bool, sys::Error> {
    let mut path = vec![directory.to_owned()];
    for _ in 0..BATCH {
        let Some(lowest) = path.last() else { return Ok(true) };
        let below = match remove_one(lowest) {
            Ok(()) => None,
            Err(error) if error.is(file::EBUSY) => Some(children(lowest).next().ok_or(error)?),
            Err(error) => return Err(error),
        };
        match below {
            Some(child) => path.push(child),
            None => drop(path.pop()),
        }
    }
    Ok(path.is_empty())
}

fn remove_one(directory: &Path) -> Result<(), sys::Error> {
    match std::fs::remove_dir(directory).map_err(|error| file::failed(&error, "rmdir", directory)) {
        Err(error) if !file::is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_of_what_is_absent_is_done_at_once() {
        let cgroup = Cgroup::open([("pids".to_owned(), PathBuf::from("/no/such/cgroup"))].into());
        assert!(cgroup.begin_destroy().advance().unwrap().is_ok());
    }
}
