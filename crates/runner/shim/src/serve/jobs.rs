//! Verbs under way, and what waits for them.
//!
//! A verb is done by another program, whose end is a signal, or by the library in this process, which names what it
//! waits for. Either has a deadline.

use std::time::{Duration, Instant};

use runtime::ongoing::Ongoing;
use rustix::event::epoll::EventFlags;
use rustix::process::Signal;
use spec::error::Error;

use super::{ReplyTo, Shim, Token};
use crate::driver::{Begun, Call, DriverError, Outcome, Running, Verb};
use crate::process::Exit;
use crate::service::{Answer, Creating};
use crate::stdio::Opened;

/// The most requests that wait for a container's verb.
const MAX_QUEUED: usize = 256;
/// How long a program that was killed may take to be reaped before it is looked at again.
const KILLED: Duration = Duration::from_secs(3600);

/// What is done with a verb's result.
#[derive(Debug)]
pub enum Doing {
    /// Answer a create.
    Create(ReplyTo, Box<Creating>),
    /// Answer a start of init.
    Start(ReplyTo),
    /// Answer a start of the exec named, which gets these files.
    Exec(ReplyTo, String, Box<Opened>),
    /// Forget a container whose create could not be completed; its client knows already.
    Undo,
    /// Answer a delete.
    Delete(ReplyTo),
    /// Answer a kill.
    Kill(ReplyTo),
    /// Answer a pause.
    Pause(ReplyTo),
    /// Answer a resume.
    Resume(ReplyTo),
    /// Answer an update.
    Update(ReplyTo),
    /// Answer with the processes.
    Pids(ReplyTo),
}

impl Doing {
    /// Whether those verbs on the container wait for it that wait at all; see [`crate::service::Method`]. A signal does
    /// not wait, but it may thaw what it has frozen, and so is waited for.
    fn is_waited_for(&self) -> bool {
        match self {
            Self::Create(..) | Self::Start(_) | Self::Undo | Self::Delete(_) => true,
            Self::Kill(_) | Self::Pause(_) | Self::Resume(_) | Self::Update(_) => true,
            Self::Exec(..) | Self::Pids(_) => false,
        }
    }

    /// The exec that it starts; empty for init.
    fn started(&self) -> Option<&str> {
        match self {
            Self::Start(_) => Some(""),
            Self::Exec(_, exec, _) => Some(exec),
            Self::Create(..) | Self::Undo | Self::Delete(_) | Self::Kill(_) => None,
            Self::Pause(_) | Self::Resume(_) | Self::Update(_) | Self::Pids(_) => None,
        }
    }
}

/// A verb under way.
#[derive(Debug)]
pub struct Job {
    container: String,
    /// Which container of that id: it may have been deleted and made anew meanwhile.
    serial: u32,
    doing: Doing,
    work: Work,
    /// The end of the process that it starts.
    exit: Option<Exit>,
}

/// Who does a verb.
#[derive(Debug)]
enum Work {
    /// A program.
    Program { running: Running, killed: bool },
    /// The library.
    Verb(Verb),
}

impl Job {
    /// When it is to be looked at in any case; a killed program is reaped without further ado.
    pub fn deadline(&self) -> Instant {
        match &self.work {
            Work::Program { running, killed: false } => running.deadline(),
            Work::Program { running, killed: true } => running.deadline() + KILLED,
            Work::Verb(verb) => verb.wait().until,
        }
    }

    /// Whether it starts the process `exec` of `container`.
    fn starts(&self, container: &str, exec: &str) -> bool {
        self.container == container && self.doing.started() == Some(exec)
    }
}

