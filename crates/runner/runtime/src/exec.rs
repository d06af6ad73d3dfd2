//! Exec: one more process in a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use spec::runtime::{NamespaceKind, Process, Spec, Status};
use spec::{HasKind, Kind};
use sys::process::{self, Clone3, Fork};

use crate::cgroup::{Below, CgroupError, Joiner};
use crate::container::{Container, ContainerError};
use crate::create::plan::{self, PlanError};
use crate::create::{self, Child, CreateError, Stdio};
use crate::init::{self, Joining};
use crate::state::runc_name;
use crate::talk::{TIMED_OUT, Talk, Word};

/// How long joining may take between two words.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process to be added to a container.
#[derive(Debug)]
pub struct Exec<'a> {
    /// The container it joins.
    pub container: &'a Container,
    /// What runs.
    pub process: Process,
    /// Standard streams; unused when the process has a terminal.
    pub stdio: Stdio,
    /// Unix socket that receives the terminal's master; without one it is [`Started::console`].
    pub console_socket: Option<&'a Path>,
    /// File that receives the pid.
    pub pid_file: Option<&'a Path>,
    /// How many descriptors after the standard three the process keeps.
    pub preserve_fds: u32,
    /// Join even when the container is paused.
    pub ignore_paused: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// Cgroups below the container's, to run in.
    pub cgroup: Option<Below>,
    /// The doors to the container's own cgroups, when the caller keeps them open ([`Container::doors`]).
    pub doors: Option<&'a Joiner>,
}

/// What [`Exec::run`] started.
#[derive(Debug)]
pub struct Started {
    /// Its pid.
    pub pid: i32,
    /// Its pidfd, a child of the caller.
    pub pidfd: OwnedFd,
    /// Master of its terminal, when it has one and no console socket took it.
    pub console: Option<OwnedFd>,
}

/// Why a process was not started.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The container does not run.
    #[error("cannot exec in a stopped container")]
    Stopped,
    /// The container is paused.
    #[error("cannot exec in a paused container (use --ignore-paused to override)")]
    Paused,
    /// The process asks for what cannot be.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The container would not.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Its cgroup would not.
    #[error("unable to join the container's cgroup")]
    Cgroup(#[from] CgroupError),
    /// A system call of the parent failed.
    #[error("exec failed: {step}")]
    System {
        /// What it was for.
        step: &'static str,
        /// The call.
        source: sys::Error,
    },
    /// The new process failed; the text is complete.
    #[error("exec failed: unable to start container process: {text}")]
    Init {
        /// Errno of the failed call, 0 when there was none.
        errno: i32,
        /// What failed.
        text: String,
    },
    /// It ended without a word.
    #[error("exec failed: unable to start container process: it was killed")]
    Died,
    /// It did not get ready in time.
    #[error("exec failed: unable to start container process: it was not ready in time")]
    Timeout,
}

impl ExecError {
    fn at(step: &'static str) -> impl FnOnce(sys::Error) -> Self {
        move |source| Self::System { step, source }
    }
}

impl HasKind for ExecError {
    fn kind(&self) -> Kind {
        match self {
            Self::Stopped | Self::Paused => Kind::FailedPrecondition,
            Self::Plan(source) => source.kind(),
            Self::Container(source) => source.kind(),
            Self::Cgroup(source) => source.kind(),
            Self::System { source, .. } => Kind::from_errno(source.errno()),
            Self::Init { .. } | Self::Died => Kind::Unknown,
            Self::Timeout => Kind::DeadlineExceeded,
        }
    }
}

impl<'a> Exec<'a> {
    /// `process` in `container`, with inherited streams.
    pub fn new(container: &'a Container, process: Process) -> Self {
        Self {
            container,
            process,
            stdio: Stdio::default(),
            console_socket: None,
            pid_file: None,
            preserve_fds: 0,
            ignore_paused: false,
            no_new_keyring: false,
            cgroup: None,
            doors: None,
        }
    }

