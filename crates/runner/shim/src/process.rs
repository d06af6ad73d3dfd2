//! What the shim knows of its containers and their processes.
//!
//! ```text
//! Process:    Created --start--> Running --exit--> Stopped --delete--> (gone)
//!                \------------------exit---------------^
//! Container:  Thawed --pause--> Pausing --> Frozen --resume--> Thawed
//! ```
//!
//! Invariant: an exec's exit is told before its container's.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use api::Timestamp;
use runtime::cgroup::Cgroup;

use crate::driver::Driver;
use crate::serve::ReplyTo;
use crate::service::Method;
use crate::stdio::{LogFile, Logger};

/// The URIs of a process's standard files, as the client gave them.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    /// Standard input.
    pub stdin: String,
    /// Standard output, or all of the terminal's.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Whether the process has a terminal.
    pub terminal: bool,
}

/// How and when a process ended.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    /// The exit code, or 128 and the signal.
    pub status: u32,
    /// When it was reaped.
    pub at: SystemTime,
}

impl Exit {
    /// An end just seen.
    pub fn now(status: u32) -> Self {
        Self { status, at: SystemTime::now() }
    }

    /// Its time as the wire has it.
    pub fn timestamp(&self) -> Timestamp {
        timestamp(self.at)
    }
}

/// A time as the wire has it.
pub fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs().cast_signed(), nanos: since.subsec_nanos().cast_signed() }
}

/// A process's life.
#[derive(Clone, Copy, Debug)]
pub enum Phase {
    /// Not started: an init that waits, or an exec that is only described.
    Created,
    /// Under way.
    Running,
    /// Over.
    Stopped(Exit),
}

/// A delete that waits for the last output.
#[derive(Clone, Copy, Debug)]
pub struct ParkedDelete {
    /// Who asked.
    pub reply: ReplyTo,
    /// When the wait is given up.
    pub deadline: Instant,
}

/// One process of a container.
#[derive(Debug)]
pub struct Process {
    /// Its process id; 0 before it has one.
    pub pid: u32,
    /// Where it is in its life.
    pub phase: Phase,
    /// Its standard files.
    pub streams: Streams,
    /// The OCI process document of an exec that has not started.
    pub document: Vec<u8>,
    /// Who waits for its end.
    pub waits: Vec<ReplyTo>,
    /// The copies of its output that are under way.
    pub outputs: Vec<u32>,
    /// The log of its output, when the shim writes it.
    pub log: Option<LogFile>,
    /// The copy of its input.
    pub input: Option<u32>,
    /// The copies from listeners that speak to it too.
    pub feeds: Vec<u32>,
    /// The write end of its input FIFO.
    pub input_hold: Option<OwnedFd>,
    /// Whether the client has closed its input, which may come before the process has it.
    pub input_closed: bool,
    /// Its terminal.
    pub console: Option<OwnedFd>,
    /// The program that logs its output, until it has ended.
    pub logger: Option<Logger>,
    /// A delete that waits for its output.
    pub deleting: Option<ParkedDelete>,
}

impl Process {
    /// A process that does not run yet.
    pub fn new(streams: Streams, document: Vec<u8>) -> Self {
        Self {
            pid: 0,
            phase: Phase::Created,
            streams,
            document,
            waits: Vec::new(),
            outputs: Vec::new(),
            log: None,
            input: None,
            feeds: Vec::new(),
            input_hold: None,
            input_closed: false,
            console: None,
            logger: None,
            deleting: None,
        }
    }

    /// Whether all it wrote has reached its destination.
    pub fn is_drained(&self) -> bool {
        self.outputs.is_empty() && self.logger.is_none()
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        match self.phase {
            Phase::Stopped(exit) => Some(exit),
            Phase::Created | Phase::Running => None,
        }
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }
}

/// Whether a container's processes are held still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeze {
    /// They run.
    Thawed,
    /// They are being stopped.
    Pausing,
    /// They are held.
    Frozen,
}

/// A request that waits for the verb before it.
#[derive(Debug)]
pub struct Queued {
    /// Who asked.
    pub reply: ReplyTo,
    /// What.
    pub method: Method,
    /// The request.
    pub payload: Vec<u8>,
}

/// One container.
#[derive(Debug)]
pub struct Container {
    /// A number that no other container of this process has had, whatever its id.
    pub serial: u32,
    /// Its bundle.
    pub bundle: PathBuf,
    /// What runs it.
    pub driver: Box<dyn Driver>,
    /// Its first process.
    pub init: Process,
    /// The others, by exec id.
    pub execs: BTreeMap<String, Process>,
    /// Whether it shares the pid namespace of the host or of another container, so that its processes outlive init.
    pub shares_pid: bool,
    /// Whether it is paused.
    pub freeze: Freeze,
    /// The user and group that own its pipes.
    pub io_owner: (u32, u32),
    /// Whether create is done and clients may know of it.
    pub ready: bool,
    /// How many verbs are under way that others wait for: at most one of those that wait themselves, and signals.
    pub busy: usize,
    /// What waits for those verbs.
    pub queue: VecDeque<Queued>,
    /// The end of init, while execs still run, and when it is told regardless.
    pub held_exit: Option<(Exit, Instant)>,
    /// The cgroup it was made in.
    pub cgroup: Option<Cgroup>,
    /// What watches it for lack of memory.
    pub oom: Option<u32>,
}

impl Container {
    /// The process `exec_id`, or init when that is empty.
    pub fn process(&self, exec_id: &str) -> Option<&Process> {
        if exec_id.is_empty() { Some(&self.init) } else { self.execs.get(exec_id) }
    }

    /// The process `exec_id`, or init when that is empty, to change it.
    pub fn process_mut(&mut self, exec_id: &str) -> Option<&mut Process> {
        if exec_id.is_empty() { Some(&mut self.init) } else { self.execs.get_mut(exec_id) }
    }

    /// Every process with its exec id; init's is empty.
    pub fn processes_mut(&mut self) -> impl Iterator<Item = (&str, &mut Process)> {
        let execs = self.execs.iter_mut().map(|(id, process)| (id.as_str(), process));
        std::iter::once(("", &mut self.init)).chain(execs)
    }

    /// Whether an exec is under way.
    pub fn has_running_execs(&self) -> bool {
        self.execs.values().any(Process::is_running)
    }
}
