//! How a process enters a cgroup: cloned into v2, by its own hand into v1.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path};

use sys::Error;

use super::{Cgroup, CgroupError, UNIFIED, file, layout, place};

/// Open doors to a cgroup, made by the parent before it clones.
#[derive(Debug)]
pub struct Joiner {
    /// The `tasks` file of every v1 directory, for writing.
    tasks: Vec<File>,
    /// The v2 directory.
    unified: Option<File>,
}

impl Cgroup {
    /// Opens the doors.
    pub fn joiner(&self) -> Result<Joiner, CgroupError> {
        self.joiner_below(Path::new(""))
    }

    /// Opens the doors of the existing cgroup `below` this one, as `runc exec --cgroup` names it.
    pub fn joiner_below(&self, below: &Path) -> Result<Joiner, CgroupError> {
        if below.components().any(|component| component == Component::ParentDir) {
            return Err(CgroupError::Path(below.display().to_string()));
        }
        let below = below.strip_prefix("/").unwrap_or(below);
        let unified = self.paths.get(UNIFIED).map(|path| path.join(below));
        let mut tasks = Vec::new();
        for directory in self.directories().map(|path| path.join(below)) {
            if Some(&directory) != unified.as_ref() {
                tasks.push(open(&directory.join("tasks"), File::options().write(true))?);
            }
        }
        let unified = unified.map(|path| open(&path, File::options().read(true))).transpose()?;
        Ok(Joiner { tasks, unified })
    }

    /// Opens the doors for a process beside `init`, which may have moved itself below the container's v2 cgroup, as
    /// systemd does: a cgroup that has given its controllers to children takes no processes.
    pub fn joiner_beside(&self, init: i32) -> Result<Joiner, CgroupError> {
        let Some(directory) = self.paths.get(UNIFIED).filter(|_| self.is_v2()) else { return self.joiner() };
        let text = file::read(Path::new(&format!("/proc/{init}/cgroup")))?;
        let own = place::own_paths(&text).remove(UNIFIED).unwrap_or_default();
        // Seen from this cgroup namespace; a path that climbs out of it is not below the directory.
        let mount = layout()?.mounts.iter().find(|(name, _)| name == UNIFIED).map(|(_, path)| path);
        let below = mount.map(|mount| mount.join(own.trim_start_matches('/')));
        match below.as_deref().and_then(|path| path.strip_prefix(directory).ok()) {
            Some(below) => self.joiner_below(below),
            None => self.joiner(),
        }
    }

    /// Puts the process `pid` into every hierarchy from outside: slow on v1, for processes that are not ours to clone.
    pub fn add(&self, pid: i32) -> Result<(), CgroupError> {
        for directory in self.directories() {
            file::write(directory, "cgroup.procs", &pid.to_string())?;
        }
        Ok(())
    }
}

impl Joiner {
    /// The v2 directory, for `clone3(2)` with CLONE_INTO_CGROUP.
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// Moves the calling thread into the v1 directories. The caller is single threaded and has not yet left the
    /// namespaces or dropped the privileges it was cloned with.
    pub fn join_self(&self) -> Result<(), Error> {
        for mut tasks in &self.tasks {
            tasks.write_all(b"0").map_err(|error| {
                Error::new(error.raw_os_error().unwrap_or(file::EINVAL), format!("write({tasks:?}, \"0\")"))
            })?;
        }
        Ok(())
    }
}

fn open(path: &Path, options: &std::fs::OpenOptions) -> Result<File, Error> {
    options.open(path).map_err(|error| file::failed(&error, "open", path))
}
