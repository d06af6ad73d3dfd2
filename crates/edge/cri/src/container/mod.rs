//! Containers: create, start, stop, remove and look at them.
//!
//! ```text
//! create ──► record in the store, snapshot under the pod's lease, <root>/containers/<id>/{status,volumes}
//! start  ──► task in the pod's shim ──► exit: one task waits for the end, deletes the task, keeps how it ended
//! stop   ──► signal, then SIGKILL to all, then the cgroup by our own hand; whoever stops waits for exit's word
//! remove ──► task, snapshot, directories, and the record last: a remove that was torn is repeated by its record
//! ```
//!
//! Invariant: every verb is bounded whatever the shim does, but an `ExecSync` without a timeout whose caller waits.
//! Invariant: a failed `CreateContainer` leaves nothing; a failed `StartContainer` leaves a container that has ended.

mod capture;
mod checkpoint;
pub(crate) mod copy_log;
mod create;
mod exec_sync;
mod exit;
mod image_volume;
mod io_owner;
pub(crate) mod kill;
mod list;
mod log;
mod log_path;
mod pod;
mod process;
mod record;
mod recover;
mod remove;
mod save;
mod signal;
mod start;
mod status;
mod stop;
pub(crate) mod tap;
mod update;
mod volume;

use std::path::PathBuf;

use ::spec::{Error, Kind};
use model::Result;

pub(crate) use process::process_json;
pub(crate) use recover::names;
pub(crate) use remove::remove_dir;

use crate::Cri;

/// Whether a record is of a container that is no pod's sandbox.
pub(crate) fn is_container(stored: &model::container::Container) -> bool {
    stored.labels.get(record::KIND).is_some_and(|kind| kind == record::CONTAINER)
}

impl Cri {
    /// What of a container survives a reboot: how it stands, and volumes of its image.
    pub(crate) fn container_root(&self, id: &str) -> PathBuf {
        self.root_dir().join("containers").join(id)
    }

    /// What of a container does not survive a reboot: FIFOs.
    pub(crate) fn container_state(&self, id: &str) -> PathBuf {
        self.state_dir().join("containers").join(id)
    }
}

/// A failed system call on a file of ours.
fn failed(what: impl std::fmt::Display, error: &sys::Error) -> Error {
    let kind = match Kind::from_errno(error.errno()) {
        Kind::ResourceExhausted => Kind::ResourceExhausted,
        _ => Kind::Internal,
    };
    Error::new(kind, format!("{what}: {error}"))
}

/// A failed operation on a file of ours.
fn io_failed(what: impl std::fmt::Display, error: &std::io::Error) -> Error {
    let kind = match Kind::from_errno(error.raw_os_error().unwrap_or(0)) {
        Kind::ResourceExhausted => Kind::ResourceExhausted,
        _ => Kind::Internal,
    };
    Error::new(kind, format!("{what}: {error}"))
}

/// An id that nobody guesses: 64 hexadecimal digits.
///
/// # Errors
/// The system gives no random bytes.
pub(crate) fn new_id() -> Result<String> {
    use ring::rand::SecureRandom as _;
    use std::fmt::Write as _;
    let mut bytes = [0; 32];
    let filled = ring::rand::SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Error::internal("the system gave no random bytes"))?;
    let mut text = String::with_capacity(64);
    for byte in bytes {
        let _infallible = write!(text, "{byte:02x}");
    }
    Ok(text)
}
