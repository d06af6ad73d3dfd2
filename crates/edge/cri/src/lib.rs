//! Kubernetes' Container Runtime Interface (`runtime.v1`) over the engine.
//!
//! ```text
//! service/{runtime,image} ─► pod/* container/* image/* stats/* ─► engine (traits of model), net (CNI), nri
//!                     │              │
//!                     │              └─► spec/* cdi/* (pure: what the kubelet asked ─► an OCI runtime spec)
//!                     └─► stream/*: exec, attach and port-forward over SPDY and WebSocket
//! state/*: what is known of pods and containers; recover/*: how it is known again after a restart
//! ```
//!
//! Everything lives in containerd's namespace `k8s.io`.
//!
//! Invariant: a verb that was begun ends whole, whether or not its caller stays; every verb can be repeated.
//! Invariant: what the kubelet says about names, ids and paths is checked here, before it names anything on the host.

mod cdi;
pub mod config;
mod container;
mod engine;
mod event;
mod fault;
mod image;
mod nri;
mod pod;
mod recover;
pub mod service;
mod spec;
pub(crate) mod state;
mod stats;
mod status;
mod stream;

pub use config::Config;
pub use engine::{Cri, Engine, NAMESPACE, Trouble};
pub use image::configured_login;

/// Now, in nanoseconds since 1970, as this interface tells times.
pub(crate) fn now_nanos() -> i64 {
    nanos(std::time::SystemTime::now())
}

/// A time in nanoseconds since 1970; 0 for one before.
pub(crate) fn nanos(at: std::time::SystemTime) -> i64 {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
