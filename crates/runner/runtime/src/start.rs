//! A start under way: the program has been let run, and what came of it is awaited.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use spec::runtime::Status;

use crate::container::{Container, ContainerError};
use crate::hooks::{self, Point, Surroundings};
use crate::ongoing::{Ongoing, Wait, after};
use crate::talk::{Heard, Script, Talk, Word};

/// How long a start waits to hear whether the program was executed.
const EXECUTION_TIMEOUT: Duration = Duration::from_secs(2);
const SIGKILL: i32 = 9;

/// A container whose program has been let run.
#[derive(Debug)]
pub struct Start {
    /// The talk with init, until the program runs.
    talk: Option<Talk>,
    deadline: Instant,
    /// Poststart hooks.
    hooks: hooks::Run,
    /// Init, which is killed when a hook fails.
    init: Option<OwnedFd>,
}

impl Container {
    /// Lets the user's program run; then poststart hooks.
    ///
    /// In the process that created the container this also reports a program that cannot be executed; from any other
    /// process the container just ends in that case.
    pub fn start(&mut self) -> Result<(), ContainerError> {
        crate::ongoing::complete(self.begin_start()?)
    }

    /// Lets the user's program run; the rest is for [`Start`] to see through.
    pub fn begin_start(&mut self) -> Result<Start, ContainerError> {
        match self.status()? {
            Status::Created => {}
            status => return Err(ContainerError::State { verb: "start", status }),
        }
        let hooks = self.record().hooks();
        let init = if hooks.poststart.is_empty() { None } else { self.init()? };
        self.open_gate()?;
        let talk = self.take_talk();
        // Init runs startContainer hooks first.
        let within = EXECUTION_TIMEOUT.saturating_add(hooks::time_limit(&hooks.start_container));
        let state = self.record().state(Status::Running);
        let hooks = hooks::Run::new(hooks.poststart, &state, Point::Poststart, Surroundings::of_caller());
        Ok(Start { talk, deadline: after(within), hooks, init })
    }
}

impl Start {
    /// Whether the program runs, or nothing has been heard of it for so long that it must.
    fn has_executed(&mut self) -> Option<Result<(), ContainerError>> {
        let Some(talk) = &self.talk else { return Some(Ok(())) };
        let result = match talk.poll(false) {
            Ok(Heard::Nothing) if Instant::now() < self.deadline => return None,
            Ok(Heard::Word(word)) if Script::failure().take(&word).is_ok() => match word {
                Word::Failed(_, text) => Err(ContainerError::Program(text)),
                _ => Ok(()),
            },
            // What has been taken over by the container does not hold up its start.
            _ => Ok(()),
        };
        self.talk = None;
        Some(result)
    }
}

impl Ongoing for Start {
    type Output = Result<(), ContainerError>;

    fn wait(&self) -> Wait<'_> {
        match &self.talk {
            Some(talk) => Wait { fd: Some(talk.as_fd()), until: self.deadline },
            None => self.hooks.wait(),
        }
    }

    fn advance(&mut self) -> Option<Self::Output> {
        if let Err(error) = self.has_executed()? {
            return Some(Err(error));
        }
        let hooked = self.hooks.advance()?;
        Some(hooked.map_err(|error| {
            // As runc does: a container whose start is not complete does not run.
            if let Some(init) = &self.init {
                let _ = sys::process::signal(init.as_fd(), SIGKILL);
            }
            error.into()
        }))
    }

    fn awaits(&self, pid: i32) -> bool {
        self.hooks.awaits(pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(talk: Talk) -> Start {
        let hooks = hooks::Run::none(Point::Poststart);
        Start { talk: Some(talk), deadline: after(Duration::from_secs(3600)), hooks, init: None }
    }

    #[test]
    fn a_start_does_not_wait_for_an_init_that_is_stopped() {
        let (ours, theirs) = Talk::pair().unwrap();
        let mut start = start(ours);
        assert!(start.advance().is_none());
        assert!(start.wait().fd.is_some());
        theirs.say(&Word::Failed(8, "exec format error".into())).unwrap();
        let error = start.advance().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "unable to start container process: exec format error");
    }

    #[test]
    fn a_start_is_done_when_the_program_has_begun_or_the_time_is_up() {
        let (ours, theirs) = Talk::pair().unwrap();
        drop(theirs);
        assert!(start(ours).advance().unwrap().is_ok());
        let (ours, _theirs) = Talk::pair().unwrap();
        let mut late = start(ours);
        late.deadline = Instant::now();
        assert!(late.advance().unwrap().is_ok());
    }
}
