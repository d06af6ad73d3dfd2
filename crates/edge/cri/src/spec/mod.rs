//! What the kubelet asked for, as an OCI runtime spec.
//!
//! ```text
//! host ── read once ──────────────────────────────┐
//! user::Accounts ── once an image ────────────────┤
//! pod::facts, container::facts ── each request ───┼─► pod::build, container::build ─► ::spec::runtime::Spec
//! v1 configs, handler, image config ──────────────┘   (pure)
//! ```
//!
//! Building opens no file and asks the kernel nothing: what a rule depends on is read beforehand into facts, so every
//! rule has a test without a container.
//!
//! Invariant: what an image says can choose a user, a program, its environment and its directory, and nothing else; a
//! user that it names is one of the image's own, or the request fails.
//! Invariant: a field that this module cannot honour is an error and not left out.

pub mod annotation;
mod apparmor;
pub mod cgroup;
mod class;
pub mod container;
mod device;
mod host;
mod mount;
pub mod pod;
mod process;
pub mod resources;
mod security;
pub mod selinux;
pub mod user;
pub mod userns;

use std::path::PathBuf;

use ::spec::{Error, Kind};
pub use host::Host;
use node::read_file;
pub use resources::merge_resources;
pub use userns::UserNamespace;

/// The files of a pod that its containers see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFiles {
    /// `/etc/hostname`.
    pub hostname: PathBuf,
    /// `/etc/hosts`.
    pub hosts: PathBuf,
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// `/dev/shm`, when the pod does not use the host's.
    pub shm: PathBuf,
}

/// The SELinux labels of a container; empty where SELinux is off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Of its processes.
    pub process: String,
    /// Of its files.
    pub mount: String,
}

/// A system call that failed over `what`.
fn failed(what: impl std::fmt::Display, error: &sys::Error) -> Error {
    Error::new(Kind::from_errno(error.errno()), format!("{what}: {error}"))
}
