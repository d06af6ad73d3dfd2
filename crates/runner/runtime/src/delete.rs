//! A deletion under way: init is killed where that is asked for, then the cgroup goes, hooks run, the directory goes.
//!
//! ```text
//! KillAll --> WaitInit --> KillRest --> Remove --> Hooks --> (deleted)
//!                             ^-- busy ---+
//! ```
//!
//! Invariant: every step after the end of init is tried; the first error is returned. The directory goes last and only
//! when the cgroup is gone, so that a failed delete can be tried again.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use spec::runtime::Status;
use spec::{HasKind, Kind};
use sys::process;

use crate::cgroup::{Cgroup, CgroupError, Killing, Removal};
use crate::container::{Container, ContainerError, SIGKILL, remove_dir};
use crate::hooks::{self, HookError, Point, Surroundings};
use crate::ongoing::{Ongoing, Wait, after, complete};
use crate::state::{Record, RecordError};

const EBUSY: i32 = 16;

/// How often the processes of a cgroup that does not get empty are killed again.
const MAX_ROUNDS: u32 = 3;

/// A container that is being removed.
#[derive(Debug)]
pub struct Deletion {
    id: String,
    dir: PathBuf,
    cgroup: Cgroup,
    /// Init, while its end is awaited.
    init: Option<OwnedFd>,
    within: Duration,
    /// Whether init's end leaves other processes of the container alive.
    outlived: bool,
    /// Poststop hooks.
    hooks: hooks::Run,
    /// How often the cgroup did not get empty.
    rounds: u32,
    killed: Result<(), CgroupError>,
    destroyed: Result<(), CgroupError>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Init and all others are killed.
    KillAll(Killing),
    /// Init was killed; until when its end is awaited.
    WaitInit(Instant),
    /// What may have outlived init is killed.
    KillRest(Killing),
    /// The cgroup is removed.
    Remove(Removal),
    /// Poststop hooks run.
    Hooks,
    /// The result was returned.
    Over,
}

/// What comes after a turn.
enum Turn {
    Wait(Phase),
    Next(Phase),
    Over(Result<(), ContainerError>),
}

impl Container {
    /// Removes a stopped or merely created container (any, killing it first, when `force`); then poststop hooks.
    ///
    /// Waits at most `within` for its processes to end. Every step is tried; the first error is returned.
    pub fn delete(self, force: bool, within: Duration) -> Result<(), ContainerError> {
        complete(self.begin_delete(force, within)?)
    }

    /// Begins to remove it; the rest is for [`Deletion`] to see through.
    pub fn begin_delete(self, force: bool, within: Duration) -> Result<Deletion, ContainerError> {
        let status = self.status()?;
        let ends = match status {
            Status::Stopped => false,
            Status::Created => true,
            Status::Creating | Status::Running | Status::Paused if force => true,
            Status::Creating | Status::Running | Status::Paused => {
                return Err(ContainerError::State { verb: "delete", status });
            }
        };
        let state = self.record().state(Status::Stopped);
        let hooks = self.record().hooks().poststop;
        let hooks = hooks::Run::new(hooks, &state, Point::Poststop, Surroundings::of_caller());
        let outlived = !self.has_own_pid_namespace();
        let mut deletion =
            Deletion::new(self.id(), self.dir(), self.cgroup(), within).outlived(outlived).hooks(hooks);
        deletion.init = if ends { self.init()? } else { None };
        deletion.phase = match self.kill_to_delete(deletion.init.is_some())? {
            Some(killing) => Phase::KillAll(killing),
            None => deletion.after_kill(),
        };
        Ok(deletion)
    }

    /// Kills a container that is to be deleted, if `ends`; what of that is still to be done.
    fn kill_to_delete(&self, ends: bool) -> Result<Option<Killing>, ContainerError> {
        if !ends {
            return Ok(None);
        }
        match self.begin_kill(SIGKILL, !self.has_own_pid_namespace()) {
            Err(ContainerError::NotRunning) => Ok(None),
            begun => begun,
        }
    }

