//! The features document: what a runtime supports, as `runc features` prints it and a shim reports it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a runtime supports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Features {
    /// Oldest version of the specification.
    pub oci_version_min: String,
    /// Newest version of the specification.
    pub oci_version_max: String,
    /// Names of hooks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<String>,
    /// Mount options, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mount_options: Vec<String>,
    /// What only Linux knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
    /// Versions of the runtime and its parts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Annotations of a config that may change what the runtime does on the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub potentially_unsafe_config_annotations: Vec<String>,
}

/// The Linux part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    /// Namespace kinds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Capability names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Cgroup drivers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Cgroup>,
    /// System call filters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Seccomp>,
    /// AppArmor profiles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<Enabled>,
    /// SELinux labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux: Option<Enabled>,
    /// Intel Resource Director Technology.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
    /// NUMA memory policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
    /// Extensions of mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_extensions: Option<MountExtensions>,
    /// Moving network devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_devices: Option<Enabled>,
}

/// Cgroup drivers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cgroup {
    /// Cgroup v1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v1: Option<bool>,
    /// Cgroup v2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub v2: Option<bool>,
    /// The systemd driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd: Option<bool>,
    /// The systemd driver for an ordinary user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd_user: Option<bool>,
    /// The RDMA controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdma: Option<bool>,
}

/// System call filters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seccomp {
    /// Whether filters are supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Action names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
    /// Operator names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<String>,
    /// Architecture names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub archs: Vec<String>,
    /// Flags that are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub known_flags: Vec<String>,
    /// Flags that this kernel supports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub supported_flags: Vec<String>,
}

/// A feature that is there or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Enabled {
    /// Whether it is compiled in; the host may still lack it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

impl Enabled {
    /// The feature is there, or not.
    pub fn new(enabled: bool) -> Option<Self> {
        Some(Self { enabled: Some(enabled) })
    }
}

/// Intel Resource Director Technology.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IntelRdt {
    /// Whether it is supported at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The `schemata` list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schemata: Option<bool>,
    /// Monitoring groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<bool>,
}

/// NUMA memory policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryPolicy {
    /// Mode names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modes: Vec<String>,
    /// Flag names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// Extensions of mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountExtensions {
    /// Id-mapped mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idmap: Option<Enabled>,
}
