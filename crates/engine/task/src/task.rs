//! One task: what its shim can be asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use api::berth::shim::v1 as stdio;
use api::containerd::task::v3 as wire;
use api::{Message, Timestamp};
use model::task::{Attach, Exit};
use shim::service::logs;
use spec::{Error, HasKind, Kind, Namespace};
use tokio::sync::{mpsc, oneshot, watch};

use crate::bootstrap::Endpoint;
use crate::bundle::Bundle;
use crate::deadline::{self, Deadlines};
use crate::log::Log;
use crate::owner::Command;
use crate::ttrpc::{CallError, Client};
use crate::waits::Waits;

/// An exit as a shim tells it.
pub(crate) fn exit(pid: u32, status: u32, at: Option<Timestamp>) -> Exit {
    let at = api::time(at.as_ref()).unwrap_or_else(SystemTime::now);
    Exit { pid, status, at }
}

/// A task and the connection to its shim.
#[derive(Debug)]
pub struct Task {
    bundle: Bundle,
    program: PathBuf,
    shim: Arc<Client>,
    endpoint: Endpoint,
    /// The version of the task service in use: the endpoint's, or an older one when the shim does not know that.
    version: AtomicI32,
    pid: AtomicU32,
    waits: Waits,
    owner: mpsc::Sender<Command>,
    ended: watch::Receiver<Option<Exit>>,
    deadlines: Deadlines,
    _log: Option<Log>,
}

/// What a task is made of.
pub(crate) struct Parts {
    pub bundle: Bundle,
    pub program: PathBuf,
    pub shim: Arc<Client>,
    pub endpoint: Endpoint,
    pub log: Option<Log>,
    pub owner: mpsc::Sender<Command>,
    pub ended: watch::Receiver<Option<Exit>>,
    pub deadlines: Deadlines,
}

/// Gives a method for each call that is passed on as it is.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $method:literal, $limit:ident, $request:ident -> $reply:ty;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// The shim's own; `DeadlineExceeded` when it does not answer, `NotFound` when it has ended.
            pub async fn $name(&self, request: wire::$request) -> Result<$reply, Error> {
                match self.call($method, Some(deadline::$limit), &request).await {
                    Ok(reply) => Ok(reply),
                    Err(error) => Err(self.failure(error).await),
                }
            }
        )*
    };
}

