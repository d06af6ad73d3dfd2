//! Sandboxes: records of what containers share. No process runs for one.

use std::collections::BTreeMap;
use std::time::SystemTime;

use spec::{Labels, Result};

use crate::container::{Container, Runtime};
use crate::filter::{Fields, Filters};
use crate::{Any, Cx, mask::Mask};

/// A sandbox's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// A valid identifier (checked by the store).
    pub id: String,
    /// Its runtime.
    pub runtime: Runtime,
    /// What it is made from; the type is its controller's.
    pub spec: Option<Any>,
    /// Which controller runs it.
    pub sandboxer: String,
    /// Its labels.
    pub labels: Labels,
    /// What clients keep with it.
    pub extensions: BTreeMap<String, Any>,
    /// When it was made; set by the store.
    pub created_at: SystemTime,
    /// When it last changed; set by the store.
    pub updated_at: SystemTime,
}

/// A namespaced sandbox store.
pub trait Sandboxes: Send + Sync {
    /// One sandbox. `NotFound` when there is none.
    fn get(&self, cx: &Cx<'_>, id: &str) -> Result<Sandbox>;

    /// Every sandbox that passes, by id.
    fn list(&self, cx: &Cx<'_>, filters: &Filters) -> Result<Vec<Sandbox>>;

    /// Makes a sandbox. `AlreadyExists`; `InvalidArgument` when the id or a label is none.
    fn create(&self, cx: &Cx<'_>, sandbox: &Sandbox) -> Result<Sandbox>;

    /// Changes what `mask` names: `labels(.X)`, `extensions(.X)`, `runtime`, `spec`; all when it is empty.
    fn update(&self, cx: &Cx<'_>, sandbox: &Sandbox, mask: &Mask) -> Result<Sandbox>;

    /// Deletes a record. `NotFound`.
    fn delete(&self, cx: &Cx<'_>, id: &str) -> Result<()>;

    /// Makes a sandbox, the container that runs it and, unless it is there, a lease for what is made in it, all of one
    /// id: all or none of them. `AlreadyExists`.
    fn create_pod(&self, cx: &Cx<'_>, sandbox: &Sandbox, container: &Container) -> Result<()>;

    /// Deletes the sandbox, the container and the lease `id`, as far as they are there.
    fn delete_pod(&self, cx: &Cx<'_>, id: &str) -> Result<()>;
}

impl Fields for Sandbox {
    fn field(&self, path: &[&str]) -> Option<&str> {
        match path {
            ["id"] => Some(&self.id),
            ["labels", key @ ..] => crate::filter::label(&self.labels, key),
            _ => None,
        }
    }
}
