//! The task service, versions 2 and 3: their messages are the same bytes, only the package differs.
//!
//! A verb is checked here, run by the container's driver, and completed here when the driver is done.

mod complete;
mod control;
mod create;
mod delete;
mod exec;
pub mod logs;
mod query;

use api::Message;
use spec::error::{Error, HasKind, Kind};

use crate::driver::DriverError;
use crate::process::{Container, Queued};
use crate::serve::{ReplyTo, Shim};
pub use create::Creating;

/// A method of the task service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// What a process is doing.
    State,
    /// A new container, its init waiting.
    Create,
    /// Lets init, or an exec, run.
    Start,
    /// Removes a process that has ended, with its container if it is init.
    Delete,
    /// Every process id.
    Pids,
    /// Holds every process still.
    Pause,
    /// Lets them go on.
    Resume,
    /// Not supported.
    Checkpoint,
    /// Signals a process, or all.
    Kill,
    /// Describes a further process.
    Exec,
    /// The size of a terminal.
    ResizePty,
    /// The end of a process's input.
    CloseIo,
    /// New limits.
    Update,
    /// Waits for the end of a process.
    Wait,
    /// Use of resources.
    Stats,
    /// Who serves, and the container's init.
    Connect,
    /// The end of the shim, once it has no containers.
    Shutdown,
    /// Whether the service of logs is there.
    Probe,
    /// A rotated log.
    Reopen,
    /// A listener to what a process writes.
    Attach,
}

/// What comes of a request.
#[derive(Debug)]
pub enum Answer {
    /// Its reply.
    Now(Result<Vec<u8>, Error>),
    /// A reply that is sent when it is there.
    Later,
}

impl From<Result<Vec<u8>, Error>> for Answer {
    fn from(result: Result<Vec<u8>, Error>) -> Self {
        Self::Now(result)
    }
}

/// A request that is either answered later (`Ok`) or refused.
type Parked = Result<(), Error>;

fn later(parked: Parked) -> Answer {
    match parked {
        Ok(()) => Answer::Later,
        Err(error) => Answer::Now(Err(error)),
    }
}

/// Finds the method that a request names.
///
/// # Errors
/// Another service, or no such method: `Unimplemented`, on which daemons try the older version.
pub fn method(service: &str, method: &str) -> Result<Method, Error> {
    match service {
        "containerd.task.v2.Task" | "containerd.task.v3.Task" => task_method(method),
        logs::SERVICE => logs::method(method),
        _ => Err(Error::new(Kind::Unimplemented, format!("service {service}"))),
    }
}

fn task_method(method: &str) -> Result<Method, Error> {
    Ok(match method {
        "State" => Method::State,
        "Create" => Method::Create,
        "Start" => Method::Start,
        "Delete" => Method::Delete,
        "Pids" => Method::Pids,
        "Pause" => Method::Pause,
        "Resume" => Method::Resume,
        "Checkpoint" => Method::Checkpoint,
        "Kill" => Method::Kill,
        "Exec" => Method::Exec,
        "ResizePty" => Method::ResizePty,
        "CloseIO" => Method::CloseIo,
        "Update" => Method::Update,
        "Wait" => Method::Wait,
        "Stats" => Method::Stats,
        "Connect" => Method::Connect,
        "Shutdown" => Method::Shutdown,
        other => return Err(Error::new(Kind::Unimplemented, format!("method {other}"))),
    })
}

impl Method {
    /// Whether it waits for the verbs before it on the same container.
    ///
    /// Signals and processes that are added wait for nothing: what is stuck must be killable. `added` says that the
    /// request is about a process that was added.
    fn takes_turns(self, added: bool) -> bool {
        match self {
            Self::Start | Self::Delete => !added,
            Self::Pause | Self::Resume | Self::Update => true,
            Self::Kill | Self::Exec | Self::Pids => false,
            Self::State | Self::Create | Self::Checkpoint | Self::ResizePty | Self::CloseIo => false,
            Self::Wait | Self::Stats | Self::Connect | Self::Shutdown => false,
            Self::Probe | Self::Reopen | Self::Attach => false,
        }
    }
}

