//! Ends: children reaped, exits told in order, deletes that waited for output.

use std::time::{Duration, Instant};

use api::Message;
use api::containerd::events::TaskExit;
use api::containerd::task::v3::{KillRequest, WaitResponse};
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus};
use spec::error::Error;

use super::{ReplyTo, Shim};
use crate::log;
use crate::process::{Exit, Freeze, Phase};
use crate::service::{Answer, Method};

/// How long the end of init waits for those of the execs.
const HELD_LIMIT: Duration = Duration::from_secs(10);
/// The most ends that are kept for jobs under way.
const MAX_EARLY: usize = 1024;

/// Who is told the result of what the shim does by itself: nobody.
const NOBODY: ReplyTo = ReplyTo { connection: 0, stream: 0, until: None };

fn code(status: WaitStatus) -> u32 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.unwrap_or(255).cast_unsigned()
}

impl Shim {
    /// Collects every child that has ended. A verb under way that awaits one is advanced first: it takes the status
    /// itself, or learns of the child by the last message from it.
    pub(crate) fn reap(&mut self) {
        loop {
            let next = match self.has_verbs() {
                true => match sys::process::ended_child() {
                    Ok(Some(pid)) => Some(pid),
                    Ok(None) => return,
                    Err(error) => return log::error(format_args!("{error}")),
                },
                false => None,
            };
            if let Some(pid) = next {
                self.advance_awaiting(pid);
            }
            let waited = match next.and_then(rustix::process::Pid::from_raw) {
                Some(pid) => rustix::process::waitpid(Some(pid), WaitOptions::NOHANG),
                None => rustix::process::wait(WaitOptions::NOHANG),
            };
            match waited {
                Ok(Some((pid, status))) => self.reaped(pid.as_raw_nonzero().get().cast_unsigned(), status),
                // The verb has taken it.
                Err(Errno::CHILD) if next.is_some() => {}
                Ok(None) | Err(Errno::CHILD) => return,
                Err(Errno::INTR) => {}
                Err(errno) => return log::error(format_args!("wait: {errno}")),
            }
        }
    }

    fn reaped(&mut self, pid: u32, status: WaitStatus) {
        if self.finish_program(pid, status.as_raw()) || self.end_logger(pid) {
            return;
        }
        let exit = Exit::now(code(status));
        if self.keep_exit(pid, exit) || self.end_process(pid, exit) {
            return;
        }
        if self.has_programs() && self.early.len() < MAX_EARLY {
            self.early.push((pid, exit));
        }
    }

    /// A logging program has ended, so all that it was given is logged.
    fn end_logger(&mut self, pid: u32) -> bool {
        let found = self.containers.iter_mut().find_map(|(container, known)| {
            let mut processes = known.processes_mut();
            let (exec, process) =
                processes.find(|(_, process)| process.logger.is_some_and(|logger| logger.pid == pid))?;
            process.logger = None;
            Some((container.clone(), exec.to_owned()))
        });
        let Some((container, exec)) = found else { return false };
        self.finish_drained(&container, &exec);
        true
    }

    /// Tells the end of process `pid`; `false` when it is none that is known. An end that comes before the start has
    /// been told is kept for it.
    fn end_process(&mut self, pid: u32, exit: Exit) -> bool {
        let found = self.containers.iter_mut().find_map(|(container, known)| {
            let mut processes = known.processes_mut();
            let (exec, _) = processes.find(|(_, process)| process.pid == pid && process.exit().is_none())?;
            Some((container.clone(), exec.to_owned()))
        });
        let Some((container, exec)) = found else { return false };
        if !self.keep_exit_of(&container, &exec, exit) {
            self.ended(&container, &exec, exit);
        }
        true
    }

    /// Tells the ends that came before their starts.
    pub(super) fn settle_early(&mut self) {
        for (pid, exit) in std::mem::take(&mut self.early) {
            if !self.end_process(pid, exit) && self.has_programs() {
                self.early.push((pid, exit));
            }
        }
    }

    /// Tells the end of a process that came while it was being started.
    pub(super) fn ended_early(&mut self, container: &str, exec: &str, exit: Exit) {
        let process = self.containers.get(container).and_then(|known| known.process(exec));
        if process.is_some_and(|process| process.pid != 0 && process.exit().is_none()) {
            self.ended(container, exec, exit);
        }
    }

