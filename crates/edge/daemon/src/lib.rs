//! The daemon `containerd`: configuration, the static plugin table, one file per gRPC service, and the servers.
//!
//! ```text
//! main ─► cli ─► config ─► daemon: lock, engine, listeners, reload of shims, servers, READY
//!                                     │
//!          server/{grpc,ttrpc} ─► service/* ─► engine (store, snapshot, image, task)
//! ```
//!
//! Invariant: no state lives here but what is open; all that must survive is the engine's.

mod cgroup;
pub mod cli;
pub mod config;
mod cri;
pub mod daemon;
mod engine;
mod event;
mod explain;
mod lock;
pub mod logging;
mod losses;
mod memory;
mod metrics;
mod mirrors;
mod notify;
mod oci_hook;
mod orphans;
mod plugin;
mod publish;
mod recover;
mod request;
mod server;
mod service;
mod stream;
mod verifier;

/// The version that the daemon reports.
pub const VERSION: &str = spec::version::VERSION;

/// The revision that the daemon reports: what its builder named, else berth's version.
pub const REVISION: &str = spec::version::revision(option_env!("BERTH_REVISION"));
