//! Removing a container's directories.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::processes::children;
use super::{Cgroup, CgroupError, file, systemd};

/// Pauses between tries: a zombie that is being reaped keeps its cgroup busy for a moment. 1.3 s in all.
const PAUSES_MS: [u64; 9] = [1, 2, 5, 10, 25, 60, 150, 350, 700];

impl Cgroup {
    /// Removes its directories, whatever the container made below them included. All are tried; the first failure is
    /// reported. Directories that are gone are no failure.
    pub fn destroy(&self) -> Result<(), CgroupError> {
        let stopped = self.unit().map_or(Ok(()), systemd::stop);
        let mut failure = None;
        for directory in self.directories() {
            if let Err(error) = remove_patiently(directory) {
                failure.get_or_insert(error);
            }
        }
        match failure {
            // Without its directories a scope is gone, whether or not systemd could be told.
            None => Ok(()),
            Some(error) => Err(stopped.err().unwrap_or_else(|| error.into())),
        }
    }
}

fn remove_patiently(directory: &Path) -> Result<(), sys::Error> {
    for pause in PAUSES_MS {
        match remove(directory) {
            Err(error) if error.is(file::EBUSY) => sleep(Duration::from_millis(pause)),
            result => return result,
        }
    }
    remove(directory)
}

fn remove(directory: &Path) -> Result<(), sys::Error> {
    match remove_one(directory) {
        Err(error) if error.is(file::EBUSY) => {
            children(directory).try_for_each(|child| remove(&child))?;
            remove_one(directory)
        }
        result => result,
    }
}

fn remove_one(directory: &Path) -> Result<(), sys::Error> {
    match std::fs::remove_dir(directory).map_err(|error| file::failed(&error, "rmdir", directory)) {
        Err(error) if !file::is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}