    fn ended(&mut self, container: &str, exec: &str, exit: Exit) {
        let Some(known) = self.containers.get_mut(container) else { return };
        if exec.is_empty() && known.shares_pid {
            // Without a pid namespace of its own the kernel lets the rest live on.
            let kill = KillRequest { id: container.into(), signal: 9, all: true, ..KillRequest::default() };
            self.by_itself(container, Method::Kill, kill.encode_to_vec());
        }
        if exec.is_empty() {
            self.cancel_verbs(container);
        }
        let is_last = self.starting(container).is_empty();
        let Some(known) = self.containers.get_mut(container) else { return };
        if exec.is_empty() && (known.has_running_execs() || !is_last) {
            known.held_exit = Some((exit, Instant::now() + HELD_LIMIT));
        } else {
            self.tell_exit(container, exec, exit);
        }
    }

    /// Serves a request that nobody sent.
    fn by_itself(&mut self, container: &str, method: Method, payload: Vec<u8>) {
        if let Answer::Now(Err(error)) = self.request(NOBODY, method, payload) {
            log::warn(format_args!("container {container}: {}", error.text()));
        }
    }

    fn tell_exit(&mut self, container: &str, exec: &str, exit: Exit) {
        let Some(known) = self.containers.get_mut(container) else { return };
        if exec.is_empty() {
            known.freeze = Freeze::Thawed;
        }
        let Some(process) = known.process_mut(exec) else { return };
        process.phase = Phase::Stopped(exit);
        let pid = process.pid;
        let (input, feeds) = (process.input.take(), std::mem::take(&mut process.feeds));
        let waits = std::mem::take(&mut process.waits);
        process.input_hold = None;
        let terminal = process.console.is_some();
        let outputs = process.outputs.clone();
        input.into_iter().chain(feeds).for_each(|input| self.end_stream(input));
        // What it wrote goes out before the news of its end does.
        if terminal {
            self.drain_outputs(container, exec);
        } else {
            outputs.into_iter().for_each(|output| self.catch_up(output));
        }
        if exec.is_empty() {
            self.unwatch_oom(container);
        }
        let id = if exec.is_empty() { container } else { exec };
        let event = TaskExit {
            container_id: container.into(),
            id: id.into(),
            pid,
            exit_status: exit.status,
            exited_at: Some(exit.timestamp()),
        };
        self.publish("/tasks/exit", &event);
        self.answer_waits(waits, exit);
        self.release_held(container, false);
    }

    /// Tells whoever waits for a process how it ended.
    pub(crate) fn answer_waits(&mut self, waits: Vec<ReplyTo>, exit: Exit) {
        let response = WaitResponse { exit_status: exit.status, exited_at: Some(exit.timestamp()) };
        for wait in waits {
            self.answer(wait, Ok(response.encode_to_vec()));
        }
    }

    /// Tells whoever waits for a process that it is gone without having run.
    pub(crate) fn disappoint_waits(&mut self, waits: Vec<ReplyTo>) {
        for wait in waits {
            self.answer(wait, Err(Error::not_found("process deleted")));
        }
    }

    /// Tells the end of init once no exec runs or is being started, or regardless.
    pub(crate) fn release_held(&mut self, container: &str, regardless: bool) {
        let is_last = self.starting(container).is_empty();
        let Some(known) = self.containers.get_mut(container) else { return };
        if (regardless || (is_last && !known.has_running_execs()))
            && let Some((exit, _)) = known.held_exit.take()
        {
            self.tell_exit(container, "", exit);
        }
    }

    pub(super) fn expire_exits(&mut self, now: Instant) {
        let due: Vec<String> = self
            .containers
            .iter()
            .filter(|(_, known)| known.held_exit.is_some_and(|(_, deadline)| deadline <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for container in due {
            log::warn(format_args!("container {container}: execs outlive it"));
            self.release_held(&container, true);
        }
    }

    /// Goes on with the delete of a process whose output is all out.
    pub(crate) fn finish_drained(&mut self, container: &str, exec: &str) {
        let Some(process) = self.containers.get_mut(container).and_then(|known| known.process_mut(exec))
        else {
            return;
        };
        if process.is_drained()
            && let Some(parked) = process.deleting.take()
        {
            self.delete_now(container, exec, parked.reply);
        }
    }

    pub(super) fn expire_deletes(&mut self, now: Instant) {
        let mut due = Vec::new();
        for (container, known) in &mut self.containers {
            for (exec, process) in known.processes_mut() {
                if process.deleting.is_some_and(|parked| parked.deadline <= now) {
                    due.push((container.clone(), exec.to_owned()));
                }
            }
        }
        for (container, exec) in due {
            log::warn(format_args!("failed to drain the output of {container} {exec} in time"));
            let Some(process) =
                self.containers.get_mut(&container).and_then(|known| known.process_mut(&exec))
            else {
                continue;
            };
            if let Some(logger) = process.logger.take() {
                logger.kill();
            }
            if let Some(parked) = process.deleting.take() {
                self.delete_now(&container, &exec, parked.reply);
            }
        }
    }
}
