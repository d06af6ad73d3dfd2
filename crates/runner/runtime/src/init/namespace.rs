//! Entering the container's namespaces.
//!
//! Most containers need no stage: `clone3(2)` makes their namespaces, and init joins the rest by itself. A stage, a
//! short-lived process between parent and init, is needed when a user namespace meets joined ones (whose owner is
//! somebody else), and for a time namespace, which only children of the process that made it enter.

use sys::identity;
use sys::namespace::{self, Kind};
use sys::process::{Clone3, Fork, fork};

use super::{Init, InitError, Step, fail};
use crate::cgroup::Joiner;
use crate::create::plan::Namespaces;
use crate::talk::{Talk, Word};

/// Init's own part.
pub(super) fn enter(init: &Init<'_>) -> Result<(), InitError> {
    let namespaces = &init.plan.namespaces;
    if init.wait_first {
        init.talk.wait_for_go().step(|| "wait for the parent".into())?;
    }
    if init.join_namespaces {
        join_all(namespaces)?;
    }
    if namespaces.has(Kind::User) {
        become_root()?;
    }
    // Only now: a cgroup namespace begins at the cgroup its maker is in.
    if namespaces.is_new(Kind::Cgroup) {
        namespace::unshare(Kind::Cgroup.flag()).step(|| "make a cgroup namespace".into())?;
    }
    if namespaces.is_new(Kind::Network) {
        namespace::loopback_up().step(|| "bring loopback up".into())?;
    }
    Ok(())
}

/// Joins namespaces by path, all but pid, which comes last, and user, which a stage sees to.
fn join_all(namespaces: &Namespaces) -> Result<(), InitError> {
    for (kind, path) in namespaces.joined.iter().filter(|(kind, _)| !matches!(kind, Kind::Pid | Kind::User)) {
        let file = namespace::open(path, *kind).step(|| format!("open namespace {path:?}"))?;
        namespace::join(std::os::fd::AsFd::as_fd(&file), *kind)
            .step(|| format!("join namespace {path:?}"))?;
    }
    Ok(())
}

/// Takes on the root user of the user namespace.
pub(super) fn become_root() -> Result<(), InitError> {
    // Without this the process keeps the overflow ids, with which nothing can be made.
    identity::set_gid(0).step(|| "become group 0 of the user namespace".into())?;
    identity::set_uid(0).step(|| "become user 0 of the user namespace".into())
}

/// Joins the cgroup before anything is made in a process that has children of its own.
pub(crate) fn join_cgroup(joiner: &Joiner) -> Result<(), InitError> {
    joiner.join_self().step(|| "join the cgroup".into())
}

/// The stage: joins what must be joined first, makes init as its sibling, names it to the parent and ends.
///
/// Returns only in init.
pub(crate) fn stage(namespaces: &Namespaces, joiner: &Joiner, talk: &Talk) {
    if let Err(error) = stage_steps(namespaces, joiner, talk) {
        fail(talk, &error);
    }
}

fn stage_steps(namespaces: &Namespaces, joiner: &Joiner, talk: &Talk) -> Result<(), InitError> {
    join_cgroup(joiner)?;
    let mut opened = Vec::new();
    // The pid namespace is joined last, by the stage that this one makes.
    for (kind, path) in namespaces.joined.iter().filter(|(kind, _)| *kind != Kind::Pid) {
        opened.push((*kind, path, namespace::open(path, *kind).step(|| format!("open namespace {path:?}"))?));
    }
    // With the caller's privileges first; what belongs to the joined user namespace only opens from inside it.
    opened.retain(|(kind, _, file)| {
        *kind == Kind::User || namespace::join(std::os::fd::AsFd::as_fd(file), *kind).is_err()
    });
    opened.sort_by_key(|(kind, _, _)| *kind);
    for (kind, path, file) in &opened {
        namespace::join(std::os::fd::AsFd::as_fd(file), *kind).step(|| format!("join namespace {path:?}"))?;
    }
    if namespaces.is_new(Kind::User) {
        namespace::unshare(Kind::User.flag()).step(|| "make a user namespace".into())?;
        talk.say(&Word::Maps).step(|| "ask for maps".into())?;
        talk.wait_for_go().step(|| "wait for maps".into())?;
    }
    if namespaces.has(Kind::User) {
        become_root()?;
    }
    if namespaces.is_new(Kind::Time) {
        namespace::unshare(Kind::Time.flag()).step(|| "make a time namespace".into())?;
        if !namespaces.time_offsets.is_empty() {
            talk.say(&Word::Offsets).step(|| "ask for time offsets".into())?;
            talk.wait_for_go().step(|| "wait for time offsets".into())?;
        }
    }
    let others = clone_flags(namespaces) & !Kind::User.flag();
    let sibling = Clone3 { namespaces: others, sibling: true, cgroup: None };
    match fork(&sibling).step(|| "clone init".into())? {
        Fork::Child => Ok(()),
        Fork::Parent { pid, .. } => {
            talk.say(&Word::Sibling(pid)).step(|| "name init".into())?;
            sys::process::exit_now(0)
        }
    }
}

/// The namespaces that `clone3(2)` makes.
pub(crate) fn clone_flags(namespaces: &Namespaces) -> i32 {
    namespaces
        .new
        .iter()
        .filter(|kind| !matches!(kind, Kind::Cgroup | Kind::Time))
        .fold(0, |flags, kind| flags | kind.flag())
}

/// Whether a stage is needed.
pub(crate) fn needs_stage(namespaces: &Namespaces) -> bool {
    let user_meets_joined = namespaces.has(Kind::User) && !namespaces.joined.is_empty();
    user_meets_joined || namespaces.is_new(Kind::Time)
}
