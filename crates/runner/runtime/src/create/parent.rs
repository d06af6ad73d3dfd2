//! The clone of a new process, and what its parent does for it from outside.

use std::os::fd::AsFd;
use std::path::Path;

use sys::namespace::{self, Kind};
use sys::process::{self, Clone3, Fork};
use sys::procfs::Procfs;

use super::plan::{Namespaces, Process};
use super::{CreateError, reap};
use crate::cgroup::Joiner;
use crate::init;

/// Makes init or, when `staged`, the stage.
pub(super) fn clone(namespaces: &Namespaces, joiner: &Joiner, staged: bool) -> Result<Fork, CreateError> {
    let at = CreateError::at;
    let flags = if staged { 0 } else { init::clone_flags(namespaces) };
    let options = Clone3 { namespaces: flags, sibling: false, cgroup: joiner.clone_into() };
    let joined_pid = namespaces.joined.iter().find(|(kind, _)| *kind == Kind::Pid);
    match joined_pid {
        Some((_, path)) if !staged => {
            let file = namespace::open(path, Kind::Pid).map_err(at("open the pid namespace"))?;
            parked_in_pid_namespace(file.as_fd(), || process::fork(&options)).map_err(at("clone init"))
        }
        _ => process::fork(&options).map_err(at("clone init")),
    }
}

/// Runs `fork` while children of this process are born in the pid namespace `target`, a file or a pidfd.
fn parked_in_pid_namespace(
    target: std::os::fd::BorrowedFd<'_>,
    fork: impl FnOnce() -> Result<Fork, sys::Error>,
) -> Result<Fork, sys::Error> {
    let own = namespace::open(Path::new("/proc/self/ns/pid"), Kind::Pid)?;
    namespace::join(target, Kind::Pid)?;
    let forked = fork();
    if let Ok(Fork::Child) = forked {
        return forked;
    }
    // Own children are born here again; a caller for which this fails must not go on making any.
    let back = namespace::join(own.as_fd(), Kind::Pid);
    match (forked, back) {
        (Ok(Fork::Parent { pidfd, .. }), Err(error)) => {
            let _ = process::signal(pidfd.as_fd(), SIGKILL);
            reap(pidfd.as_fd());
            Err(error)
        }
        (forked, _) => forked,
    }
}

const SIGKILL: i32 = 9;

/// Sets the limits of a process in a user namespace, which may not raise them itself.
pub(crate) fn limit(pid: i32, process: &Process) -> Result<(), CreateError> {
    init::set_limits(pid, process).map_err(CreateError::at("set resource limits"))
}

/// Sets the OOM score of a process in a user namespace, which may not do so itself.
pub(crate) fn settle(pid: i32, process: &Process) -> Result<(), CreateError> {
    if let Some(score) = process.oom_score_adj {
        let proc = Procfs::of_host().map_err(CreateError::at("open procfs"))?;
        init::oom_score(score, |text| proc.write(&format!("{pid}/oom_score_adj"), text))
            .map_err(|error| CreateError::Init { errno: error.errno(), text: error.text() })?;
    }
    Ok(())
}

/// Writes the maps of the user namespace that the process `pid` has just made.
pub(super) fn write_maps(pid: i32, uid_map: &str, gid_map: &str) -> Result<(), sys::Error> {
    let proc = Procfs::of_host()?;
    proc.write(&format!("{pid}/gid_map"), gid_map)?;
    proc.write(&format!("{pid}/uid_map"), uid_map)
}

/// Writes the offsets of the time namespace that the process `pid` has just made for its children.
pub(super) fn write_offsets(pid: i32, offsets: &str) -> Result<(), sys::Error> {
    Procfs::of_host()?.write(&format!("{pid}/timens_offsets"), offsets)
}
