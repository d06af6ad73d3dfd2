//! Linux, by descriptor: the only crate that may hold `unsafe` code.
//!
//! Every function takes and returns descriptors, sets `CLOEXEC` itself and fails with an [`Error`] that spells the
//! call as it was made. Nothing here knows what a container is.
//!
//! Invariant: paths from outside are walked only under a root descriptor ([`path`]).
//! Invariant: no thread is started, and nothing waits without a bound the caller gave.
#![allow(unsafe_code)]

pub mod bpf;
pub mod calls;
pub mod capability;
pub mod cgroup;
pub mod code;
pub mod core_scheduling;
pub mod error;
pub mod event;
pub mod exe;
pub mod fd;
pub mod heap;
pub mod identity;
pub mod inotify;
pub mod keyring;
pub mod memfd;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod path;
pub mod process;
pub mod procfs;
pub mod pty;
pub mod rlimit;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod xattr;

pub use error::{Error, Result};
