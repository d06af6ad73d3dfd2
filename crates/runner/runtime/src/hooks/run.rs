//! The hooks of one point, one after the other, without waiting for any.
//!
//! Invariant: a hook that outlives its time is killed, and its end is taken before the run is over.

use std::collections::VecDeque;
use std::io::{PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use spec::runtime::{Hook, State};

use super::{HookError, Point, Reason, Surroundings, limit_of, start, system};
use crate::child::KILL_TIMEOUT;
use crate::ongoing::{Ongoing, Wait, after};

/// How much of a hook's output is kept.
const TAIL_BYTES: usize = 4096;

/// How much of a hook's output is read before the caller may do something else, in pieces of [`TAIL_BYTES`]: as much
/// as a pipe holds.
const PIECES: usize = 16;

/// How often a hook that is silent is looked at, should something that it started hold its output open.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A run of hooks, under way.
#[derive(Debug)]
pub struct Run {
    hooks: Vec<Hook>,
    /// What each gets on stdin.
    document: Vec<u8>,
    /// The same as files, once a hook, where they were made beforehand.
    prepared: VecDeque<OwnedFd>,
    around: Surroundings,
    point: Point,
    /// Number of the current one.
    number: usize,
    current: Option<Current>,
}

/// The hook that runs.
#[derive(Debug)]
struct Current {
    child: Child,
    /// `None` where a seccomp profile does not allow one.
    pidfd: Option<OwnedFd>,
    output: PipeReader,
    is_open: bool,
    /// The end of the output.
    tail: Vec<u8>,
    within: Duration,
    deadline: Instant,
    is_killed: bool,
    /// When it is looked at in any case.
    next: Instant,
}

impl Run {
    /// The hooks of `point`, with `state` on their stdin; none has been started.
    pub fn new(hooks: Vec<Hook>, state: &State, point: Point, around: Surroundings) -> Self {
        let document = match hooks.is_empty() {
            true => Vec::new(),
            false => serde_json::to_vec(state).unwrap_or_default(),
        };
        Self { hooks, document, prepared: VecDeque::new(), around, point, number: 0, current: None }
    }

    /// Makes the files that the hooks read from, for a caller that is about to lose the right to.
    pub(crate) fn prepare(&mut self) -> Result<(), HookError> {
        for number in 0..self.hooks.len() {
            let file = sys::memfd::holding(&self.document);
            let failed = |error: sys::Error| HookError { point: self.point, number, reason: error.into() };
            self.prepared.push_back(file.map_err(failed)?);
        }
        Ok(())
    }

    /// Sets what the hooks find around them.
    pub(crate) fn within(self, around: Surroundings) -> Self {
        Self { around, ..self }
    }

    /// No hooks.
    pub(crate) fn none(point: Point) -> Self {
        Self {
            hooks: Vec::new(),
            document: Vec::new(),
            prepared: VecDeque::new(),
            around: Surroundings::of_caller(),
            point,
            number: 0,
            current: None,
        }
    }

    fn start(&mut self, number: usize) -> Result<Option<Current>, Reason> {
        let Some(hook) = self.hooks.get(number) else { return Ok(None) };
        let document = match self.prepared.pop_front() {
            Some(prepared) => prepared,
            None => sys::memfd::holding(&self.document)?,
        };
        Current::start(hook, document, &self.around).map(Some)
    }
}

impl Ongoing for Run {
    type Output = Result<(), HookError>;

    fn wait(&self) -> Wait<'_> {
        match &self.current {
            Some(current) if current.is_open => {
                let until = current.deadline.min(current.next);
                Wait { fd: Some(current.output.as_fd()), until }
            }
            Some(Current { pidfd: Some(pidfd), deadline, .. }) => {
                Wait { fd: Some(pidfd.as_fd()), until: *deadline }
            }
            Some(current) => Wait { fd: None, until: current.deadline.min(current.next) },
            None => Wait { fd: None, until: Instant::now() },
        }
    }

    fn advance(&mut self) -> Option<Self::Output> {
        loop {
            let advanced = match &mut self.current {
                Some(current) => current.advance(),
                None => match self.start(self.number) {
                    Ok(None) => return Some(Ok(())),
                    Ok(started) => {
                        self.current = started;
                        Ok(None)
                    }
                    Err(reason) => Err(reason),
                },
            };
            match advanced {
                Ok(None) => return None,
                Ok(Some(())) => {
                    self.current = None;
                    self.number += 1;
                }
                Err(reason) => {
                    self.current = None;
                    return Some(Err(HookError { point: self.point, number: self.number, reason }));
                }
            }
        }
    }

    fn awaits(&self, pid: i32) -> bool {
        self.current.as_ref().is_some_and(|current| i64::from(current.child.id()) == i64::from(pid))
    }
}

