//! What stays beside a pod's containers: the runc v2 shim, and the ttrpc that every shim speaks.
//!
//! The daemon's `task` crate uses [`ttrpc`] for its own, asynchronous, end of the wire; everything else here runs inside
//! `containerd-shim-runc-v2`, one thread with one event loop, so that `clone3` from it is safe and its memory stays small.
//!
//! ```text
//! args -> bootstrap::start -- spawns --> serve (epoll) -> service (verbs) -> driver {inprocess | command}
//!                                          |-> stdio (copies)   |-> process (what is known)
//!                                          `-> publisher -> daemon's events service
//! ```
//!
//! Invariant: no async runtime, no gRPC, no thread.

pub mod args;
pub mod bootstrap;
pub mod cgroup;
pub mod driver;
pub mod log;
pub mod metrics;
pub mod options;
pub mod process;
pub mod rootfs;
pub mod serve;
pub mod service;
pub mod stdio;
pub mod ttrpc;
