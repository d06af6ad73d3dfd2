//! The parent's side of the talk with a new process, a message at a time and without waiting.
//!
//! Invariant: a process that is silent past its deadline, or says what it should not, is a [`Failure`]; whoever gets
//! one kills it.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::ongoing::{Wait, after};
use crate::talk::{BAD_MESSAGE, Heard, Script, Talk, Unexpected, Word};

/// A new process and the talk with it.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) child: Child,
    talk: Talk,
    script: Script,
    /// What the process is to do until its next message.
    step: &'static str,
    deadline: Instant,
}

/// What came of the process.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message. A process named by [`Word::Sibling`] or [`Word::Process`] has taken the place of the stage already.
    Word(Word),
    /// It has executed its program, or ended.
    End,
}

/// Why the conversation is over.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The process did not get so far in time.
    Timeout {
        /// What it should have done.
        step: &'static str,
    },
    /// It sent a message that does not belong there, by its name.
    Unexpected(&'static str),
    /// A system call of the parent failed.
    System(sys::Error),
}

impl Conversation {
    /// The talk with `child`, which says what `script` allows and has `within` to do `step`.
    pub(crate) fn new(
        child: Child,
        talk: Talk,
        script: Script,
        step: &'static str,
        within: Duration,
    ) -> Self {
        Self { child, talk, script, step, deadline: after(within) }
    }

    /// The next message, if it has come.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, Failure> {
        let word = match self.talk.poll(self.script.takes_terminal()) {
            Ok(Heard::Word(word)) => word,
            Ok(Heard::End) => return Ok(Some(Event::End)),
            Ok(Heard::Nothing) if Instant::now() < self.deadline => return Ok(None),
            Ok(Heard::Nothing) => return Err(Failure::Timeout { step: self.step }),
            Err(error) if error.is(BAD_MESSAGE) => return Err(Failure::Unexpected("malformed")),
            Err(error) => return Err(Failure::System(error)),
        };
        self.script.take(&word).map_err(|Unexpected(name)| Failure::Unexpected(name))?;
        if let Word::Sibling(pid) | Word::Process(pid) = &word {
            self.child.replace(*pid).map_err(Failure::System)?;
        }
        Ok(Some(Event::Word(word)))
    }

    /// Names what the process is to do until its next message.
    pub(crate) fn expect(&mut self, step: &'static str) {
        self.step = step;
    }

    /// Gives it `within` from now for its next message.
    pub(crate) fn extend(&mut self, within: Duration) {
        self.deadline = after(within);
    }

    /// Lets the process go on.
    pub(crate) fn go(&self) -> Result<(), sys::Error> {
        self.talk.go()
    }

    /// Lets the process go on with the mount `tree`.
    pub(crate) fn go_with(&self, tree: std::os::fd::BorrowedFd<'_>) -> Result<(), sys::Error> {
        self.talk.go_with(tree)
    }

    pub(crate) fn wait(&self) -> Wait<'_> {
        Wait { fd: Some(self.talk.as_fd()), until: self.deadline }
    }

    /// The process, killed. What a stage has made without naming it finds the talk closed, and ends too.
    pub(crate) fn kill(mut self) -> Child {
        self.child.kill();
        if self.child.is_stage()
            && let Ok(Heard::Word(Word::Sibling(pid) | Word::Process(pid))) = self.talk.poll(false)
            && self.child.replace(pid).is_ok()
        {
            self.child.kill();
        }
        self.child
    }

    /// The process and the talk, once nothing more is to be said before it runs.
    pub(crate) fn into_parts(self) -> (Child, Talk) {
        (self.child, self.talk)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn silent(script: Script, within: Duration) -> (std::process::Child, Conversation, Talk) {
        let process = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let pid = process.id() as i32;
        let (ours, theirs) = Talk::pair().unwrap();
        let child = Child::new(pid, sys::process::pidfd(pid).unwrap(), 1);
        (process, Conversation::new(child, ours, script, "do its part", within), theirs)
    }

    fn end(mut process: std::process::Child, conversation: Conversation) {
        drop(conversation.kill());
        // Whoever was first has taken the status.
        let _ = process.wait();
    }

    #[test]
    fn a_silent_process_fails_at_its_deadline_and_the_step_is_named() {
        let (process, mut conversation, _theirs) = silent(Script::readiness(), Duration::from_secs(3600));
        assert!(matches!(conversation.next(), Ok(None)));
        conversation.extend(Duration::ZERO);
        assert!(matches!(conversation.next(), Err(Failure::Timeout { step: "do its part" })));
        end(process, conversation);
    }

    #[test]
    fn a_message_out_of_turn_is_a_failure_with_its_name() {
        let (process, mut conversation, theirs) = silent(Script::readiness(), Duration::from_secs(3600));
        theirs.say(&Word::Ready).unwrap();
        theirs.say(&Word::Ready).unwrap();
        assert!(matches!(conversation.next(), Ok(Some(Event::Word(Word::Ready)))));
        assert!(matches!(conversation.next(), Err(Failure::Unexpected("ready"))));
        end(process, conversation);
    }

    #[test]
    fn a_sibling_that_is_no_child_is_a_failure() {
        let script = Script::readiness().with_stage(false);
        let (process, mut conversation, theirs) = silent(script, Duration::from_secs(3600));
        theirs.say(&Word::Sibling(1)).unwrap();
        assert!(matches!(conversation.next(), Err(Failure::System(_))));
        end(process, conversation);
    }

    #[test]
    fn a_sibling_takes_the_place_of_its_stage() {
        let script = Script::readiness().with_stage(false);
        let (mut stage, mut conversation, theirs) = silent(script, Duration::from_secs(3600));
        let sibling = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let pid = sibling.id() as i32;
        theirs.say(&Word::Sibling(pid)).unwrap();
        assert!(matches!(conversation.next(), Ok(Some(Event::Word(Word::Sibling(_))))));
        assert_eq!(conversation.child.pid(), pid);
        end(sibling, conversation);
        // The stage has nothing left to do, and was killed with it.
        let _ = stage.wait();
    }
}