impl Current {
    fn start(hook: &Hook, document: OwnedFd, around: &Surroundings) -> Result<Self, Reason> {
        let within = limit_of(hook);
        let (mut child, output) = start(hook, document, around)?;
        let watched = rustix::io::ioctl_fionbio(&output, true)
            .map_err(|errno| sys::Error::new(errno.raw_os_error(), "ioctl(FIONBIO)"));
        watched.inspect_err(|_| {
            let _ = child.kill(); // what cannot be watched does not run
            let _ = child.wait(); // a program of the host that was killed
        })?;
        // Hooks of the container run under its seccomp profile, which may not know the call.
        let pidfd = sys::process::pidfd(child.id().cast_signed()).ok();
        let deadline = after(within);
        let next = after(POLL_INTERVAL);
        let (is_open, tail) = (true, Vec::new());
        Ok(Self { child, pidfd, output, is_open, tail, within, deadline, is_killed: false, next })
    }

    /// Reads what has come and sees whether the hook has ended.
    fn advance(&mut self) -> Result<Option<()>, Reason> {
        self.read();
        if let Some(status) = self.child.try_wait().map_err(|error| system(&error, "waitid"))? {
            // What it wrote before its end; others may hold the output open and write on.
            self.read();
            return match (self.is_killed, status.success()) {
                (true, _) => Err(Reason::Timeout(self.within)),
                (false, true) => Ok(Some(())),
                (false, false) => Err(Reason::Failed { status: describe(status), output: text(&self.tail) }),
            };
        }
        let now = Instant::now();
        self.next = after(POLL_INTERVAL);
        if now < self.deadline {
            return Ok(None);
        }
        if self.is_killed {
            return Err(Reason::Timeout(self.within));
        }
        let _ = self.child.kill(); // it may have ended just now
        self.is_killed = true;
        self.deadline = after(KILL_TIMEOUT);
        Ok(None)
    }

    /// Reads what there is, within bounds, and keeps the end of it.
    fn read(&mut self) {
        let mut buffer = [0; TAIL_BYTES];
        for _ in 0..PIECES {
            if !self.is_open {
                return;
            }
            match self.output.read(&mut buffer) {
                Ok(0) => self.is_open = false,
                Ok(count) => {
                    self.tail.extend_from_slice(&buffer[..count]);
                    let excess = self.tail.len().saturating_sub(TAIL_BYTES);
                    self.tail.drain(..excess);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => self.is_open = false,
            }
        }
    }
}

fn text(tail: &[u8]) -> String {
    String::from_utf8_lossy(tail).trim_end().to_owned()
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {}", sys::signal::words(signal)),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use spec::runtime::Status;

    use super::*;

    fn state() -> State {
        State {
            oci_version: "1.3.0".into(),
            id: "one".into(),
            status: Status::Created,
            pid: 7,
            bundle: "/b".into(),
            annotations: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn a_run_of_hooks_does_not_wait_for_a_hook() {
        let dir = tempfile::tempdir().unwrap();
        let gate = dir.path().join("gate");
        sys::fd::make_fifo(&gate, 0o600).unwrap();
        let script = format!("cat {}", gate.display());
        let args = vec!["sh".into(), "-c".into(), script];
        let hook = Hook { path: "/bin/sh".into(), args, ..Hook::default() };
        let mut run =
            Run::new(vec![hook.clone(), hook], &state(), Point::Poststart, Surroundings::of_caller());
        for _ in 0..2 {
            assert!(run.advance().is_none());
            let pid = run.current.as_ref().unwrap().child.id().cast_signed();
            assert!(run.awaits(pid) && !run.awaits(pid - 1));
            // The hook, which reads, is the only thing that this waits for.
            drop(std::fs::File::options().write(true).open(&gate).unwrap());
            let pidfd = run.current.as_ref().unwrap().pidfd.as_ref().unwrap().try_clone().unwrap();
            assert!(sys::process::ended(pidfd.as_fd(), Duration::from_secs(60)).unwrap());
        }
        assert!(run.advance().unwrap().is_ok());
    }

    #[test]
    fn hook_without_a_pidfd_is_waited_for() {
        let args = vec!["sh".into(), "-c".into(), "exec >&- 2>&-; read line; exit 3".into()];
        let hook = Hook { path: "/bin/sh".into(), args, ..Hook::default() };
        let mut run = Run::new(vec![hook], &state(), Point::Poststop, Surroundings::of_caller());
        run.prepare().unwrap();
        assert!(run.advance().is_none());
        run.current.as_mut().unwrap().pidfd = None;
        let error = crate::ongoing::complete(run).unwrap_err();
        assert_eq!(error.to_string(), "error running poststop hook #0: exit status 3, output: ");
    }

    #[test]
    fn a_hook_that_floods_its_output_is_read_within_bounds() {
        let args = vec!["sh".into(), "-c".into(), "while :; do echo xxxxxxxxxxxxxxxx; done".into()];
        let hook = Hook { path: "/bin/sh".into(), args, timeout: Some(1), ..Hook::default() };
        let run = Run::new(vec![hook], &state(), Point::Poststop, Surroundings::of_caller());
        let error = crate::ongoing::complete(run).unwrap_err();
        assert_eq!(
            error.to_string(),
            "error running poststop hook #0: hook ran past specified timeout of 1.0s"
        );
    }
}
