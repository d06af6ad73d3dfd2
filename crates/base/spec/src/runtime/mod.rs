//! The OCI runtime specification 1.3: `config.json` and the state document.
//!
//! The forms are those that Go's encoder writes: camelCase keys in the specification's order, empty values left out,
//! maps sorted. Reading is as lenient as Go's decoder (see [`crate::json`]). Whether a document makes sense is the runtime's question, not this module's.

mod default;
pub mod features;
mod linux;
mod process;
mod resources;
mod seccomp;
mod seccomp_default;
mod state;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json;

pub use default::{DEFAULT_PATH_ENV, default_capabilities, default_mounts, default_unix_spec};
pub use linux::{
    IdMapping, IntelRdt, Linux, LinuxDevice, LinuxNetDevice, MemoryPolicy, Namespace, NamespaceKind,
    Personality, TimeOffset,
};
pub use process::{
    Capabilities, ConsoleSize, CpuAffinity, IoPriority, IoPriorityClass, Process, Rlimit, Scheduler, User,
};
pub use resources::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxInterfacePriority, LinuxMemory,
    LinuxNetwork, LinuxPids, LinuxRdma, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice,
};
pub use seccomp::{Arch, LinuxSeccomp, SeccompAction, SeccompArg, SeccompOperator, SeccompSyscall};
pub use seccomp_default::seccomp_default;
pub use state::{ContainerProcessState, SECCOMP_FD_NAME, State, Status};

/// The version of the specification that these types follow.
pub const VERSION: &str = "1.3.0";

/// The largest `config.json` that is read, in bytes; documents of real containers are a few dozen KiB.
pub const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// `config.json`: everything that one container is to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Version of the specification that the bundle complies with.
    pub oci_version: String,
    /// The process to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The root file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// Host name seen inside.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// NIS domain name seen inside.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    /// Mounts on top of the root, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Commands run at fixed points of the container's life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Arbitrary metadata.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What only Linux knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
}

impl Spec {
    /// Reads a `config.json`.
    pub fn from_slice(document: &[u8]) -> Result<Self, serde_json::Error> {
        json::first_from_slice(document)
    }

    /// The Linux section, made empty if there is none yet.
    pub fn linux_mut(&mut self) -> &mut Linux {
        self.linux.get_or_insert_default()
    }

    /// The process section, made empty if there is none yet.
    pub fn process_mut(&mut self) -> &mut Process {
        self.process.get_or_insert_default()
    }
}

impl Process {
    /// Reads a process document, as `runc exec --process` takes it.
    pub fn from_slice(document: &[u8]) -> Result<Self, serde_json::Error> {
        json::first_from_slice(document)
    }
}

impl LinuxResources {
    /// Reads a resources document, as `runc update --resources` and the shim's Update take it.
    pub fn from_slice(document: &[u8]) -> Result<Self, serde_json::Error> {
        json::first_from_slice(document)
    }
}

/// The root file system of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    /// Path on the host, absolute or relative to the bundle.
    pub path: String,
    /// Whether the root is made read-only before the process runs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub readonly: bool,
}

/// One mount inside a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Absolute path inside the container.
    pub destination: String,
    /// File system type, or `bind`.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Device name or path on the host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Options in fstab's words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// User id mapping of an id-mapped mount.
    #[serde(rename = "uidMappings", skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// Group id mapping of an id-mapped mount.
    #[serde(rename = "gidMappings", skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
}

impl Mount {
    /// A mount of `source` (of file system type `kind`) on `destination`.
    pub fn new(destination: &str, kind: &str, source: &str, options: &[&str]) -> Self {
        Self {
            destination: destination.into(),
            kind: kind.into(),
            source: source.into(),
            options: options.iter().map(|&option| option.into()).collect(),
            ..Self::default()
        }
    }
}

/// A command run at a fixed point of the container's life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Absolute path of the executable.
    pub path: String,
    /// Arguments, the first being the name of the program.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The whole environment of the command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Seconds after which the command is killed and counts as failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// The commands run at each point of the container's life, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// Deprecated twin of `create_runtime`, run before it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    /// On create, namespaces made, before the root is pivoted; in the runtime's namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    /// On create, mounts made, before the root is pivoted; in the container's namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    /// On start, before the program is executed; in the container's namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    /// After the program was started; in the runtime's namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// After the container was deleted; in the runtime's namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_counts_as_absent() {
        let spec = Spec::from_slice(
            br#"{"ociVersion":"1.0.2","process":{"args":null,"cwd":"/","env":[]},"mounts":null}"#,
        );
        let spec = spec.unwrap();
        assert_eq!(spec.process.unwrap().args, Vec::<String>::new());
    }

    #[test]
    fn document_with_keys_in_another_case_is_read() {
        let spec = br#"{"OCIVersion":"1.0.2","Process":{"Args":["sh"],"User":{"UID":7}},"Linux":{"Sysctl":{"Net.x":"1"},
            "Resources":{"Memory":{"limit":5}},"Namespaces":[{"Type":"pid"}]}} and more"#;
        let spec = Spec::from_slice(spec).unwrap();
        let process = spec.process.unwrap();
        assert_eq!((process.args[0].as_str(), process.user.uid), ("sh", 7));
        let linux = spec.linux.unwrap();
        assert_eq!(linux.sysctl["Net.x"], "1");
        assert_eq!(linux.resources.unwrap().memory.unwrap().limit, Some(5));
        assert_eq!(linux.namespaces.len(), 1);
    }

    #[test]
    fn a_wrong_type_is_reported_with_its_place() {
        let error = Spec::from_slice(b"{\"ociVersion\":\n 1}").unwrap_err();
        assert_eq!(error.to_string(), "ociVersion: invalid type: integer `1`, expected a string");
    }

    #[test]
    fn empty_values_are_left_out() {
        let spec = Spec { oci_version: VERSION.into(), linux: Some(Linux::default()), ..Spec::default() };
        assert_eq!(serde_json::to_string(&spec).unwrap(), r#"{"ociVersion":"1.3.0","linux":{}}"#);
    }

    #[test]
    fn a_document_survives_a_round_trip() {
        let spec = default_unix_spec("default", "one");
        let text = serde_json::to_vec(&spec).unwrap();
        assert_eq!(Spec::from_slice(&text).unwrap(), spec);
    }
}