impl Task {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            bundle: parts.bundle,
            program: parts.program,
            shim: parts.shim,
            version: AtomicI32::new(parts.endpoint.version),
            endpoint: parts.endpoint,
            pid: AtomicU32::new(0),
            waits: Waits::default(),
            owner: parts.owner,
            ended: parts.ended,
            deadlines: parts.deadlines,
            _log: parts.log,
        }
    }

    pub(crate) fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    pub(crate) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn shim(&self) -> &Arc<Client> {
        &self.shim
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn waits(&self) -> &Waits {
        &self.waits
    }

    /// The id of its container.
    pub fn id(&self) -> &str {
        self.bundle.id.as_str()
    }

    /// The namespace of its container.
    pub fn namespace(&self) -> &Namespace {
        &self.bundle.namespace
    }

    /// The process id of its init, as last heard.
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    pub(crate) fn set_pid(&self, pid: u32) {
        if pid != 0 {
            self.pid.store(pid, Ordering::Relaxed);
        }
    }

    /// Calls a method of the shim's task service, in the newest version that the shim speaks.
    pub(crate) async fn call<Req: Message, Rep: Message + Default>(
        &self,
        method: &'static str,
        limit: Option<Duration>,
        request: &Req,
    ) -> Result<Rep, CallError> {
        let service = match self.version.load(Ordering::Relaxed) {
            2 => "containerd.task.v2.Task",
            _ => "containerd.task.v3.Task",
        };
        self.shim.call(service, method, self.bundle.namespace.as_str(), limit, request).await
    }

    /// Calls `method`, and again in the version before when the shim does not know this one.
    pub(crate) async fn call_any_version<Req: Message, Rep: Message + Default>(
        &self,
        method: &'static str,
        limit: Duration,
        request: &Req,
    ) -> Result<Rep, CallError> {
        match self.call(method, Some(limit), request).await {
            Err(error) if error.kind() == Kind::Unimplemented && self.version.load(Ordering::Relaxed) > 2 => {
                tracing::warn!(id = self.id(), %error, "downgrading the shim's task service");
                self.version.store(2, Ordering::Relaxed);
                self.call(method, Some(limit), request).await
            }
            answer => answer,
        }
    }

    /// Where a process stands. `exec_id` is empty for the task's init.
    ///
    /// # Errors
    /// `NotFound` when the shim knows no such process or is gone; `DeadlineExceeded` when it does not answer.
    pub async fn state(&self, exec_id: &str) -> Result<wire::StateResponse, Error> {
        let request = wire::StateRequest { id: self.id().into(), exec_id: exec_id.into() };
        let answer = self.call::<_, wire::StateResponse>("State", Some(self.deadlines.state), &request).await;
        match answer {
            Ok(state) => {
                if exec_id.is_empty() {
                    self.set_pid(state.pid);
                }
                Ok(state)
            }
            Err(CallError::Closed) => Err(Error::not_found(format_args!("task {}", self.id()))),
            Err(error) => Err(error.into()),
        }
    }

    /// What the cgroup counted.
    ///
    /// # Errors
    /// The shim's own; `DeadlineExceeded` when it does not answer, `NotFound` when it has ended.
    pub async fn stats(&self, request: wire::StatsRequest) -> Result<wire::StatsResponse, Error> {
        match self.call("Stats", Some(self.deadlines.stats), &request).await {
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.failure(error).await),
        }
    }

    /// What a failed call means to its caller. A connection that is closed because the task was deleted, or because
    /// its shim died and was cleaned up after, says that there is no such task.
    async fn failure(&self, error: CallError) -> Error {
        if !matches!(error, CallError::Closed) {
            return error.into();
        }
        // The owner ends the task; until then the task is there without a shim.
        match tokio::time::timeout(self.deadlines.cleanup, self.owner.closed()).await {
            Ok(()) => Error::not_found(format_args!("task {}", self.id())),
            Err(_) => error.into(),
        }
    }

    calls! {
        /// Starts the init or an extra process; answers its process id.
        start: "Start", CREATE, StartRequest -> wire::StartResponse;
        /// Adds a process, not started yet.
        exec: "Exec", DELETE, ExecProcessRequest -> ();
        /// Signals a process, or all of them.
        kill: "Kill", CALL, KillRequest -> ();
        /// Tells a terminal its size.
        resize: "ResizePty", CALL, ResizePtyRequest -> ();
        /// Closes the standard input of a process.
        close_io: "CloseIO", CALL, CloseIoRequest -> ();
        /// Freezes every process.
        pause: "Pause", CALL, PauseRequest -> ();
        /// Thaws every process.
        resume: "Resume", CALL, ResumeRequest -> ();
        /// Lists every process.
        pids: "Pids", CALL, PidsRequest -> wire::PidsResponse;
        /// Changes the resources.
        update: "Update", CALL, UpdateTaskRequest -> ();
        /// Writes a checkpoint.
        checkpoint: "Checkpoint", CREATE, CheckpointTaskRequest -> ();
        /// Deletes an extra process that has ended.
        delete_process: "Delete", DELETE, DeleteRequest -> wire::DeleteResponse;
    }

    /// Whether the shim writes CRI logs itself (`cri:///PATH?max_line=N` as output) and lets clients attach.
    pub fn writes_logs(&self) -> bool {
        self.endpoint.writes_logs
    }

    /// Has the shim go on in a new log at the log's path, between two lines.
    ///
    /// # Errors
    /// `FailedPrecondition` when its output goes to no log; `Unimplemented` when its shim writes none.
    pub async fn reopen_log(&self) -> Result<(), Error> {
        let request = stdio::ReopenRequest { id: self.id().into(), exec_id: String::new() };
        self.call_logs::<_, stdio::ReopenResponse>("Reopen", &request).await.map(drop)
    }

    /// Has the shim copy what a process writes to FIFOs, and what comes by one to its input. The caller has its end of
    /// each open already: those of the outputs for reading, that of the input for reading and writing.
    ///
    /// # Errors
    /// `FailedPrecondition` when its output goes to no log, it has no input, or it has ended; `InvalidArgument` for what
    /// is no FIFO.
    pub async fn attach(&self, exec_id: &str, attach: &Attach) -> Result<(), Error> {
        let path = |path: &Option<PathBuf>| -> Result<String, Error> {
            let Some(path) = path else { return Ok(String::new()) };
            let text = path.to_str().ok_or_else(|| Error::invalid(format_args!("path {path:?}")))?;
            Ok(text.to_owned())
        };
        let request = stdio::AttachRequest {
            id: self.id().into(),
            exec_id: exec_id.into(),
            stdout: path(&attach.stdout)?,
            stderr: path(&attach.stderr)?,
            stdin: path(&attach.stdin)?,
        };
        self.call_logs::<_, stdio::AttachResponse>("Attach", &request).await.map(drop)
    }

    async fn call_logs<Req: Message, Rep: Message + Default>(
        &self,
        method: &'static str,
        request: &Req,
    ) -> Result<Rep, Error> {
        if !self.writes_logs() {
            return Err(Error::unimplemented("the service of logs in this container's shim"));
        }
        let namespace = self.bundle.namespace.as_str();
        match self.shim.call(logs::SERVICE, method, namespace, Some(deadline::CALL), request).await {
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.failure(error).await),
        }
    }

    /// Waits until a process has ended. `exec_id` is empty for the task's init.
    ///
    /// # Errors
    /// `NotFound` when the shim knows no such process.
    pub async fn wait(self: &Arc<Self>, exec_id: &str) -> Result<Exit, Error> {
        match self.waits.wait(self, exec_id).await {
            // The shim died: its processes are killed as it is cleaned up after, and then this one has ended too.
            Err(error) if error.kind() == Kind::Unavailable => {
                let mut ended = self.ended.clone();
                let exit =
                    tokio::time::timeout(self.deadlines.cleanup * 2, ended.wait_for(Option::is_some)).await;
                match exit {
                    Ok(Ok(exit)) => exit.clone().ok_or(error),
                    // The owner has deleted it, and knew of no exit.
                    Ok(Err(_)) => Err(Error::not_found(format_args!("task {}", self.id()))),
                    Err(_) => Err(error),
                }
            }
            answer => answer,
        }
    }

    /// Deletes the task, which must have ended: its container, its bundle and its shim, if nothing else is in that.
    ///
    /// # Errors
    /// `FailedPrecondition` while it runs; the shim's own.
    pub async fn delete(&self) -> Result<Exit, Error> {
        let gone = |_| Error::not_found(format_args!("task {}", self.id()));
        let (reply, answer) = oneshot::channel();
        // The owner works on even if this future is dropped.
        self.owner.send(Command::Delete(reply)).await.map_err(|_| gone(()))?;
        answer.await.map_err(|_| gone(()))?
    }

    /// Has the owner remove what belongs to a task that its shim never made.
    pub(crate) async fn forget(&self) {
        // An owner that has ended did so by removing everything.
        let _ended = self.owner.send(Command::Forget).await;
    }
}
