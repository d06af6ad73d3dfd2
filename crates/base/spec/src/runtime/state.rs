//! The state document: what hooks read on stdin, and what a seccomp listener is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Name under which a seccomp notification descriptor is announced.
pub const SECCOMP_FD_NAME: &str = "seccompFd";

/// The specification's state of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of the specification.
    pub oci_version: String,
    /// Container id.
    pub id: String,
    /// Where in its life the container is.
    pub status: Status,
    /// Process id of the container's init; 0 (left out) when there is none.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub pid: i32,
    /// Absolute path of the bundle.
    pub bundle: String,
    /// Annotations of the container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Where in its life a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// Made; its program waits for start.
    Created,
    /// Its program runs.
    Running,
    /// Its program is frozen (runc's word; the specification has none).
    Paused,
    /// Its program is gone.
    Stopped,
}

impl Status {
    /// The word in JSON and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What a seccomp listener receives together with the notification descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerProcessState {
    /// Version of the specification.
    pub oci_version: String,
    /// Names of the descriptors sent, in order.
    pub fds: Vec<String>,
    /// Process id as the runtime sees it.
    pub pid: i32,
    /// The filter's `listenerMetadata`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// State of the container.
    pub state: State,
}