    /// Starts it; when this returns the program runs.
    pub fn run(self) -> Result<Started, ExecError> {
        self.check_status()?;
        let record = self.container.record();
        let process = match record.spec.as_deref() {
            Some(spec) => plan::plan_exec(spec, &self.process)?,
            None => plan::plan_exec(&Spec::default(), &self.process)?,
        };
        let init = self.container.init()?.ok_or(ExecError::Stopped)?;
        let opened;
        let joiner = match (&self.cgroup, self.doors) {
            (None, Some(doors)) => doors,
            (Some(below), _) => {
                opened = self.container.cgroup().joiner_below(below)?;
                &opened
            }
            (None, None) => {
                opened = self.container.cgroup().joiner_beside(record.init_process_pid)?;
                &opened
            }
        };
        let socket = self.console_socket.map(sys::socket::connect).transpose();
        let socket = socket.map_err(ExecError::at("connect to the console socket"))?;
        let (ours, theirs) = Talk::pair().map_err(ExecError::at("make the talk"))?;
        let user_namespace = self.has(NamespaceKind::User);
        let joining = Joining {
            process: &process,
            talk: &theirs,
            stdio: &self.stdio,
            joiner,
            init: init.as_fd(),
            namespaces: self.namespaces(),
            user_namespace,
            keyring: (!self.no_new_keyring).then(|| self.container.id()),
            preserve_fds: self.preserve_fds,
        };
        let options = Clone3 { namespaces: 0, sibling: false, cgroup: joiner.clone_into() };
        let mut child = match process::fork(&options).map_err(ExecError::at("clone"))? {
            Fork::Child => init::join(&joining),
            Fork::Parent { pid, pidfd } => Child::new(pid, pidfd, true),
        };
        drop(theirs);
        let finished = self.follow(&mut child, &process, &ours, user_namespace).and_then(|console| {
            let pid = child.pid();
            let console =
                create::hand_over(console, socket).map_err(ExecError::at("hand over the terminal"))?;
            if let Some(path) = self.pid_file {
                create::write_pid_file(path, pid).map_err(ExecError::at("write the pid file"))?;
            }
            Ok(console)
        });
        match finished {
            Ok(console) => {
                let (pid, pidfd) = child.into_parts();
                Ok(Started { pid, pidfd, console })
            }
            Err(error) => {
                // A process that still waits for a word ends by the end of the talk.
                drop(ours);
                child.end();
                Err(error)
            }
        }
    }

    fn check_status(&self) -> Result<(), ExecError> {
        match self.container.status()? {
            Status::Stopped => Err(ExecError::Stopped),
            Status::Paused if !self.ignore_paused => Err(ExecError::Paused),
            Status::Creating | Status::Created | Status::Running | Status::Paused => Ok(()),
        }
    }

    fn has(&self, kind: NamespaceKind) -> bool {
        self.container.record().config.namespaces.iter().any(|namespace| namespace.kind == runc_name(kind))
    }

    /// What the stage joins with the caller's privileges.
    fn namespaces(&self) -> i32 {
        NamespaceKind::ALL
            .into_iter()
            .filter(|kind| *kind != NamespaceKind::User && self.has(*kind))
            .fold(0, |flags, kind| flags | plan::kind_of(kind).flag())
    }

    /// Hears the new process until it has executed its program.
    fn follow(
        &self,
        child: &mut Child,
        process: &plan::Process,
        talk: &Talk,
        user_namespace: bool,
    ) -> Result<Option<OwnedFd>, ExecError> {
        let go = || talk.go().map_err(ExecError::at("let the process go on"));
        if user_namespace {
            create::settle(child.pid(), process).map_err(prepare_error)?;
            go()?;
        }
        let (mut console, mut ready) = (None, false);
        loop {
            match talk.hear(PATIENCE) {
                Ok(Some(Word::Console(master))) => console = Some(master),
                Ok(Some(Word::Sibling(pid, pidfd))) => {
                    child.replace(pid, pidfd);
                    if user_namespace {
                        create::limit(pid, process).map_err(prepare_error)?;
                    }
                    go()?;
                }
                Ok(Some(Word::Ready)) => ready = true,
                Ok(Some(Word::Failed(errno, text))) => return Err(ExecError::Init { errno, text }),
                // The end of the talk after the last word is the program's beginning.
                Ok(None) if ready => return Ok(console),
                Ok(Some(Word::Maps | Word::Hooks) | None) => return Err(ExecError::Died),
                Err(error) if error.is(TIMED_OUT) => return Err(ExecError::Timeout),
                Err(error) => return Err(ExecError::at("hear the process")(error)),
            }
        }
    }
}

fn prepare_error(error: CreateError) -> ExecError {
    match error {
        CreateError::System { source, .. } => ExecError::at("prepare the process")(source),
        other => ExecError::Init { errno: 0, text: other.to_string() },
    }
}
