//! A verb of the runtime library that is under way.

use std::cell::RefCell;
use std::rc::Rc;

use runtime::cgroup::{Freezing, Killing};
use runtime::create::Creation;
use runtime::delete::Deletion;
use runtime::exec::Launch;
use runtime::ongoing::{Ongoing, Wait};
use runtime::start::Start;
use spec::error::{Error, HasKind, Kind};

use super::inprocess::{Kept, failed};
use super::{DriverError, Outcome};

/// A verb under way; it never waits.
#[derive(Debug)]
pub struct Verb {
    work: Work,
    kept: Rc<RefCell<Kept>>,
}

/// What is under way.
#[derive(Debug)]
pub(super) enum Work {
    Create(Box<Creation>),
    Start(Box<Start>),
    Exec(Box<Launch>),
    Delete(Box<Deletion>),
    Kill(Killing),
    Pause(Freezing),
}

impl Verb {
    pub(super) fn new(work: Work, kept: Rc<RefCell<Kept>>) -> Self {
        Self { work, kept }
    }

    /// The process that it makes, as far as that is known.
    pub fn pid(&self) -> Option<u32> {
        let pid = match &self.work {
            Work::Create(creation) => creation.pid(),
            Work::Exec(launch) => launch.pid(),
            Work::Start(_) | Work::Delete(_) | Work::Kill(_) | Work::Pause(_) => None,
        };
        pid.map(i32::cast_unsigned)
    }

    /// Signals the process that it starts.
    ///
    /// # Errors
    /// There is none, or none any more.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        match &self.work {
            Work::Exec(launch) => launch.signal(signal).map_err(|error| match error.kind() {
                Kind::InvalidArgument => Error::invalid(format_args!("signal {signal}")),
                _ => Error::not_found("process already finished"),
            }),
            _ => Err(Error::failed_precondition("process not created")),
        }
    }

    /// Gives the process up that it starts. Other verbs end by themselves.
    pub fn cancel(&mut self) {
        if let Work::Exec(launch) = &mut self.work {
            launch.cancel();
        }
    }
}

impl Ongoing for Verb {
    type Output = Result<Outcome, DriverError>;

    fn wait(&self) -> Wait<'_> {
        match &self.work {
            Work::Create(creation) => creation.wait(),
            Work::Start(start) => start.wait(),
            Work::Exec(launch) => launch.wait(),
            Work::Delete(deletion) => deletion.wait(),
            Work::Kill(killing) => killing.wait(),
            Work::Pause(freezing) => freezing.wait(),
        }
    }

    fn advance(&mut self) -> Option<Self::Output> {
        Some(match &mut self.work {
            Work::Create(creation) => creation.advance()?.map_err(failed).map(|created| {
                self.kept.borrow_mut().created = Some(created.container);
                Outcome { pid: created.pid.cast_unsigned(), console: created.console, processes: Vec::new() }
            }),
            Work::Exec(launch) => match launch.advance()? {
                Ok(started) => Ok(Outcome {
                    pid: started.pid.cast_unsigned(),
                    console: started.console,
                    processes: Vec::new(),
                }),
                Err(error) => {
                    // Only what has worked is used again.
                    self.kept.borrow_mut().entered = None;
                    Err(failed(error))
                }
            },
            Work::Start(start) => start.advance()?.map_err(failed).map(|()| Outcome::default()),
            Work::Delete(deletion) => deletion.advance()?.map_err(failed).map(|()| Outcome::default()),
            Work::Kill(killing) => killing.advance()?.map_err(failed).map(|()| Outcome::default()),
            Work::Pause(freezing) => freezing.advance()?.map_err(failed).map(|()| Outcome::default()),
        })
    }

    fn awaits(&self, pid: i32) -> bool {
        match &self.work {
            Work::Create(creation) => creation.awaits(pid),
            Work::Start(start) => start.awaits(pid),
            Work::Exec(launch) => launch.awaits(pid),
            Work::Delete(deletion) => deletion.awaits(pid),
            Work::Kill(_) | Work::Pause(_) => false,
        }
    }
}