impl Shim {
    /// Runs `call` on `container`; its result goes to `doing`, now or later.
    pub(crate) fn run(&mut self, container: &str, doing: Doing, call: Call<'_>) {
        let Some(known) = self.containers.get_mut(container) else { return self.outlived(doing) };
        let work = match known.driver.begin(call) {
            Begun::Done(result) => return self.complete(container, doing, result),
            Begun::Running(running) => Work::Program { running, killed: false },
            Begun::Ongoing(verb) => Work::Verb(verb),
        };
        known.busy += usize::from(doing.is_waited_for());
        let job = Job { container: container.into(), serial: known.serial, doing, work, exit: None };
        let id = self.new_id();
        self.keep_job(id, job);
    }

    /// Keeps a job that is not over, and watches what it waits for.
    fn keep_job(&mut self, id: u32, job: Job) {
        if let Work::Verb(verb) = &job.work
            && let Some(fd) = verb.wait().fd
        {
            // What cannot be watched is looked at when its time is up.
            let _ = self.poll.add(fd, Token::Job(id), EventFlags::IN);
        }
        self.jobs.insert(id, job);
    }

    /// Takes a job out, to do something with it: what it waits for may be another descriptor afterwards.
    fn take_job(&mut self, id: u32) -> Option<Job> {
        let job = self.jobs.remove(&id)?;
        if let Work::Verb(verb) = &job.work
            && let Some(fd) = verb.wait().fd
        {
            // By hand: a process just cloned may hold a copy, with which it would stay watched.
            self.poll.remove(fd);
        }
        Some(job)
    }

    /// Does what can be done for a verb of the library.
    pub(super) fn advance_job(&mut self, id: u32) {
        let Some(mut job) = self.take_job(id) else { return };
        let advanced = match &mut job.work {
            Work::Verb(verb) => verb.advance(),
            Work::Program { .. } => None,
        };
        match advanced {
            None => self.keep_job(id, job),
            Some(result) => self.finish_job(job, result),
        }
    }

    /// Advances the verbs that take the status of the child `pid` themselves, or have still to learn of it.
    pub(super) fn advance_awaiting(&mut self, pid: i32) {
        let awaits = |job: &Job| matches!(&job.work, Work::Verb(verb) if verb.awaits(pid));
        let awaiting: Vec<u32> = self.jobs.iter().filter(|(_, job)| awaits(job)).map(|(id, _)| *id).collect();
        for id in awaiting {
            self.advance_job(id);
        }
    }

    /// Deals with the end of a job's program; `false` when `pid` is none.
    pub(super) fn finish_program(&mut self, pid: u32, raw_status: i32) -> bool {
        let is_its = |job: &Job| matches!(&job.work, Work::Program { running, .. } if running.pid() == pid);
        let Some(id) = self.jobs.iter().find(|(_, job)| is_its(job)).map(|(id, _)| *id) else { return false };
        let Some(mut job) = self.take_job(id) else { return false };
        let result = match &mut job.work {
            Work::Program { running, .. } => running.finish(raw_status),
            Work::Verb(_) => return false,
        };
        self.finish_job(job, result);
        self.settle_early();
        true
    }

    fn finish_job(&mut self, job: Job, result: Result<Outcome, DriverError>) {
        let Job { container, serial, doing, exit, .. } = job;
        let Some(known) = self.containers.get_mut(&container).filter(|known| known.serial == serial) else {
            return self.outlived(doing);
        };
        known.busy -= usize::from(doing.is_waited_for());
        let started = match &doing {
            Doing::Create(..) => Some(String::new()),
            other => other.started().map(str::to_owned),
        };
        self.complete(&container, doing, result);
        if let (Some(exec), Some(exit)) = (started, exit) {
            self.ended_early(&container, &exec, exit);
        }
        self.take_queued(&container);
    }

    /// Serves what waited for the verb that is over, until the next one is under way.
    fn take_queued(&mut self, container: &str) {
        while let Some(known) = self.containers.get_mut(container).filter(|known| known.busy == 0) {
            let Some(queued) = known.queue.pop_front() else { return };
            if let Answer::Now(result) = self.request(queued.reply, queued.method, queued.payload) {
                self.answer(queued.reply, result);
            }
        }
    }

