//! Tasks: a container's running side, which lives in its shim.
//!
//! ```text
//! Tasks ──(namespace, id)──► Task ──► owner: deletes it, or cleans up after a shim that died
//!                              │
//!                              └─────► ttrpc ─────► shim (outlives the daemon)
//!
//! <state>/io.containerd.runtime.v2.task/<namespace>/<id>/   the bundle: config.json, rootfs/, log, bootstrap.json, ...
//! <root>/io.containerd.runtime.v2.task/<namespace>/<id>/    its persistent work directory
//! ```
//!
//! Invariant: no call to a shim lasts longer than its own deadline (`Wait` alone has none, and holds up nobody), and a
//! caller that leaves never stops a create or a delete half-way: the owner runs them.

mod bootstrap;
mod bundle;
mod create;
mod deadline;
mod end;
mod engine;
mod launch;
mod log;
mod owner;
mod queue;
mod registry;
mod reload;
mod sealed;
mod task;
mod tasks;
mod ttrpc;
mod waits;

use std::path::PathBuf;

pub use deadline::Deadlines;
pub use model::task::{Create, Exit, Stdio};
pub use task::Task;
pub use tasks::Tasks;

/// Where tasks live and how their shims are started.
#[derive(Clone, Debug)]
pub struct Config {
    /// The daemon's persistent directory.
    pub root: PathBuf,
    /// The daemon's volatile directory.
    pub state: PathBuf,
    /// Where shims make their sockets.
    pub socket_dir: PathBuf,
    /// The daemon's gRPC socket.
    pub grpc_address: String,
    /// The daemon's ttrpc socket, to which shims send events.
    pub ttrpc_address: String,
    /// The daemon's own program; shims are looked for beside it first.
    pub program: PathBuf,
    /// Whether shims shall log more.
    pub debug: bool,
    /// Environment added for shims, as `NAME=value`.
    pub env: Vec<String>,
    /// How long calls to shims may take.
    pub deadlines: Deadlines,
}
