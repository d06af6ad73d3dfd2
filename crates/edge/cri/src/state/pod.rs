//! A pod.

use std::net::IpAddr;
use std::path::PathBuf;

use api::runtime::v1;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};

use super::Registered;

/// What a pod was made of; kept as JSON with the record of its sandbox container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PodRecord {
    /// 64 hexadecimal digits.
    pub id: String,
    /// `name_namespace_uid_attempt`.
    pub name: String,
    /// What the kubelet asked for.
    pub config: v1::PodSandboxConfig,
    /// Its runtime handler as asked for; empty for the default.
    pub runtime_handler: String,
    /// When it was made, in nanoseconds since 1970.
    pub created_at: i64,
    /// Its network namespace; none in the host's network.
    pub netns: Option<PathBuf>,
    /// Its addresses, the preferred one first.
    pub addresses: Vec<IpAddr>,
    /// What CNI answered, as JSON.
    pub network: Option<serde_json::Value>,
    /// The SELinux label of its processes.
    pub process_label: String,
    /// The SELinux label of its mounts.
    pub mount_label: String,
}

/// Where a pod stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodPhase {
    /// Being made; no list shows it.
    #[default]
    Making,
    /// Its sandbox runs.
    Ready,
    /// Its sandbox has ended, or it was stopped.
    NotReady,
    /// Its shim does not answer since this daemon started.
    Unknown,
}

/// What changes in a pod's life.
#[derive(Clone, Debug, Default)]
pub struct PodState {
    /// Where it stands.
    pub phase: PodPhase,
    /// The process id of its sandbox; 0 when it has none.
    pub pid: u32,
    /// Whether its network has been given back.
    pub network_released: bool,
    /// The resources that the kubelet told last.
    pub resources: Option<v1::LinuxContainerResources>,
    /// The overhead that the kubelet told last.
    pub overhead: Option<v1::LinuxContainerResources>,
}

/// A pod.
#[derive(Debug)]
pub struct Pod {
    /// What it was made of.
    pub record: PodRecord,
    /// Where it stands.
    pub state: watch::Sender<PodState>,
    /// Held by whoever changes it.
    pub turn: Mutex<()>,
}

impl Pod {
    /// A pod of `record` in `state`.
    pub fn new(record: PodRecord, state: PodState) -> Self {
        Self { record, state: watch::Sender::new(state), turn: Mutex::default() }
    }

    /// A copy of its state.
    pub fn now(&self) -> PodState {
        self.state.borrow().clone()
    }

    /// Whether its network is the host's.
    pub fn on_host_network(&self) -> bool {
        self.record.netns.is_none()
    }
}

impl Registered for Pod {
    const NOUN: &'static str = "sandbox";

    fn id(&self) -> &str {
        &self.record.id
    }
}
