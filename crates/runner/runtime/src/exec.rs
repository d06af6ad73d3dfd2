//! Exec: one more process in a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use spec::runtime::{NamespaceKind, Process, Spec, Status};
use spec::{HasKind, Kind};
use sys::process::{self, Clone3, Fork};

use crate::cgroup::{Below, CgroupError, Joiner};
use crate::child::{Child, KILL_TIMEOUT};
use crate::container::{Container, ContainerError};
use crate::conversation::{Conversation, Event, Failure};
use crate::create::plan::{self, PlanError};
use crate::create::{self, CreateError, Stdio};
use crate::init::{self, Joining};
use crate::ongoing::{Ongoing, Wait, after, complete};
use crate::state::runc_name;
use crate::talk::{Script, Talk, Word};

const O_PATH: i32 = 0o10_000_000;

/// How long a process may take from its clone to the execution of its program.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);

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
    /// How long it may take to execute its program: the container can stop it before that.
    pub within: Duration,
    /// Leave line ends on the process's terminal as its program writes them.
    pub keep_line_ends: bool,
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
    #[error("exec failed: unable to start container process: error adding pid to cgroups")]
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
    /// It did not get so far in time, and was killed.
    #[error("exec failed: unable to start container process: timed out waiting for it to {step}")]
    Timeout {
        /// What it should have done.
        step: &'static str,
    },
    /// It sent what does not belong there, and was killed.
    #[error("exec failed: unable to start container process: unexpected message from it: {0}")]
    Unexpected(&'static str),
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
            Self::Init { .. } | Self::Died | Self::Unexpected(_) => Kind::Unknown,
            Self::Timeout { .. } => Kind::DeadlineExceeded,
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
            within: START_TIMEOUT,
            keep_line_ends: false,
        }
    }

    /// Starts it; when this returns the program runs.
    pub fn run(self) -> Result<Started, ExecError> {
        complete(self.begin()?)
    }

    /// Clones it; the rest is for [`Launch`] to see through.
    pub fn begin(self) -> Result<Launch, ExecError> {
        self.check_status()?;
        let record = self.container.record();
        let mut process = match record.spec.as_deref() {
            Some(spec) => plan::plan_exec(spec, &self.process)?,
            None => plan::plan_exec(&Spec::default(), &self.process)?,
        };
        process.keep_line_ends = self.keep_line_ends;
        process.check_descriptors(create::nr_open())?;
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
        let root = self.shared_root(record.init_process_pid).map_err(ExecError::at("open the root"))?;
        let joining = Joining {
            process: &process,
            talk: &theirs,
            stdio: &self.stdio,
            joiner,
            init: init.as_fd(),
            namespaces: self.namespaces(),
            user_namespace,
            root: root.as_ref().map(AsFd::as_fd),
            keyring: (!self.no_new_keyring).then(|| self.container.id()),
            preserve_fds: self.preserve_fds,
        };
        let options = Clone3 { namespaces: 0, sibling: false, cgroup: joiner.clone_into() };
        let (pid, pidfd) = match process::fork(&options).map_err(ExecError::at("clone"))? {
            Fork::Child => init::join(&joining),
            Fork::Parent { pid, pidfd } => (pid, pidfd),
        };
        drop(theirs);
        let script = Script::readiness().with_terminal(process.terminal).with_process(true);
        let talking =
            Conversation::new(Child::new(pid, pidfd, 1), ours, script, "join the container", self.within);
        let launch = Launch {
            outer: user_namespace.then(|| Box::new(process)),
            console: None,
            console_socket: socket,
            pid_file: self.pid_file.map(Path::to_owned),
            phase: Phase::Over,
        };
        Ok(Launch { phase: Phase::Joining(talking), ..launch })
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

    /// The root of init, the process `pid`, when it is not that of a mount namespace which is joined.
    fn shared_root(&self, pid: i32) -> Result<Option<OwnedFd>, sys::Error> {
        if self.has(NamespaceKind::Mount) {
            return Ok(None);
        }
        sys::fd::open(Path::new(&format!("/proc/{pid}/root")), O_PATH).map(Some)
    }

    /// What the stage joins with the caller's privileges.
    fn namespaces(&self) -> i32 {
        NamespaceKind::ALL
            .into_iter()
            .filter(|kind| *kind != NamespaceKind::User && self.has(*kind))
            .fold(0, |flags, kind| flags | plan::kind_of(kind).flag())
    }
}

/// A process that is joining its container.
#[derive(Debug)]
pub struct Launch {
    /// What is set from outside for a process in a user namespace, which may not do so itself.
    outer: Option<Box<plan::Process>>,
    /// Master of the terminal.
    console: Option<OwnedFd>,
    console_socket: Option<OwnedFd>,
    pid_file: Option<PathBuf>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// The stage prepares, or the process that it has made takes on its identity.
    Joining(Conversation),
    /// It has said that its program is next; the end of the talk is the program's beginning.
    Executing(Conversation),
    /// It was killed; until when its end is waited for.
    Ending(Child, Instant, ExecError),
    /// The result was returned.
    Over,
}

/// What comes after a turn.
enum Turn {
    Wait(Phase),
    Next(Phase),
    Over(Result<Started, ExecError>),
}

