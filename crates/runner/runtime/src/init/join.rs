//! A process that joins a running container.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use sys::namespace;
use sys::path::Root;
use sys::process::schedule;
use sys::procfs::Procfs;

use super::finish::Remaining;
use super::{InitError, Step, begin_process, console, fail, finish, namespace::become_root, own_keyring};
use crate::cgroup::Joiner;
use crate::create::Stdio;
use crate::create::plan::Process;
use crate::talk::{Talk, Word};

/// Everything a joining process works with.
#[derive(Debug)]
pub(crate) struct Joining<'a> {
    /// What to run.
    pub process: &'a Process,
    /// This process's end of the talk.
    pub talk: &'a Talk,
    /// Standard streams, when there is no terminal.
    pub stdio: &'a Stdio,
    /// Doors to the container's cgroup.
    pub joiner: &'a Joiner,
    /// The container's first process.
    pub init: BorrowedFd<'a>,
    /// `CLONE_NEW*` flags of the namespaces to join, without pid (the parent sees to that) and user.
    pub namespaces: i32,
    /// Whether the container has a user namespace.
    pub user_namespace: bool,
    /// The container whose session keyring it joins; `None` keeps the caller's.
    pub keyring: Option<&'a str>,
    /// See [`crate::Exec::preserve_fds`].
    pub preserve_fds: u32,
}

/// Becomes a process of the container. Called in the child.
pub(crate) fn join(joining: &Joining<'_>) -> ! {
    let Err(error) = steps(joining);
    fail(joining.talk, &error)
}

fn steps(joining: &Joining<'_>) -> Result<Infallible, InitError> {
    let process = joining.process;
    if !process.cpus.initial.is_empty() {
        schedule::set_cpus(&process.cpus.initial).step(|| "set CPU affinity".into())?;
    }
    let keep = vec![joining.talk.as_fd().as_raw_fd(), joining.init.as_raw_fd()];
    begin_process(Some(joining.joiner), joining.stdio, keep, joining.preserve_fds)?;
    if let Some(id) = joining.keyring {
        own_keyring(id)?;
    }
    host_part(joining)?;
    // Two steps: with the caller's privileges into everything, and only then into the user namespace that lacks them.
    namespace::join_process(joining.init, joining.namespaces).step(|| "join namespaces".into())?;
    if joining.user_namespace {
        namespace::join(joining.init, namespace::Kind::User).step(|| "join the user namespace".into())?;
        become_root()?;
    }
    if process.child_subreaper {
        sys::process::become_subreaper().step(|| "take in orphans".into())?;
    }
    let root = Root::open_dir(Path::new("/")).step(|| "open /".into())?;
    console::or_streams(process, &root, None, joining.stdio, joining.talk, false)?;
    let program =
        finish::identity(process, &root, Remaining { first: false, limits: !joining.user_namespace })?;
    drop(root);
    joining.talk.say(&Word::Ready).step(|| "report to the parent".into())?;
    finish::execute(process, &program, joining.preserve_fds)
}

/// What is done through the host's procfs, whose handle is closed again before the container can see this process.
fn host_part(joining: &Joining<'_>) -> Result<(), InitError> {
    let host = Procfs::of_host().step(|| "open procfs".into())?;
    if joining.user_namespace {
        joining.talk.wait_for_go().step(|| "wait for the parent".into())?;
    } else {
        finish::host_settings(joining.process, &host)?;
    }
    finish::labels(joining.process, &host)
}
