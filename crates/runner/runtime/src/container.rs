//! A container that stands: its state directory, its processes and what can be done to them.
//!
//! Invariant: a signal goes to a pidfd whose process has been checked against the record, never to a bare number.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use spec::runtime::{LinuxResources, State, Status};
use spec::{HasKind, Kind};
use sys::process;

use crate::cgroup::{Cgroup, CgroupError, Joiner, Stats, layout};
use crate::hooks::{self, HookError, Point, Surroundings};
use crate::salvage::Salvage;
use crate::state::{GATE, Record, RecordError};
use crate::talk::{Talk, Word};

const SIGKILL: i32 = 9;
const ESRCH: i32 = 3;
const ENXIO: i32 = 6;
const ENOENT: i32 = 2;

/// Descriptors from this number on are not spent on what could be opened anew: 1024 is the usual limit.
const MOST_KEPT: i32 = 512;

/// How long a start waits to hear whether the program was executed.
const EXECUTION: Duration = Duration::from_secs(2);

/// Why a verb on a container failed.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// No state of that id.
    #[error("container does not exist")]
    NotFound(String),
    /// Not possible in this state.
    #[error("cannot {verb} a container that is {status}")]
    State {
        /// What was asked.
        verb: &'static str,
        /// The state it is in.
        status: Status,
    },
    /// Its first process is gone.
    #[error("container not running")]
    NotRunning,
    /// The program was not executed; the text is complete.
    #[error("unable to start container process: {0}")]
    Program(String),
    /// It did not end in time.
    #[error("container {id} is still running after {within:?}")]
    Timeout {
        /// Its id.
        id: String,
        /// How long it was given.
        within: Duration,
    },
    /// Its state could not be read.
    #[error(transparent)]
    Record(RecordError),
    /// Its cgroup would not.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A hook failed.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// A system call failed.
    #[error("{step}")]
    System {
        /// What it was for.
        step: String,
        /// The call.
        source: sys::Error,
    },
}

impl ContainerError {
    fn at(step: impl Into<String>) -> impl FnOnce(sys::Error) -> Self {
        move |source| Self::System { step: step.into(), source }
    }
}

impl HasKind for ContainerError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_) | Self::NotRunning => Kind::NotFound,
            Self::State { .. } => Kind::FailedPrecondition,
            Self::Program(_) => Kind::Unknown,
            Self::Timeout { .. } => Kind::DeadlineExceeded,
            Self::Record(source) => source.kind(),
            Self::Cgroup(source) => source.kind(),
            Self::Hook(source) => source.kind(),
            Self::System { source, .. } => Kind::from_errno(source.errno()),
        }
    }
}

/// A container on disk: `<root>/<id>/state.json`.
#[derive(Debug)]
pub struct Container {
    root: PathBuf,
    record: Record,
    /// The talk with init, in the process that created it, until the program runs.
    talk: Option<Talk>,
}

impl Container {
    /// The container that was created just now.
    pub(crate) fn created(root: &Path, record: Record, talk: Talk) -> Self {
        Self { root: root.to_owned(), record, talk: Some(talk) }
    }

    /// Reads the state of the container `id` below the state root `root`.
    pub fn load(root: &Path, id: &str) -> Result<Self, ContainerError> {
        let plain = !id.is_empty() && !id.contains('/') && id != "." && id != "..";
        if !plain {
            return Err(ContainerError::NotFound(id.to_owned()));
        }
        let record = Record::load(&root.join(id)).map_err(|error| match error {
            RecordError::NotFound => ContainerError::NotFound(id.to_owned()),
            other => ContainerError::Record(other),
        })?;
        Ok(Self { root: root.to_owned(), record, talk: None })
    }

