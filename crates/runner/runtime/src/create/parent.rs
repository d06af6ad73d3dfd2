//! The clone of a new process, and what its parent does for it from outside.

use sys::process::{self, Clone3, Fork};
use sys::procfs::Procfs;

use super::CreateError;
use super::plan::{Namespaces, Process};
use crate::cgroup::Joiner;
use crate::init;

/// Makes init or, when `staged`, the stage.
pub(super) fn clone(namespaces: &Namespaces, joiner: &Joiner, staged: bool) -> Result<Fork, CreateError> {
    let flags = if staged { 0 } else { init::clone_flags(namespaces) };
    let options = Clone3 { namespaces: flags, sibling: false, cgroup: joiner.clone_into() };
    process::fork(&options).map_err(CreateError::at("clone init"))
}

/// Sets the limits of a process in a user namespace, which may not raise them itself.
pub(crate) fn limit(pid: i32, process: &Process) -> Result<(), CreateError> {
    init::set_limits(pid, process).map_err(CreateError::at("set resource limits"))
}

/// How many descriptors a process may be allowed at most; no bound where that cannot be read.
pub(crate) fn nr_open() -> u64 {
    let text = Procfs::of_host().and_then(|proc| proc.read("sys/fs/nr_open", 32));
    let text = text.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX)
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