impl Launch {
    /// The process as far as it is known: that of a stage until it has named the one that it made.
    pub fn pid(&self) -> Option<i32> {
        match &self.phase {
            Phase::Joining(talking) | Phase::Executing(talking) => Some(talking.child.pid()),
            Phase::Ending(child, ..) => Some(child.pid()),
            Phase::Over => None,
        }
    }

    /// Signals the process before it runs its program.
    pub fn signal(&self, signal: i32) -> Result<(), ExecError> {
        match &self.phase {
            Phase::Joining(talking) | Phase::Executing(talking) => {
                talking.child.signal(signal).map_err(ExecError::at("signal the process"))
            }
            Phase::Ending(..) | Phase::Over => Err(ExecError::Stopped),
        }
    }

    /// Gives the process up: it is killed, and its end is the next thing to wait for.
    pub fn cancel(&mut self) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Joining(talking) | Phase::Executing(talking) => ending(talking, ExecError::Died),
            other => other,
        };
    }

    /// Sets what a process in a user namespace may not set itself, and lets it go on.
    fn admit(&self, talking: &Conversation) -> Result<(), ExecError> {
        if let Some(process) = &self.outer {
            let pid = talking.child.pid();
            let settled = create::settle(pid, process).and_then(|()| create::limit(pid, process));
            settled.map_err(|error| match error {
                CreateError::System { source, .. } => ExecError::at("prepare the process")(source),
                other => ExecError::Init { errno: 0, text: other.to_string() },
            })?;
        }
        talking.go().map_err(ExecError::at("let the process go on"))
    }

    fn join(&mut self, mut talking: Conversation) -> Turn {
        let done = match talking.next() {
            Ok(None) => return Turn::Wait(Phase::Joining(talking)),
            Ok(Some(Event::Word(Word::Process(_)))) => self.admit(&talking),
            Ok(Some(Event::Word(Word::Console(master)))) => {
                self.console = Some(master);
                Ok(())
            }
            Ok(Some(Event::Word(Word::Ready))) => {
                talking.expect("execute its program");
                return Turn::Next(Phase::Executing(talking));
            }
            Ok(Some(event)) => Err(failed(event)),
            Err(failure) => Err(failure.into()),
        };
        Turn::Next(match done {
            Ok(()) => Phase::Joining(talking),
            Err(error) => ending(talking, error),
        })
    }

    fn execute(&mut self, mut talking: Conversation) -> Turn {
        let done = match talking.next() {
            Ok(None) => return Turn::Wait(Phase::Executing(talking)),
            Ok(Some(Event::End)) => self.publish(talking.child.pid()),
            Ok(Some(event)) => Err(failed(event)),
            Err(failure) => Err(failure.into()),
        };
        match done {
            Ok(console) => {
                let (pid, pidfd) = talking.into_parts().0.into_parts();
                Turn::Over(Ok(Started { pid, pidfd, console }))
            }
            Err(error) => Turn::Next(ending(talking, error)),
        }
    }

    /// Makes the process that runs its program known: its terminal, its pid.
    fn publish(&mut self, pid: i32) -> Result<Option<OwnedFd>, ExecError> {
        let console = create::hand_over(self.console.take(), self.console_socket.take())
            .map_err(ExecError::at("hand over the terminal"))?;
        if let Some(path) = &self.pid_file {
            create::write_pid_file(path, pid).map_err(ExecError::at("write the pid file"))?;
        }
        Ok(console)
    }
}

impl Ongoing for Launch {
    type Output = Result<Started, ExecError>;

    fn wait(&self) -> Wait<'_> {
        match &self.phase {
            Phase::Joining(talking) | Phase::Executing(talking) => talking.wait(),
            Phase::Ending(child, deadline, _) => Wait { fd: Some(child.pidfd()), until: *deadline },
            Phase::Over => Wait { fd: None, until: Instant::now() },
        }
    }

    fn advance(&mut self) -> Option<Self::Output> {
        loop {
            let turn = match std::mem::replace(&mut self.phase, Phase::Over) {
                Phase::Joining(talking) => self.join(talking),
                Phase::Executing(talking) => self.execute(talking),
                Phase::Ending(mut child, deadline, error) => {
                    match child.reap() || Instant::now() >= deadline {
                        true => Turn::Over(Err(error)),
                        false => Turn::Wait(Phase::Ending(child, deadline, error)),
                    }
                }
                Phase::Over => return None,
            };
            match turn {
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
        match &self.phase {
            Phase::Joining(talking) | Phase::Executing(talking) => talking.child.awaits(pid),
            Phase::Ending(child, ..) => child.awaits(pid),
            Phase::Over => false,
        }
    }
}

/// Kills a process that has failed.
fn ending(talking: Conversation, error: ExecError) -> Phase {
    Phase::Ending(talking.kill(), after(KILL_TIMEOUT), error)
}

/// What an event means that the process does not begin with.
fn failed(event: Event) -> ExecError {
    match event {
        Event::Word(Word::Failed(errno, text)) => ExecError::Init { errno, text },
        // The script allows no others.
        Event::Word(_) | Event::End => ExecError::Died,
    }
}

impl From<Failure> for ExecError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Timeout { step } => Self::Timeout { step },
            Failure::Unexpected(name) => Self::Unexpected(name),
            Failure::System(source) => Self::at("receive from the process")(source),
        }
    }
}
