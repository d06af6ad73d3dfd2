//! What stays beside a pod's containers: the runc v2 shim, and the ttrpc that every shim speaks.
//!
//! The daemon's `task` crate uses [`ttrpc`] for its own, asynchronous, end of the wire; everything else here runs inside
//! `containerd-shim-runc-v2`, one thread with one event loop, so that `clone3` from it is safe and its memory stays small.
//!
//! Invariant: no async runtime, no gRPC, no thread.

pub mod ttrpc;
