//! How a process enters a cgroup: cloned into v2, by its own hand into v1.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};

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

/// Cgroups below a container's, by controller, with the path for all others and for v2 under [`UNIFIED`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Below(BTreeMap<String, PathBuf>);

impl Below {
    /// The same path in every hierarchy.
    pub fn everywhere(path: &Path) -> Result<Self, CgroupError> {
        Ok(Self([(UNIFIED.to_owned(), plain(path)?)].into()))
    }

    /// Reads the arguments of `runc exec --cgroup`: one path, or `controller[,controller...]:path` each.
    pub fn parse(arguments: &[String]) -> Result<Self, CgroupError> {
        let invalid =
            |text: &str, why: &str| CgroupError::Value(format!("invalid --cgroup argument: {text} ({why})"));
        let mut below = Self::default();
        for argument in arguments {
            let Some((controllers, path)) = argument.split_once(':') else {
                if arguments.len() > 1 {
                    return Err(invalid(argument, "missing <controller>: prefix"));
                }
                return Self::everywhere(Path::new(argument));
            };
            for controller in controllers.split(',') {
                if controller.is_empty() {
                    return Err(invalid(argument, "empty <controller> prefix"));
                }
                if below.0.insert(controller.to_owned(), plain(Path::new(path))?).is_some() {
                    return Err(invalid(argument, "controller specified multiple times"));
                }
            }
        }
        Ok(below)
    }
}

/// A path that goes only down.
fn plain(path: &Path) -> Result<PathBuf, CgroupError> {
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(CgroupError::Value(format!("bad sub cgroup path: {}", path.display())));
    }
    Ok(path.strip_prefix("/").unwrap_or(path).to_owned())
}

impl Cgroup {
    /// Opens the doors.
    pub fn joiner(&self) -> Result<Joiner, CgroupError> {
        self.joiner_below(&Below::default())
    }

    /// Opens the doors of existing cgroups `below` this one.
    pub fn joiner_below(&self, below: &Below) -> Result<Joiner, CgroupError> {
        if let Some(unknown) = below.0.keys().find(|name| *name != UNIFIED && !self.paths.contains_key(*name))
        {
            return Err(CgroupError::Value(format!("unknown controller {unknown} of --cgroup")));
        }
        let everywhere = below.0.get(UNIFIED).map_or(Path::new(""), PathBuf::as_path);
        let mut directories: Vec<PathBuf> = Vec::with_capacity(self.paths.len());
        // A named controller first: one that shares its hierarchy follows it, since a thread is in one place of each.
        let named = self.paths.iter().filter(|(name, _)| *name != UNIFIED && below.0.contains_key(*name));
        let others = self.paths.iter().filter(|(name, _)| *name != UNIFIED && !below.0.contains_key(*name));
        let mut seen: Vec<&Path> = Vec::new();
        for (name, path) in named.chain(others) {
            if !seen.contains(&path.as_path()) {
                seen.push(path);
                directories.push(path.join(below.0.get(name).map_or(everywhere, PathBuf::as_path)));
            }
        }
        let tasks =
            directories.iter().map(|directory| open(&directory.join("tasks"), File::options().write(true)));
        let tasks = tasks.collect::<Result<_, _>>()?;
        let unified =
            self.paths.get(UNIFIED).map(|path| open(&path.join(everywhere), File::options().read(true)));
        Ok(Joiner { tasks, unified: unified.transpose()? })
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
            Some(below) => self.joiner_below(&Below::everywhere(below)?),
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
    /// The highest descriptor that it holds.
    pub(crate) fn highest(&self) -> i32 {
        self.tasks.iter().chain(&self.unified).map(AsRawFd::as_raw_fd).max().unwrap_or(-1)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Below, CgroupError> {
        Below::parse(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn cgroups_below_are_named_for_all_or_by_controller() {
        assert_eq!(parsed(&[]).unwrap(), Below::default());
        assert_eq!(parsed(&["/a/b"]).unwrap(), Below([(String::new(), "a/b".into())].into()));
        let each = Below(
            [("cpu".into(), "x".into()), ("cpuacct".into(), "x".into()), ("pids".into(), "y".into())].into(),
        );
        assert_eq!(parsed(&["cpu,cpuacct:x", "pids:/y"]).unwrap(), each);
        for wrong in
            [&["a", "b"][..], &[":x"], &["cpu:x", "cpu:y"], &["../x"], &["cpu:x/../../y"], &["cpu:x", "y"]]
        {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_controller_that_is_not_there_is_named() {
        let cgroup = Cgroup::open([("pids".to_owned(), PathBuf::from("/no/such/cgroup"))].into());
        let error = cgroup.joiner_below(&parsed(&["cpu:x"]).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "unknown controller cpu of --cgroup");
    }
}