    /// The ids of the containers below `root`, sorted; a root that does not exist has none.
    pub fn list(root: &Path) -> Result<Vec<String>, ContainerError> {
        let entries = match std::fs::read_dir(root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            done => done.map_err(|error| io_error("read", root, &error))?,
        };
        let mut ids: Vec<String> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// Removes what a creation that was killed half way left of `id`: its directory and its cgroup.
    ///
    /// A container whose state was written is left alone; delete that.
    pub fn remove_remains(root: &Path, id: &str, bundle: &Path) -> Result<(), ContainerError> {
        match Self::load(root, id) {
            Err(ContainerError::NotFound(_)) => {}
            Ok(_) => return Err(ContainerError::State { verb: "forget", status: Status::Created }),
            Err(error) => return Err(error),
        }
        let dir = root.join(id);
        if id.is_empty() || id.contains('/') || !dir.is_dir() {
            // The directory is made first and goes last: without it there is nothing.
            return Ok(());
        }
        let spec = crate::create::read_spec(bundle).ok();
        let path = spec.and_then(|spec| spec.linux).map(|linux| linux.cgroups_path).unwrap_or_default();
        // Its directories are taken over if they are empty, which those of a dead creation are.
        if let Ok(cgroup) = Cgroup::create(&path, id) {
            cgroup.destroy()?;
        }
        remove_dir(&dir)
    }

    /// Removes a container whose state file is damaged: what can still be told of it is killed and removed, then its
    /// directory. Waits at most `within` for its first process to end.
    ///
    /// Its poststop hooks are not run: what the document said of them is not to be trusted.
    pub fn remove_damaged(root: &Path, id: &str, within: Duration) -> Result<(), ContainerError> {
        let dir = root.join(id);
        match Self::load(root, id) {
            Err(error) if error.kind() == Kind::DataLoss => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(ContainerError::State { verb: "forget", status: Status::Created }),
        }
        let text = Record::text(&dir).map_err(ContainerError::Record)?;
        let found = Salvage::read(&String::from_utf8_lossy(&text), layout()?);
        if let Some(pid) = found.init {
            end_process(pid, id, within)?;
        }
        if found.cgroup.exists() {
            found.cgroup.kill(SIGKILL)?;
        }
        found.cgroup.destroy()?;
        remove_dir(&dir)
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// `<root>/<id>`.
    pub fn dir(&self) -> PathBuf {
        self.root.join(&self.record.id)
    }

    /// What its state file says.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> Cgroup {
        self.record.cgroup()
    }

    /// The doors to its cgroups, for a caller that adds many processes and keeps them open in between. There are none
    /// to keep on v2, where a process goes where init is at that moment, nor when the caller's descriptors are many.
    pub fn doors(&self) -> Result<Option<Joiner>, ContainerError> {
        let cgroup = self.cgroup();
        if cgroup.is_v2() {
            return Ok(None);
        }
        let doors = cgroup.joiner()?;
        Ok((doors.highest() < MOST_KEPT).then_some(doors))
    }

    /// Pid of init in the caller's pid namespace, while it is alive.
    pub fn pid(&self) -> i32 {
        self.record.init_process_pid
    }

    /// What it is doing now.
    pub fn status(&self) -> Result<Status, ContainerError> {
        Ok(self.record.status(&self.dir()))
    }

    /// The specification's state document.
    pub fn state(&self) -> Result<State, ContainerError> {
        Ok(self.record.state(self.status()?))
    }

    /// Lets the user's program run; then poststart hooks.
    ///
    /// In the process that created the container this also reports a program that cannot be executed; from any other
    /// process the container just ends in that case.
    pub fn start(&mut self) -> Result<(), ContainerError> {
        match self.status()? {
            Status::Created => {}
            status => return Err(ContainerError::State { verb: "start", status }),
        }
        self.open_gate()?;
        if let Some(talk) = self.talk.take()
            && let Ok(Some(Word::Failed(_, text))) = talk.hear(self.time_to_execute())
        {
            return Err(ContainerError::Program(text));
        }
        let hooks = self.record.hooks().poststart;
        let state = self.record.state(Status::Running);
        hooks::run(&hooks, &state, Point::Poststart, Surroundings::of_runtime(None)).map_err(|error| {
            // As runc does: a container whose start is not complete does not run.
            let _ = self.signal_init(SIGKILL);
            error.into()
        })
    }

    /// How long it may take until the program is executed: the hooks before it count.
    fn time_to_execute(&self) -> Duration {
        EXECUTION.saturating_add(hooks::time_limit(&self.record.hooks().start_container))
    }

    /// Removes the gate, which says who starts it, and sends the byte that init waits for.
    fn open_gate(&self) -> Result<(), ContainerError> {
        let path = self.dir().join(GATE);
        const O_WRONLY: i32 = 1;
        const O_NONBLOCK: i32 = 0o4000;
        let started = || ContainerError::State { verb: "start", status: Status::Running };
        let gate = sys::fd::open(&path, O_WRONLY | O_NONBLOCK).map_err(|error| match error.errno() {
            ENOENT => started(),
            ENXIO => ContainerError::NotRunning,
            _ => ContainerError::at("open the start gate")(error),
        })?;
        std::fs::remove_file(&path).map_err(|error| match error.raw_os_error() {
            Some(ENOENT) => started(),
            _ => io_error("unlink", &path, &error),
        })?;
        sys::fd::write_once(gate.as_fd(), b"0").map_err(ContainerError::at("open the start gate"))
    }

    /// A pidfd of init; `None` when init is gone.
    pub fn init(&self) -> Result<Option<OwnedFd>, ContainerError> {
        let pidfd = match process::pidfd(self.record.init_process_pid) {
            Err(error) if error.is(ESRCH) => return Ok(None),
            done => done.map_err(ContainerError::at("open init"))?,
        };
        // Checked after it was opened: from here on the descriptor cannot come to mean somebody else.
        Ok(self.record.init_is_alive().then_some(pidfd))
    }

    fn signal_init(&self, signal: i32) -> Result<(), ContainerError> {
        let init = self.init()?.ok_or(ContainerError::NotRunning)?;
        match process::signal(init.as_fd(), signal) {
            Err(error) if error.is(ESRCH) => Err(ContainerError::NotRunning),
            done => done.map_err(ContainerError::at("signal init")),
        }
    }

    /// Whether killing init kills everything.
    fn has_own_pid_namespace(&self) -> bool {
        self.record
            .config
            .namespaces
            .iter()
            .any(|namespace| namespace.kind == "NEWPID" && namespace.path.is_empty())
    }

    /// Sends `signal` to init, or to every process when `all`.
    pub fn kill(&self, signal: i32, all: bool) -> Result<(), ContainerError> {
        if all || (signal == SIGKILL && !self.has_own_pid_namespace()) {
            if !all && !self.record.init_is_alive() && self.processes()?.is_empty() {
                return Err(ContainerError::NotRunning);
            }
            return Ok(self.cgroup().kill(signal)?);
        }
        self.signal_init(signal)?;
        if signal == SIGKILL && self.status()? == Status::Paused {
            // A frozen process dies only when it is thawed.
            self.cgroup().thaw()?;
        }
        Ok(())
    }

    /// Removes a stopped or merely created container (any, killing it first, when `force`); then poststop hooks.
    ///
    /// Waits at most `within` for its processes to end. Every step is tried; the first error is returned.
    pub fn delete(self, force: bool, within: Duration) -> Result<(), ContainerError> {
        let status = self.status()?;
        match status {
            Status::Stopped => {}
            Status::Created => self.end(within)?,
            Status::Creating | Status::Running | Status::Paused if force => self.end(within)?,
            Status::Creating | Status::Running | Status::Paused => {
                return Err(ContainerError::State { verb: "delete", status });
            }
        }
        let cgroup = self.cgroup();
        let killed =
            if self.has_own_pid_namespace() || !cgroup.exists() { Ok(()) } else { cgroup.kill(SIGKILL) };
        let destroyed = cgroup.destroy();
        let state = self.record.state(Status::Stopped);
        let hooked = hooks::run(
            &self.record.hooks().poststop,
            &state,
            Point::Poststop,
            Surroundings::of_runtime(None),
        );
        // The directory goes last and only when the rest is gone, so that a failed delete can be tried again.
        destroyed?;
        remove_dir(&self.dir())?;
        hooked?;
        Ok(killed?)
    }

    /// Kills everything and waits for init to be gone.
    fn end(&self, within: Duration) -> Result<(), ContainerError> {
        let Some(init) = self.init()? else { return Ok(()) };
        match self.kill(SIGKILL, !self.has_own_pid_namespace()) {
            Ok(()) | Err(ContainerError::NotRunning) => {}
            Err(error) => return Err(error),
        }
        match process::ended(init.as_fd(), within).map_err(ContainerError::at("wait for init"))? {
            true => Ok(()),
            false => Err(ContainerError::Timeout { id: self.record.id.clone(), within }),
        }
    }

    /// Freezes every process.
    pub fn pause(&self) -> Result<(), ContainerError> {
        match self.status()? {
            Status::Running | Status::Created => Ok(self.cgroup().freeze()?),
            status => Err(ContainerError::State { verb: "pause", status }),
        }
    }

    /// Thaws every process.
    pub fn resume(&self) -> Result<(), ContainerError> {
        match self.status()? {
            Status::Paused => Ok(self.cgroup().thaw()?),
            status => Err(ContainerError::State { verb: "resume", status }),
        }
    }

    /// Changes limits.
    pub fn update(&mut self, resources: &LinuxResources) -> Result<(), ContainerError> {
        match self.status()? {
            Status::Stopped => Err(ContainerError::NotRunning),
            _ => Ok(self.cgroup().update(resources)?),
        }
    }

    /// Usage figures of its cgroup.
    pub fn stats(&self) -> Result<Stats, ContainerError> {
        Ok(self.cgroup().stats()?)
    }

    /// Every process of the container, in the caller's pid namespace.
    pub fn processes(&self) -> Result<Vec<i32>, ContainerError> {
        Ok(self.cgroup().processes()?)
    }
}

/// Kills a process and waits until it has ended.
fn end_process(pid: i32, id: &str, within: Duration) -> Result<(), ContainerError> {
    let pidfd = match process::pidfd(pid) {
        Err(error) if error.is(ESRCH) => return Ok(()),
        done => done.map_err(ContainerError::at("open init"))?,
    };
    match process::signal(pidfd.as_fd(), SIGKILL) {
        Err(error) if error.is(ESRCH) => return Ok(()),
        done => done.map_err(ContainerError::at("signal init"))?,
    }
    match process::ended(pidfd.as_fd(), within).map_err(ContainerError::at("wait for init"))? {
        true => Ok(()),
        false => Err(ContainerError::Timeout { id: id.to_owned(), within }),
    }
}

fn remove_dir(dir: &Path) -> Result<(), ContainerError> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", dir, &error)),
        _ => Ok(()),
    }
}

fn io_error(call: &str, path: &Path, error: &std::io::Error) -> ContainerError {
    let source = sys::Error::new(error.raw_os_error().unwrap_or(0), format!("{call}({path:?})"));
    ContainerError::System { step: "state directory".into(), source }
}
