//! The OCI runtime as a library: a container is planned, cloned, started, watched and removed in the caller's process.
//!
//! [`Create`] plans (pure), makes the cgroup and clones init; [`Container`] is what stands on disk afterwards;
//! [`Exec`] adds a process to one.
//!
//! Invariant: the caller is single threaded: the cloned child runs ordinary code until `execve(2)`.
//! Invariant: a verb that fails leaves nothing behind: no process, mount, cgroup or file.
//! Invariant: no process of the caller is ever waited for, only short-lived children that the verb itself made.
//! Invariant: a verb that depends on a process of the container is an [`ongoing::Ongoing`], so that a caller with other
//! things to do need not wait for a process that the container has stopped.

pub mod cgroup;
mod child;
pub mod container;
mod conversation;
pub mod create;
pub mod delete;
pub mod exec;
pub mod features;
pub mod hooks;
mod init;
pub mod ongoing;
mod salvage;
pub mod seccomp;
pub mod start;
pub mod state;
mod talk;
pub mod template;

pub use container::{Container, ContainerError};
pub use create::{Create, CreateError, Created, Stdio};
pub use exec::{Exec, ExecError, Started};