    /// Removes what a creation that was killed half way left of `id`: its processes, its cgroup and its directory.
    ///
    /// A container whose state was written is left alone; delete that.
    pub fn remove_remains(root: &Path, id: &str) -> Result<(), ContainerError> {
        Self::begin_remove_remains(root, id)?.map_or(Ok(()), complete)
    }

    /// Begins to do so; nothing where there is nothing.
    pub fn begin_remove_remains(root: &Path, id: &str) -> Result<Option<Deletion>, ContainerError> {
        match Self::load(root, id) {
            Err(ContainerError::NotFound(_)) => {}
            Ok(_) => return Err(ContainerError::State { verb: "forget", status: Status::Created }),
            Err(error) => return Err(error),
        }
        let dir = root.join(id);
        if id.is_empty() || id.contains('/') || !dir.is_dir() {
            // The directory is made first and goes last: without it there is nothing.
            return Ok(None);
        }
        match Record::load_planned(&dir) {
            // The cgroup was empty when it was recorded: what is in it now has come from that creation.
            Ok(planned) => {
                let deletion = Deletion::new(id, dir, planned.cgroup(), Duration::ZERO);
                Ok(Some(deletion.outlived(true).begin()))
            }
            // It is recorded before anything else is made.
            Err(RecordError::NotFound) => remove_dir(&dir).map(|()| None),
            Err(error) => Err(ContainerError::Record(error)),
        }
    }

    /// Removes a container whose state file is damaged: what can still be told of it is killed and removed, then its
    /// directory. Waits at most `within` for its first process to end.
    ///
    /// Its poststop hooks are not run: what the document said of them is not to be trusted.
    pub fn remove_damaged(root: &Path, id: &str, within: Duration) -> Result<(), ContainerError> {
        complete(Self::begin_remove_damaged(root, id, within)?)
    }

    /// Begins to do so.
    pub fn begin_remove_damaged(root: &Path, id: &str, within: Duration) -> Result<Deletion, ContainerError> {
        match Self::load(root, id) {
            Err(error) if error.kind() == Kind::DataLoss => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(ContainerError::State { verb: "forget", status: Status::Created }),
        }
        let found = Self::salvage(root, id)?;
        let mut deletion = Deletion::new(id, root.join(id), found.cgroup, within).outlived(true);
        deletion.init = found.init.map(kill_process).transpose()?.flatten();
        deletion.phase = deletion.after_kill();
        Ok(deletion)
    }
}

impl Deletion {
    fn new(id: &str, dir: PathBuf, cgroup: Cgroup, within: Duration) -> Self {
        Self {
            id: id.to_owned(),
            dir,
            cgroup,
            init: None,
            within,
            outlived: false,
            hooks: hooks::Run::none(Point::Poststop),
            rounds: 0,
            killed: Ok(()),
            destroyed: Ok(()),
            phase: Phase::Over,
        }
    }

    fn outlived(self, outlived: bool) -> Self {
        Self { outlived, ..self }
    }

    fn hooks(self, hooks: hooks::Run) -> Self {
        Self { hooks, ..self }
    }

    fn begin(mut self) -> Self {
        self.phase = self.after_kill();
        self
    }

    fn after_kill(&self) -> Phase {
        if self.init.is_some() { Phase::WaitInit(after(self.within)) } else { self.after_end() }
    }

    fn after_end(&self) -> Phase {
        match self.outlived && self.cgroup.exists() {
            true => Phase::KillRest(self.cgroup.begin_kill(SIGKILL)),
            false => Phase::Remove(self.cgroup.begin_destroy()),
        }
    }

