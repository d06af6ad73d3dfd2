//! Verbs under way in another program, and what waits for them.

use std::time::Instant;

use super::{ReplyTo, Shim};
use crate::driver::{Begun, Call, Running};
use crate::service::{Answer, Creating};

/// The most requests that wait for a container's verb.
const MAX_QUEUED: usize = 256;

/// What is done with a verb's result.
#[derive(Debug)]
pub enum Doing {
    /// Answer a create.
    Create(ReplyTo, Box<Creating>),
    /// Answer a start of init, or of the exec named.
    Start(ReplyTo, String),
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

/// A verb under way.
#[derive(Debug)]
pub struct Job {
    container: String,
    doing: Doing,
    running: Running,
    killed: bool,
}

impl Job {
    /// When it must be over; a killed one is reaped without further ado.
    pub fn deadline(&self) -> Instant {
        let deadline = self.running.deadline();
        if self.killed { deadline + std::time::Duration::from_secs(3600) } else { deadline }
    }

    /// Whether it starts the process `exec` of `container`.
    pub fn starts(&self, container: &str, exec: &str) -> bool {
        self.container == container && matches!(&self.doing, Doing::Start(_, id) if id == exec)
    }
}

impl Shim {
    /// Runs `call` on `container`; its result goes to `doing`, now or later.
    pub(crate) fn run(&mut self, container: &str, doing: Doing, call: Call<'_>) {
        let Some(known) = self.containers.get_mut(container) else { return };
        match known.driver.begin(call) {
            Begun::Done(result) => self.complete(container, doing, result),
            Begun::Running(running) => {
                known.busy = true;
                let job = Job { container: container.into(), doing, running, killed: false };
                self.jobs.insert(job.running.pid(), job);
            }
        }
    }

    /// Deals with the end of a job's program; `false` when `pid` is none.
    pub(super) fn finish_job(&mut self, pid: u32, raw_status: i32) -> bool {
        let Some(job) = self.jobs.remove(&pid) else { return false };
        if let Some(container) = self.containers.get_mut(&job.container) {
            container.busy = false;
        }
        let result = job.running.finish(raw_status);
        self.complete(&job.container, job.doing, result);
        self.settle_early();
        self.take_queued(&job.container);
        true
    }

    /// Serves what waited for the verb that is over, until the next one is under way.
    fn take_queued(&mut self, container: &str) {
        while let Some(known) = self.containers.get_mut(container).filter(|known| !known.busy) {
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

    /// Kills the programs that take too long.
    pub(super) fn expire_jobs(&mut self, now: Instant) {
        for job in self.jobs.values_mut().filter(|job| job.deadline() <= now) {
            job.killed = true;
            job.running.kill();
        }
    }

    /// Whether a program is under way that may have started a process we do not know yet.
    pub(super) fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }
}
