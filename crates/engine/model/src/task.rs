//! Tasks: a container's running side, as whoever steers it sees it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use spec::{ContainerId, Namespace, Result};

use crate::Any;
use crate::snapshot::Mount;

/// Where a process's input comes from and its output goes: paths or URIs, empty for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    /// Standard input.
    pub stdin: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Whether all three are one terminal.
    pub terminal: bool,
}

/// What a task is created of.
#[derive(Clone, Debug)]
pub struct Create {
    /// The namespace of the container.
    pub namespace: Namespace,
    /// The container.
    pub id: ContainerId,
    /// The runtime's name, or the path of its shim.
    pub runtime: String,
    /// The container's options for that runtime.
    pub runtime_options: Option<Any>,
    /// Options of this task, which count instead of the container's.
    pub task_options: Option<Any>,
    /// The OCI runtime spec, as JSON.
    pub spec: Vec<u8>,
    /// What to mount as root file system.
    pub rootfs: Vec<Mount>,
    /// Input and output of the init.
    pub stdio: Stdio,
    /// A container whose task's shim runs this one too, as that of its pod; `None` starts one, or lets the runtime find
    /// the pod's.
    pub beside: Option<ContainerId>,
}

/// A further process of a task.
#[derive(Clone, Debug)]
pub struct Exec {
    /// Its id, unique in the task.
    pub id: String,
    /// The OCI process, as JSON.
    pub process: Vec<u8>,
    /// Its input and output.
    pub stdio: Stdio,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// What its process id was.
    pub pid: u32,
    /// Its exit status; 128 and the signal's number when a signal ended it.
    pub status: u32,
    /// When it ended.
    pub at: SystemTime,
}

/// Where a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Made, not started.
    Created,
    /// Running.
    Running,
    /// Frozen, or being frozen.
    Paused,
    /// Ended.
    Stopped,
    /// The shim does not say.
    Unknown,
}

/// A process as its shim tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Its process id on the host.
    pub pid: u32,
    /// Where it stands.
    pub phase: Phase,
    /// How it ended, if it has.
    pub exit: Option<Exit>,
}

/// Paths of fifos that get a copy of a process's output, and one that feeds its input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attach {
    /// Its standard input, if it has one.
    pub stdin: Option<PathBuf>,
    /// A copy of its standard output.
    pub stdout: Option<PathBuf>,
    /// A copy of its standard error.
    pub stderr: Option<PathBuf>,
}

/// Every task of the daemon.
#[async_trait]
pub trait Tasks: Send + Sync {
    /// Creates a task; answers the process id of its init. It ends whole even if this future is dropped.
    /// `AlreadyExists`; what failed, with everything taken back.
    async fn create(&self, create: Create) -> Result<u32>;

    /// One task. `NotFound` when there is none.
    fn get(&self, namespace: &Namespace, id: &str) -> Result<Arc<dyn Task>>;

    /// Every task of a namespace, by id.
    fn list(&self, namespace: &Namespace) -> Vec<Arc<dyn Task>>;

    /// The runtime's features document (OCI `features.md`) as JSON; runs the shim's program.
    async fn features(&self, runtime: &str, options: Option<Any>) -> Result<Option<Vec<u8>>>;
}

/// One task. `exec_id` is empty for its init. Every call has a deadline of its own but [`Task::wait`].
#[async_trait]
pub trait Task: Send + Sync {
    /// The id of its container.
    fn id(&self) -> &str;

    /// The process id of its init, as last heard.
    fn pid(&self) -> u32;

    /// Where a process stands. `NotFound` when the shim knows no such process or is gone.
    async fn state(&self, exec_id: &str) -> Result<State>;

    /// Starts the init or an exec; answers its process id.
    async fn start(&self, exec_id: &str) -> Result<u32>;

    /// Adds a process, not started yet.
    async fn exec(&self, exec: Exec) -> Result<()>;

    /// Signals a process, or all of the task. `NotFound` when it has ended.
    async fn kill(&self, exec_id: &str, signal: u32, all: bool) -> Result<()>;

    /// Tells a terminal its size.
    async fn resize(&self, exec_id: &str, width: u32, height: u32) -> Result<()>;

    /// Closes the standard input of a process.
    async fn close_stdin(&self, exec_id: &str) -> Result<()>;

    /// Freezes every process.
    async fn pause(&self) -> Result<()>;

    /// Thaws every process.
    async fn resume(&self) -> Result<()>;

    /// The process ids of everything in the container, on the host.
    async fn pids(&self) -> Result<Vec<u32>>;

    /// Changes the resources: an OCI `LinuxResources` as JSON in an Any.
    async fn update(&self, resources: Any, annotations: BTreeMap<String, String>) -> Result<()>;

    /// What the cgroup counted: `io.containerd.cgroups.v1.Metrics` or `.v2.Metrics`.
    async fn stats(&self) -> Result<Any>;

    /// Waits until a process has ended. `NotFound` when the shim knows no such process.
    async fn wait(&self, exec_id: &str) -> Result<Exit>;

    /// Deletes the task, which must have ended, with its bundle, and its shim if nothing else is in that.
    async fn delete(&self) -> Result<Exit>;

    /// Deletes an exec, which must have ended.
    async fn delete_exec(&self, exec_id: &str) -> Result<Exit>;

    /// Whether its shim writes CRI logs itself and can attach to a running process.
    fn writes_logs(&self) -> bool;

    /// Has the shim close its log and open it anew by its path, between two lines.
    async fn reopen_log(&self) -> Result<()>;

    /// Has the shim copy output to fifos from now on; a reader that is too slow is let go.
    async fn attach(&self, exec_id: &str, attach: Attach) -> Result<()>;
}
