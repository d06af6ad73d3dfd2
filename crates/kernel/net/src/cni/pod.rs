//! What the runtime says of a pod to its network's plugins.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A port of the host that is to lead to the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The host's.
    pub host_port: i32,
    /// The pod's.
    pub container_port: i32,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Only on this address of the host; empty for every one.
    #[serde(rename = "hostIP")]
    pub host_ip: String,
}

/// Limits in bits a second, and bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bandwidth {
    /// To the pod.
    pub ingress_rate: u64,
    /// To the pod.
    pub ingress_burst: u64,
    /// From the pod.
    pub egress_rate: u64,
    /// From the pod.
    pub egress_burst: u64,
}

/// What the pod's resolver is to use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodDns {
    /// Servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// A pod, as its network sees it.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// The sandbox's id.
    pub id: String,
    /// Its network namespace; none when that is gone.
    pub netns: Option<PathBuf>,
    /// Kubernetes' namespace.
    pub namespace: String,
    /// Kubernetes' name.
    pub name: String,
    /// Kubernetes' uid.
    pub uid: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Ports of the host.
    pub port_mappings: Vec<PortMapping>,
    /// Limits.
    pub bandwidth: Option<Bandwidth>,
    /// Resolver settings.
    pub dns: Option<PodDns>,
    /// Its cgroup.
    pub cgroup_path: Option<String>,
    /// Further capabilities, by name.
    pub extra: BTreeMap<String, Value>,
}

impl Pod {
    /// `CNI_ARGS`.
    pub(super) fn args(&self) -> Vec<(String, String)> {
        let pairs = [
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", &self.namespace),
            ("K8S_POD_NAME", &self.name),
            ("K8S_POD_INFRA_CONTAINER_ID", &self.id),
            ("K8S_POD_UID", &self.uid),
        ];
        // The pairs are joined by semicolons: a value with one could add a pair of its own.
        let plain = |value: &&str| !value.contains([';', '\n', '\0']);
        pairs
            .into_iter()
            .filter(|(_, value)| plain(value))
            .map(|(key, value)| (key.into(), value.into()))
            .collect()
    }

    /// Values of the capabilities that the pod has use for.
    pub(super) fn capabilities(&self) -> Map<String, Value> {
        let mut all: Map<String, Value> = self.extra.clone().into_iter().collect();
        all.insert("io.kubernetes.cri.pod-annotations".into(), json!(self.annotations));
        let ports: Vec<_> = self.port_mappings.iter().filter(|mapping| mapping.host_port > 0).collect();
        if !ports.is_empty() {
            all.insert("portMappings".into(), json!(ports));
        }
        if let Some(bandwidth) = self.bandwidth {
            all.insert("bandwidth".into(), json!(bandwidth));
        }
        if let Some(dns) = &self.dns {
            all.insert("dns".into(), json!(dns));
        }
        if let Some(path) = self.cgroup_path.as_deref().filter(|path| !path.is_empty()) {
            all.insert("cgroupPath".into(), path.into());
        }
        all
    }
}
