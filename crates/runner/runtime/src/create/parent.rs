//! The parent's side: the clone itself, and the talk with init until it is ready.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use spec::runtime::State;
use sys::namespace::{self, Kind};
use sys::process::{self, Clone3, Fork};
use sys::procfs::Procfs;

use super::plan::{Namespaces, Plan, Process};
use super::{CreateError, reap};
use crate::cgroup::Joiner;
use crate::hooks::{self, Point, Surroundings};
use crate::init;
use crate::state::RecordError;
use crate::talk::{TIMED_OUT, Talk, Word};

/// How long init may work between two words, hooks not counted. Mounting can meet a slow disk.
const PATIENCE: Duration = Duration::from_secs(60);

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
pub(crate) fn parked_in_pid_namespace(
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

/// A child that is becoming init: the stage until it has named init, then init.
#[derive(Debug)]
pub(crate) struct Child {
    pid: i32,
    pidfd: OwnedFd,
    staged: bool,
}

impl Child {
    pub(super) fn new(pid: i32, pidfd: OwnedFd, staged: bool) -> Self {
        Self { pid, pidfd, staged }
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn into_parts(self) -> (i32, OwnedFd) {
        (self.pid, self.pidfd)
    }

    /// Kills it and takes its status.
    pub(super) fn end(self) {
        let _ = process::signal(self.pidfd.as_fd(), SIGKILL);
        reap(self.pidfd.as_fd());
    }

    /// Talks with init until it is ready. `save` writes the state that hooks may want to read.
    pub(super) fn converse(
        mut self,
        plan: &Plan,
        talk: &Talk,
        state: &State,
        save: impl Fn(i32) -> Result<(), RecordError>,
    ) -> Result<(Self, Option<OwnedFd>), CreateError> {
        match self.follow(plan, talk, state, save) {
            Ok(console) => Ok((self, console)),
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }

    fn follow(
        &mut self,
        plan: &Plan,
        talk: &Talk,
        state: &State,
        save: impl Fn(i32) -> Result<(), RecordError>,
    ) -> Result<Option<OwnedFd>, CreateError> {
        let go = || talk.go().map_err(CreateError::at("let init go on"));
        if !self.staged && plan.namespaces.is_new(Kind::User) {
            self.write_maps(&plan.namespaces)?;
            settle(self.pid, &plan.process)?;
            go()?;
        }
        let mut console = None;
        loop {
            match hear(talk, PATIENCE.saturating_add(hooks::time_limit(&plan.hooks.create_container)))? {
                Word::Maps => {
                    self.write_maps(&plan.namespaces)?;
                    go()?;
                }
                Word::Sibling(pid) => {
                    self.replace(pid)?;
                    settle(self.pid, &plan.process)?;
                    go()?;
                }
                Word::Hooks => {
                    save(self.pid)?;
                    let state = State { pid: self.pid, ..state.clone() };
                    // As under runc, these hooks start in the bundle.
                    let around = Surroundings::of_runtime(Some(Path::new(&state.bundle)));
                    hooks::run(&plan.hooks.prestart, &state, Point::Prestart, around)?;
                    hooks::run(&plan.hooks.create_runtime, &state, Point::CreateRuntime, around)?;
                    go()?;
                }
                Word::Console(master) => console = Some(master),
                Word::Ready => {
                    if plan.namespaces.has(Kind::User) {
                        limit(self.pid, &plan.process)?;
                    }
                    return Ok(console);
                }
                Word::Failed(errno, text) => return Err(CreateError::Init { errno, text }),
            }
        }
    }

    fn write_maps(&self, namespaces: &Namespaces) -> Result<(), CreateError> {
        write_maps(self.pid, &namespaces.uid_map, &namespaces.gid_map)
            .map_err(CreateError::at("write the maps of the user namespace"))
    }

    /// The stage has ended; what it made takes its place.
    fn replace(&mut self, pid: i32) -> Result<(), CreateError> {
        let pidfd = process::pidfd(pid).map_err(CreateError::at("open init"))?;
        let stage = std::mem::replace(&mut self.pidfd, pidfd);
        self.pid = pid;
        self.staged = false;
        reap(stage.as_fd());
        Ok(())
    }
}

/// Writes the maps of the user namespace that the process `pid` has just made.
pub(super) fn write_maps(pid: i32, uid_map: &str, gid_map: &str) -> Result<(), sys::Error> {
    let proc = Procfs::of_host()?;
    proc.write(&format!("{pid}/gid_map"), gid_map)?;
    proc.write(&format!("{pid}/uid_map"), uid_map)
}

/// The next word; silence and a closed talk are errors.
fn hear(talk: &Talk, within: Duration) -> Result<Word, CreateError> {
    match talk.hear(within) {
        Ok(Some(word)) => Ok(word),
        Ok(None) => Err(CreateError::Died),
        Err(error) if error.is(TIMED_OUT) => Err(CreateError::Timeout),
        Err(error) => Err(CreateError::at("hear init")(error)),
    }
}
