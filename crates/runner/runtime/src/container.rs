//! A container that stands: its state directory, its processes and what can be done to them.
//!
//! Invariant: a signal goes to a pidfd whose process has been checked against the record, never to a bare number.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use spec::runtime::{LinuxResources, State, Status};
use spec::{HasKind, Kind};
use sys::process;

use crate::cgroup::{Cgroup, CgroupError, Freezing, Joiner, Killing, Stats, layout};
use crate::hooks::HookError;
use crate::ongoing::complete;
use crate::salvage::Salvage;
use crate::state::{GATE, Record, RecordError};
use crate::talk::Talk;

pub(crate) const SIGKILL: i32 = 9;
const ESRCH: i32 = 3;
const ENXIO: i32 = 6;
const ENOENT: i32 = 2;

/// Descriptors from this number on are not spent on what could be opened anew: 1024 is the usual limit.
const MOST_KEPT: i32 = 512;

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
    pub(crate) fn at(step: impl Into<String>) -> impl FnOnce(sys::Error) -> Self {
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

    /// What can still be told of the container `id`, whose state file is damaged.
    pub(crate) fn salvage(root: &Path, id: &str) -> Result<Salvage, ContainerError> {
        let text = Record::text(&root.join(id)).map_err(ContainerError::Record)?;
        Ok(Salvage::read(&String::from_utf8_lossy(&text), layout()?))
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

    /// The talk with init, in the process that created the container, until the program runs.
    pub(crate) fn take_talk(&mut self) -> Option<Talk> {
        self.talk.take()
    }

    /// Removes the gate, which says who starts it, and sends the byte that init waits for.
    pub(crate) fn open_gate(&self) -> Result<(), ContainerError> {
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
    pub(crate) fn has_own_pid_namespace(&self) -> bool {
        self.record
            .config
            .namespaces
            .iter()
            .any(|namespace| namespace.kind == "NEWPID" && namespace.path.is_empty())
    }

    /// Sends `signal` to init, or to every process when `all`.
    pub fn kill(&self, signal: i32, all: bool) -> Result<(), ContainerError> {
        Ok(self.begin_kill(signal, all)?.map_or(Ok(()), complete)?)
    }

    /// Sends `signal` to init, or begins to send it to every process: what of that is still to be done.
    pub fn begin_kill(&self, signal: i32, all: bool) -> Result<Option<Killing>, ContainerError> {
        if all || (signal == SIGKILL && !self.has_own_pid_namespace()) {
            let init = self.init()?;
            if !all && init.is_none() && self.processes()?.is_empty() {
                return Err(ContainerError::NotRunning);
            }
            let killing = self.cgroup().begin_kill(signal);
            return Ok(Some(match init {
                Some(pidfd) => killing.with_init(self.pid(), pidfd),
                None => killing,
            }));
        }
        self.signal_init(signal)?;
        if signal == SIGKILL && self.status()? == Status::Paused {
            // A frozen process dies only when it is thawed.
            self.cgroup().thaw()?;
        }
        Ok(None)
    }

    /// Freezes every process.
    pub fn pause(&self) -> Result<(), ContainerError> {
        Ok(complete(self.begin_pause()?)?)
    }

    /// Begins to freeze every process.
    pub fn begin_pause(&self) -> Result<Freezing, ContainerError> {
        match self.status()? {
            Status::Running | Status::Created => Ok(self.cgroup().begin_freeze()),
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

pub(crate) fn remove_dir(dir: &Path) -> Result<(), ContainerError> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", dir, &error)),
        _ => Ok(()),
    }
}

fn io_error(call: &str, path: &Path, error: &std::io::Error) -> ContainerError {
    let source = sys::Error::new(error.raw_os_error().unwrap_or(0), format!("{call}({path:?})"));
    ContainerError::System { step: "state directory".into(), source }
}
