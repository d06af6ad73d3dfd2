//! A pod as the server remembers it: what never changes, what is now, and whose turn it is to change it.

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
    /// The handler that it runs with, by its name in the configuration.
    pub handler: String,
    /// When it was made, in nanoseconds since 1970.
    pub created_at: i64,
    /// Its network namespace; none in the host's network.
    pub netns: Option<PathBuf>,
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
    /// Its addresses, the preferred one first.
    pub addresses: Vec<IpAddr>,
    /// What CNI answered, as JSON.
    pub network: Option<serde_json::Value>,
    /// Whether its network has been given back.
    pub network_released: bool,
    /// What the check after the start found wrong with its network.
    pub network_fault: Option<crate::pod::NetworkFault>,
    /// How its sandbox ended, and when, in nanoseconds since 1970.
    pub exit: Option<(u32, i64)>,
    /// Whether it is being removed: nothing can be made in it any more.
    pub removing: bool,
    /// The resources that the kubelet told last.
    pub resources: Option<v1::LinuxContainerResources>,
    /// The overhead that the kubelet told last.
    pub overhead: Option<v1::LinuxContainerResources>,
}

/// A container that could not be made, nor be unmade whole.
#[derive(Clone, Debug)]
pub struct Remains {
    /// The id that it was to have.
    pub id: String,
    /// The driver of its root file system.
    pub snapshotter: String,
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
    /// What is left of containers that failed; it goes with the pod.
    pub remains: std::sync::Mutex<Vec<Remains>>,
    /// Held while an image is mounted for its containers.
    pub volumes: Mutex<()>,
}

impl Pod {
    /// A pod of `record` in `state`.
    pub fn new(record: PodRecord, state: PodState) -> Self {
        Self {
            record,
            state: watch::Sender::new(state),
            turn: Mutex::default(),
            remains: std::sync::Mutex::default(),
            volumes: Mutex::default(),
        }
    }

    /// A copy of its state.
    pub fn now(&self) -> PodState {
        self.state.borrow().clone()
    }

    /// Whether its network is the host's.
    pub fn on_host_network(&self) -> bool {
        self.record.netns.is_none()
    }

    /// Whether containers can be made in it and started.
    pub fn is_ready(&self) -> bool {
        let state = self.state.borrow();
        state.phase == PodPhase::Ready && !state.removing
    }

    /// Which namespaces it shares, and with whom.
    pub fn namespaces(&self) -> v1::NamespaceOption {
        namespaces(&self.record.config)
    }
}

/// Which namespaces the pod of `config` shares, and with whom.
pub fn namespaces(config: &v1::PodSandboxConfig) -> v1::NamespaceOption {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    security.and_then(|security| security.namespace_options.clone()).unwrap_or_default()
}

impl Registered for Pod {
    const NOUN: &'static str = "sandbox";

    fn id(&self) -> &str {
        &self.record.id
    }
}
