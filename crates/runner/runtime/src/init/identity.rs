//! The identity of the program: borrowed to look things up, and taken on for good by a list of calls.
//!
//! Invariant: behind the filter of a profile come only calls that runc makes there too, since profiles are written for
//! it: nothing is opened, looked up or allocated any more.

use sys::calls::Calls;
use sys::capability::{self, Set};
use sys::{identity, process};

use super::{InitError, Step};
use crate::create::plan::Process;

/// Runs `look` with the ids and capabilities of the program, so that it finds what the program could find itself.
pub(super) fn borrowed<T>(
    process: &Process,
    look: impl FnOnce() -> Result<T, InitError>,
) -> Result<T, InitError> {
    let (effective, permitted, inheritable) = capability::get().step(|| "read capabilities".into())?;
    let groups = identity::groups().step(|| "read groups".into())?;
    let (uid, gid) = (identity::uid(), identity::gid());
    match identity::set_groups(&process.groups) {
        // A user namespace whose maker denied setgroups; nothing is gained by the groups it cannot drop.
        Err(error) if error.is(EPERM) && process.groups.is_empty() => {}
        done => done.step(|| "setgroups".into())?,
    }
    identity::assume(process.uid, process.gid).step(|| "become the user".into())?;
    let wanted = Set(process.capabilities.effective.0 & process.capabilities.permitted.0 & permitted.0);
    capability::set(wanted, permitted, inheritable).step(|| "set capabilities".into())?;
    // A change of user makes a process dumpable where fs.suid_dumpable says so.
    process::set_dumpable(false).step(|| "stay undumpable".into())?;
    let found = look();
    identity::resume(uid, gid).step(|| "return from the user".into())?;
    capability::set(effective, permitted, inheritable).step(|| "set capabilities".into())?;
    match identity::set_groups(&groups) {
        Err(error) if error.is(EPERM) && process.groups.is_empty() => {}
        done => done.step(|| "return from the groups".into())?,
    }
    process::set_dumpable(false).step(|| "stay undumpable".into())?;
    found
}

const EPERM: i32 = 1;
const SCHED_DEADLINE: u32 = 6;

/// Adds what makes the process the user of its program; without `no_new_privs` the filter is in force from here on.
pub(super) fn take_on(process: &Process, calls: &mut Calls) -> Result<(), InitError> {
    let (_, available, _) = capability::get().step(|| "read capabilities".into())?;
    if let Some(policy) = &process.scheduler {
        // A deadline needs all CPUs of the machine; the kernel only says that it is not permitted.
        let limited = process.limited_cpus && policy.policy == SCHED_DEADLINE;
        let hint = if limited { "process scheduler can't be used together with AllowedCPUs: " } else { "" };
        calls.scheduler(policy, hint);
    }
    if process.no_new_privs {
        calls.no_new_privs();
    } else {
        // Without no_new_privs a filter needs the privileges that are about to go.
        filter(process, calls)?;
    }
    calls.bound(process.capabilities.bounding);
    calls.keep_capabilities(true);
    calls.groups(&process.groups);
    calls.gid(process.gid);
    calls.uid(process.uid);
    calls.keep_capabilities(false);
    capabilities(process, available, calls);
    calls.undumpable();
    Ok(())
}

/// Adds the capability sets, as far as this process has them itself.
fn capabilities(process: &Process, available: Set, calls: &mut Calls) {
    let wanted = &process.capabilities;
    let permitted = Set(wanted.permitted.0 & available.0);
    let effective = Set(wanted.effective.0 & permitted.0);
    let inheritable = Set(wanted.inheritable.0 & (available.0 | permitted.0));
    calls.capabilities(effective, permitted, inheritable);
    calls.ambient(Set(wanted.ambient.0 & permitted.0 & inheritable.0));
}

/// Adds the filter of a process that gains no privileges any more: the last thing before its program.
pub(super) fn confine(process: &Process, calls: &mut Calls) -> Result<(), InitError> {
    if process.no_new_privs { filter(process, calls) } else { Ok(()) }
}

/// Adds the filter, when there is one.
fn filter(process: &Process, calls: &mut Calls) -> Result<(), InitError> {
    let Some(filter) = &process.seccomp else { return Ok(()) };
    calls.filter(&filter.instructions, filter.flags).step(|| "cannot use the seccomp filter".into())
}