impl Shim {
    /// Serves one request.
    pub(crate) fn request(&mut self, reply: ReplyTo, method: Method, payload: Vec<u8>) -> Answer {
        if method.takes_turns(false) {
            match self.queue_if_busy(reply, method, &payload) {
                Ok(false) => {}
                Ok(true) => return Answer::Later,
                Err(error) => return Answer::Now(Err(error)),
            }
        }
        let payload = payload.as_slice();
        match method {
            Method::State => self.state(payload).into(),
            Method::Create => later(self.create(reply, payload)),
            Method::Start => later(self.start(reply, payload)),
            Method::Delete => later(self.delete(reply, payload)),
            Method::Pids => later(self.pids(reply, payload)),
            Method::Pause => later(self.pause(reply, payload)),
            Method::Resume => later(self.resume(reply, payload)),
            Method::Checkpoint => self.checkpoint(payload).into(),
            Method::Kill => self.kill(reply, payload),
            Method::Exec => self.exec(payload).into(),
            Method::ResizePty => self.resize_pty(payload).into(),
            Method::CloseIo => self.close_io(payload).into(),
            Method::Update => later(self.update(reply, payload)),
            Method::Wait => self.wait(reply, payload),
            Method::Stats => self.stats(payload).into(),
            Method::Connect => self.connect(payload).into(),
            Method::Shutdown => self.shutdown(payload).into(),
            Method::Probe => Ok(empty()).into(),
            Method::Reopen => self.reopen_log(payload).into(),
            Method::Attach => self.attach_listener(payload).into(),
        }
    }

    /// Puts the request behind the verb that is under way on its container.
    fn queue_if_busy(&mut self, reply: ReplyTo, method: Method, payload: &[u8]) -> Result<bool, Error> {
        /// Field 1 of every request is the container's id, field 2 of some the exec's.
        #[derive(Clone, PartialEq, prost::Message)]
        struct Addressed {
            #[prost(string, tag = "1")]
            id: String,
            #[prost(bytes = "vec", tag = "2")]
            exec_id: Vec<u8>,
        }
        let Addressed { id, exec_id } = decode(payload)?;
        let Some(container) = self.containers.get_mut(&id).filter(|container| container.busy > 0) else {
            return Ok(false);
        };
        if !method.takes_turns(!exec_id.is_empty()) {
            return Ok(false);
        }
        if !Self::may_queue(container.queue.len()) {
            return Err(Error::worded(Kind::ResourceExhausted, format_args!("requests of container {id}")));
        }
        container.queue.push_back(Queued { reply, method, payload: payload.to_vec() });
        Ok(true)
    }

    /// The container `id`, once it is created.
    fn container(&mut self, id: &str) -> Result<&mut Container, Error> {
        let found = self.containers.get_mut(id).filter(|container| container.ready);
        found.ok_or_else(|| Error::not_found("container not created"))
    }
}

fn decode<M: Message + Default>(payload: &[u8]) -> Result<M, Error> {
    M::decode(payload).map_err(|error| Error::invalid(format_args!("request: {error}")))
}

/// The reply without content.
fn empty() -> Vec<u8> {
    Vec::new()
}

fn no_process(exec_id: &str) -> Error {
    Error::not_found(format_args!("process does not exist {exec_id}"))
}

/// A runtime's failure as containerd's shim words it.
///
/// The kind is `Unknown`, as there: a program that is "not found" must not read as a task that is not found.
fn runtime_failed(what: &str, error: DriverError) -> Error {
    let kind = match error {
        DriverError::Deadline { .. } => error.kind(),
        _ => Kind::Unknown,
    };
    Error::new(kind, format!("{what}: {}", Error::from(error).text()))
}
