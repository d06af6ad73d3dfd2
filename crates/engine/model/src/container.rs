//! Containers: records of how to make a task. No process runs for one.

use std::collections::BTreeMap;
use std::time::SystemTime;

use spec::{Labels, Result};

use crate::filter::{Fields, Filters};
use crate::{Any, Cx, mask::Mask};

/// Which shim runs a container, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runtime {
    /// `io.containerd.runc.v2`, or an absolute path.
    pub name: String,
    /// Options for the shim.
    pub options: Option<Any>,
}

/// A container's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// A valid identifier (checked by the store).
    pub id: String,
    /// Its labels.
    pub labels: Labels,
    /// Name of its image; not checked.
    pub image: String,
    /// Its runtime.
    pub runtime: Runtime,
    /// Its OCI runtime spec, as JSON in an Any.
    pub spec: Option<Any>,
    /// Which snapshotter has its root file system.
    pub snapshotter: String,
    /// The key of that snapshot.
    pub snapshot_key: String,
    /// The sandbox it belongs to, or nothing.
    pub sandbox_id: String,
    /// What clients keep with it.
    pub extensions: BTreeMap<String, Any>,
    /// When it was made; set by the store.
    pub created_at: SystemTime,
    /// When it last changed; set by the store.
    pub updated_at: SystemTime,
}

/// A namespaced container store.
pub trait Containers: Send + Sync {
    /// One container. `NotFound` when there is none.
    fn get(&self, cx: &Cx<'_>, id: &str) -> Result<Container>;

    /// Every container that passes, by id.
    fn list(&self, cx: &Cx<'_>, filters: &Filters) -> Result<Vec<Container>>;

    /// Makes a container. `AlreadyExists`; `InvalidArgument` when id, runtime, spec or snapshot are not complete.
    fn create(&self, cx: &Cx<'_>, container: &Container) -> Result<Container>;

    /// Changes what `mask` names: `labels(.X)`, `spec`, `extensions(.X)`, `image`, `snapshotkey`; all when it is empty.
    fn update(&self, cx: &Cx<'_>, container: &Container, mask: &Mask) -> Result<Container>;

    /// Deletes a record; a task that still runs is not touched.
    fn delete(&self, cx: &Cx<'_>, id: &str) -> Result<()>;
}

impl Fields for Container {
    fn field(&self, path: &[&str]) -> Option<&str> {
        match path {
            ["id"] => Some(&self.id),
            ["image"] => crate::filter::present(&self.image),
            ["runtime", "name"] => Some(&self.runtime.name),
            ["labels", key @ ..] => crate::filter::label(&self.labels, key),
            _ => None,
        }
    }
}
