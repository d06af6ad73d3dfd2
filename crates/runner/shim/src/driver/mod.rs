//! The two ways to run a container: the runtime library in this process, or another program that speaks runc's CLI.
//!
//! A verb either is done when [`Driver::begin`] returns, or goes on: in a child process that the event loop reaps
//! ([`Running`]), or in steps of the library that the loop drives ([`Verb`]), so that neither a program nor a process of
//! a container holds up the shim.

mod command;
mod console;
mod inprocess;
mod verb;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use api::containerd::runc::v1::Options;
use spec::error::{HasKind, Kind};

pub use command::{Command, Running};
pub use inprocess::InProcess;
pub use verb::Verb;

use crate::options;

/// The file in a bundle that holds the process id of its container's init.
pub const PID_FILE: &str = "init.pid";

/// The three standard files of a container's process. With a terminal they are absent: it has the terminal.
#[derive(Debug)]
pub struct ChildStdio {
    /// Standard input, read end.
    pub stdin: OwnedFd,
    /// Standard output, write end.
    pub stdout: OwnedFd,
    /// Standard error, write end.
    pub stderr: OwnedFd,
}

/// One verb and what it needs.
#[derive(Debug)]
pub enum Call<'a> {
    /// Makes the container, its init waiting for [`Call::Start`].
    Create {
        /// The files of init; `None` asks for a terminal.
        stdio: Option<ChildStdio>,
    },
    /// Lets init run the program.
    Start,
    /// Removes a container that has ended; with `force`, one that has not.
    Delete {
        /// Whether to kill it first.
        force: bool,
    },
    /// Signals init, or every process.
    Kill {
        /// The signal's number.
        signal: u32,
        /// Every process rather than init.
        all: bool,
    },
    /// Freezes every process.
    Pause,
    /// Thaws them.
    Resume,
    /// Applies a `LinuxResources` document.
    Update {
        /// The document.
        resources: &'a [u8],
    },
    /// Lists the process ids.
    Processes,
    /// Runs a further process.
    Exec {
        /// Its name, unique in the container.
        exec_id: &'a str,
        /// An OCI process document.
        process: &'a [u8],
        /// Its files; `None` asks for a terminal.
        stdio: Option<ChildStdio>,
        /// When the client stops waiting for it, if it has said.
        until: Option<Instant>,
    },
}

/// What a verb brought.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The new process, of create and exec.
    pub pid: u32,
    /// Its terminal's master side, when one was asked for.
    pub console: Option<OwnedFd>,
    /// Every process, of [`Call::Processes`].
    pub processes: Vec<u32>,
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The runtime said no; its words, without the verb.
    #[error("{text}")]
    Runtime {
        /// What went wrong.
        text: String,
        /// How.
        kind: Kind,
    },
    /// The program cannot be run at all.
    #[error("exec: {binary:?}: {}", why_not_run(binary, reason))]
    Program {
        /// Its name.
        binary: String,
        /// What execve(2) or the search for it said; part of the text.
        reason: std::io::Error,
    },
    /// The program did not end in time and was killed.
    #[error("{binary} did not end within {}s", limit.as_secs())]
    Deadline {
        /// Its name.
        binary: String,
        /// The time it had.
        limit: Duration,
    },
    /// What the program left behind cannot be read.
    #[error("{what}: {source}")]
    Reply {
        /// Which thing.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// Why a program was not run, in the words of Go's os/exec, on which clients match.
fn why_not_run(binary: &str, source: &std::io::Error) -> String {
    match source.kind() {
        std::io::ErrorKind::NotFound if !binary.contains('/') => "executable file not found in $PATH".into(),
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => source.to_string(),
    }
}

impl HasKind for DriverError {
    fn kind(&self) -> Kind {
        match self {
            Self::Runtime { kind, .. } => *kind,
            Self::Program { .. } | Self::Reply { .. } => Kind::Unknown,
            Self::Deadline { .. } => Kind::DeadlineExceeded,
        }
    }
}

/// A verb under way.
#[derive(Debug)]
pub enum Begun {
    /// It is over.
    Done(Result<Outcome, DriverError>),
    /// A child process does it.
    Running(Running),
    /// The library does it, in steps.
    Ongoing(Verb),
}

/// Runs the verbs of one container.
pub trait Driver: std::fmt::Debug {
    /// Begins `call`. Of create, start, delete, pause, resume and update the caller begins the next one only when the
    /// last is over.
    fn begin(&mut self, call: Call<'_>) -> Begun;
}

/// The driver that `options` ask for, for container `id` of `namespace`.
pub fn open(options: &Options, namespace: &str, id: &str, bundle: &Path) -> Box<dyn Driver> {
    let root = options::state_root(options, namespace);
    if options::in_process(options) {
        Box::new(InProcess::new(options, root, id, bundle))
    } else {
        Box::new(Command::new(options, root, id, bundle))
    }
}

/// Waits for a verb outside the event loop, as the `delete` action may.
///
/// # Errors
/// The verb's own, or its deadline.
pub fn settle(begun: Begun) -> Result<Outcome, DriverError> {
    match begun {
        Begun::Done(result) => result,
        Begun::Running(running) => running.wait(),
        Begun::Ongoing(verb) => runtime::ongoing::complete(verb),
    }
}

/// The `features` document of the runtime that `options` ask for.
///
/// # Errors
/// The program has no such command, or cannot be run.
pub fn features(options: &Options) -> Result<Vec<u8>, DriverError> {
    if options::in_process(options) { inprocess::features() } else { command::features(&options.binary_name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_runtime_is_named_in_the_words_of_gos_exec() {
        let text = |binary: &str, errno: i32| {
            let reason = std::io::Error::from_raw_os_error(errno);
            DriverError::Program { binary: binary.into(), reason }.to_string()
        };
        assert_eq!(text("no-runc", 2), r#"exec: "no-runc": executable file not found in $PATH"#);
        assert_eq!(text("/opt/no-runc", 2), r#"exec: "/opt/no-runc": no such file or directory"#);
        assert_eq!(text("/opt/runc", 13), r#"exec: "/opt/runc": permission denied"#);
    }
}
