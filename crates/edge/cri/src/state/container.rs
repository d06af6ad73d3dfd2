//! A container.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use ::spec::runtime::Process;
use api::runtime::v1;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};

use super::Registered;

/// What a container was made of; kept as JSON with its record in the store.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerRecord {
    /// 64 hexadecimal digits.
    pub id: String,
    /// `name_pod_namespace_uid_attempt`.
    pub name: String,
    /// The id of its pod.
    pub pod_id: String,
    /// What the kubelet asked for.
    pub config: v1::ContainerConfig,
    /// The id of its image: its config's digest.
    pub image_id: String,
    /// Its image by a digest of its manifest, as the status tells it.
    pub image_ref: String,
    /// Its image by a name with a tag, as the status tells it.
    pub image_name: String,
    /// Where its log is; none when it is discarded.
    pub log_path: Option<PathBuf>,
    /// Its stop signal: by name or number, as the image or the kubelet says.
    pub stop_signal: String,
    /// The driver and key of its root file system.
    pub snapshotter: String,
    /// The SELinux label of its processes.
    pub process_label: String,
}

/// Where a container stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Made, never started.
    #[default]
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// Its task was lost, or its shim does not answer.
    Unknown,
}

/// What changes in a container's life; kept as JSON in `<root>/containers/<id>/status`, in containerd's words.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerState {
    /// `v1`
    pub version: String,
    /// The process id of its init; 0 when it has none.
    pub pid: u32,
    /// Times in nanoseconds since 1970; 0 for not yet.
    pub created_at: i64,
    /// When it was started.
    pub started_at: i64,
    /// When it ended.
    pub finished_at: i64,
    /// How it ended.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `Unknown`.
    pub reason: String,
    /// More of the same, for people.
    pub message: String,
    /// The limits as they are now.
    pub resources: Option<v1::ContainerResources>,
    /// Whether nobody knows how it stands.
    #[serde(skip)]
    pub unknown: bool,
    /// Whether it is being removed: it cannot be started any more.
    #[serde(skip)]
    pub removing: bool,
}

impl ContainerState {
    /// Where it stands.
    pub fn phase(&self) -> Phase {
        match self {
            _ if self.unknown => Phase::Unknown,
            _ if self.finished_at != 0 => Phase::Exited,
            _ if self.started_at != 0 => Phase::Running,
            _ => Phase::Created,
        }
    }
}

/// A container.
#[derive(Debug)]
pub struct Container {
    /// What it was made of.
    pub record: ContainerRecord,
    /// Where it stands.
    pub state: watch::Sender<ContainerState>,
    /// Held by whoever changes it.
    pub turn: Mutex<()>,
    /// Held while its state changes in memory and on disk.
    pub saving: std::sync::Mutex<()>,
    /// Whether its stop signal was sent: the kubelet repeats its wish, and a process hears it once.
    pub signaled: AtomicBool,
    /// Whether a task waits for its end.
    pub watched: AtomicBool,
    /// What its init runs as, once somebody asked.
    pub process: OnceLock<Arc<Process>>,
    /// Its log, where the daemon writes it.
    pub log: OnceLock<crate::container::copy_log::Log>,
    /// Who is attached, where the daemon writes its log.
    pub taps: Arc<crate::container::tap::Taps>,
}

impl Container {
    /// A container of `record` in `state`.
    pub fn new(record: ContainerRecord, state: ContainerState) -> Self {
        Self {
            record,
            state: watch::Sender::new(state),
            turn: Mutex::default(),
            saving: std::sync::Mutex::default(),
            signaled: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            process: OnceLock::new(),
            log: OnceLock::new(),
            taps: Arc::default(),
        }
    }

    /// A copy of its state.
    pub fn now(&self) -> ContainerState {
        self.state.borrow().clone()
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.state.borrow().phase()
    }
}

impl Registered for Container {
    const NOUN: &'static str = "container";

    fn id(&self) -> &str {
        &self.record.id
    }
}