    fn wait_init(&mut self, deadline: Instant) -> Turn {
        let Some(init) = &self.init else { return Turn::Next(self.after_end()) };
        match process::ended(init.as_fd(), Duration::ZERO).map_err(ContainerError::at("wait for init")) {
            Ok(true) => {
                self.init = None;
                Turn::Next(self.after_end())
            }
            Ok(false) if Instant::now() < deadline => Turn::Wait(Phase::WaitInit(deadline)),
            Ok(false) => {
                Turn::Over(Err(ContainerError::Timeout { id: self.id.clone(), within: self.within }))
            }
            Err(error) => Turn::Over(Err(error)),
        }
    }

    fn turn(&mut self, phase: Phase) -> Turn {
        match phase {
            Phase::KillAll(mut killing) => match killing.advance() {
                None => Turn::Wait(Phase::KillAll(killing)),
                Some(Ok(())) => Turn::Next(self.after_kill()),
                Some(Err(error)) => Turn::Over(Err(error.into())),
            },
            Phase::WaitInit(deadline) => self.wait_init(deadline),
            Phase::KillRest(mut killing) => match killing.advance() {
                None => Turn::Wait(Phase::KillRest(killing)),
                Some(killed) => {
                    self.killed = killed;
                    Turn::Next(Phase::Remove(self.cgroup.begin_destroy()))
                }
            },
            Phase::Remove(mut removal) => match removal.advance() {
                None => Turn::Wait(Phase::Remove(removal)),
                Some(Err(CgroupError::System(error))) if error.is(EBUSY) && self.rounds < MAX_ROUNDS => {
                    // A process that was on its way in when the others were killed, or one moved in some hierarchies.
                    self.rounds += 1;
                    Turn::Next(Phase::KillRest(self.cgroup.begin_kill(SIGKILL).thorough()))
                }
                Some(destroyed) => {
                    self.destroyed = destroyed;
                    Turn::Next(Phase::Hooks)
                }
            },
            Phase::Hooks => match self.hooks.advance() {
                None => Turn::Wait(Phase::Hooks),
                Some(hooked) => Turn::Over(self.finish(hooked)),
            },
            Phase::Over => Turn::Wait(Phase::Over),
        }
    }

    fn finish(&mut self, hooked: Result<(), HookError>) -> Result<(), ContainerError> {
        std::mem::replace(&mut self.destroyed, Ok(()))?;
        remove_dir(&self.dir)?;
        hooked?;
        Ok(std::mem::replace(&mut self.killed, Ok(()))?)
    }
}

impl Ongoing for Deletion {
    type Output = Result<(), ContainerError>;

    fn wait(&self) -> Wait<'_> {
        match &self.phase {
            Phase::KillAll(killing) | Phase::KillRest(killing) => killing.wait(),
            Phase::WaitInit(deadline) => Wait { fd: self.init.as_ref().map(AsFd::as_fd), until: *deadline },
            Phase::Remove(removal) => removal.wait(),
            Phase::Hooks => self.hooks.wait(),
            Phase::Over => Wait { fd: None, until: Instant::now() },
        }
    }

    fn advance(&mut self) -> Option<Self::Output> {
        loop {
            let phase = std::mem::replace(&mut self.phase, Phase::Over);
            match self.turn(phase) {
                Turn::Next(phase) => self.phase = phase,
                Turn::Wait(phase) => {
                    self.phase = phase;
                    return None;
                }
                Turn::Over(result) => return Some(result),
            }
        }
    }

    fn awaits(&self, pid: i32) -> bool {
        self.hooks.awaits(pid)
    }
}

/// Kills a process whose record cannot be trusted; its pidfd, while it has not ended.
fn kill_process(pid: i32) -> Result<Option<OwnedFd>, ContainerError> {
    const ESRCH: i32 = 3;
    let pidfd = match process::pidfd(pid) {
        Err(error) if error.is(ESRCH) => return Ok(None),
        done => done.map_err(ContainerError::at("open init"))?,
    };
    match process::signal(pidfd.as_fd(), SIGKILL) {
        Err(error) if error.is(ESRCH) => Ok(None),
        done => done.map(|()| Some(pidfd)).map_err(ContainerError::at("signal init")),
    }
}