    /// Whether `queued` more may wait.
    pub(crate) fn may_queue(queued: usize) -> bool {
        queued < MAX_QUEUED
    }

    /// Kills the programs that take too long, and advances the verbs whose time has come.
    pub(super) fn expire_jobs(&mut self, now: Instant) {
        let due: Vec<u32> =
            self.jobs.iter().filter(|(_, job)| job.deadline() <= now).map(|(id, _)| *id).collect();
        for id in due {
            if let Some(Job { work: Work::Program { running, killed }, .. }) = self.jobs.get_mut(&id) {
                *killed = true;
                running.kill();
            } else {
                self.advance_job(id);
            }
        }
    }

    /// Whether a program is under way that may have started a process we do not know yet.
    pub(super) fn has_programs(&self) -> bool {
        self.jobs.values().any(|job| matches!(job.work, Work::Program { .. }))
    }

    /// Whether the library has a verb under way.
    pub(super) fn has_verbs(&self) -> bool {
        self.jobs.values().any(|job| matches!(job.work, Work::Verb(_)))
    }

    /// Keeps the end of the process `pid` for the verb of the library that is making it; `false` if none is.
    pub(super) fn keep_exit(&mut self, pid: u32, exit: Exit) -> bool {
        let makes = |job: &Job| matches!(&job.work, Work::Verb(verb) if verb.pid() == Some(pid));
        let job = self.jobs.values_mut().find(|job| makes(job));
        job.map(|job| job.exit = Some(exit)).is_some()
    }

    /// Keeps the end of a process for the job that is starting it; `false` if none is.
    pub(super) fn keep_exit_of(&mut self, container: &str, exec: &str, exit: Exit) -> bool {
        let job = self.jobs.values_mut().find(|job| job.starts(container, exec));
        job.map(|job| job.exit = Some(exit)).is_some()
    }

    /// Whether the process `exec` of `container` is being started.
    pub(crate) fn is_starting(&self, container: &str, exec: &str) -> bool {
        self.jobs.values().any(|job| job.starts(container, exec))
    }

    /// The execs of `container` that are being started.
    pub(crate) fn starting(&self, container: &str) -> Vec<String> {
        let execs = self.jobs.values().filter(|job| job.container == container);
        execs
            .filter_map(|job| job.doing.started())
            .filter(|exec| !exec.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// Signals an exec that is being started; a kill ends the start at once.
    pub(crate) fn kill_starting(&mut self, container: &str, exec: &str, signal: u32) -> Result<(), Error> {
        let signal = signal.cast_signed();
        let job = self.jobs.values().find(|job| job.starts(container, exec));
        match job.map(|job| &job.work) {
            Some(_) if signal == Signal::KILL.as_raw() => {
                self.cancel_start(container, exec);
                Ok(())
            }
            Some(Work::Verb(verb)) => verb.signal(signal),
            Some(Work::Program { .. }) | None => Err(Error::failed_precondition("process not created")),
        }
    }

    /// Gives up the execs of `container` that the library is starting: what is not yet in the container's pid namespace
    /// does not end with it. A program finds out by itself.
    pub(super) fn cancel_verbs(&mut self, container: &str) {
        for exec in self.starting(container) {
            let starts = |job: &Job| matches!(job.work, Work::Verb(_)) && job.starts(container, &exec);
            if self.jobs.values().any(starts) {
                self.cancel_start(container, &exec);
            }
        }
    }

    /// Gives up the start of an exec: its process is killed, and its start fails.
    pub(crate) fn cancel_start(&mut self, container: &str, exec: &str) {
        let starting = self.jobs.iter().find(|(_, job)| job.starts(container, exec)).map(|(id, _)| *id);
        let Some(id) = starting else { return };
        let Some(mut job) = self.take_job(id) else { return };
        match &mut job.work {
            Work::Program { running, .. } => running.cancel(),
            Work::Verb(verb) => verb.cancel(),
        }
        self.keep_job(id, job);
        self.advance_job(id);
    }
}
