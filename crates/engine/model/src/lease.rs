//! Leases: hold resources against garbage collection.

use std::time::SystemTime;

use spec::{Labels, LeaseId, Result};

use crate::Cx;
use crate::filter::{Fields, Filters};

/// A lease's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub created_at: SystemTime,
    /// Its labels; `containerd.io/gc.expire` ends it.
    pub labels: Labels,
}

/// Something that a lease holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// Its key: a digest, an ingest reference, an image name, or a snapshot key.
    pub id: String,
    /// `content`, `ingests`, `images` or `snapshots/<snapshotter>`.
    pub kind: String,
}

/// A namespaced lease store.
pub trait Leases: Send + Sync {
    /// Makes a lease; a random id when `id` is none. `AlreadyExists`.
    fn create(&self, cx: &Cx<'_>, id: Option<&LeaseId>, labels: &Labels) -> Result<Lease>;

    /// Ends a lease. `NotFound`.
    fn delete(&self, cx: &Cx<'_>, id: &str) -> Result<()>;

    /// Every lease that passes, by id.
    fn list(&self, cx: &Cx<'_>, filters: &Filters) -> Result<Vec<Lease>>;

    /// Holds `resource`, which need not exist yet.
    fn add(&self, cx: &Cx<'_>, id: &str, resource: &Resource) -> Result<()>;

    /// Holds `resource` no longer.
    fn remove(&self, cx: &Cx<'_>, id: &str, resource: &Resource) -> Result<()>;

    /// What the lease holds.
    fn resources(&self, cx: &Cx<'_>, id: &str) -> Result<Vec<Resource>>;
}

impl Fields for Lease {
    fn field(&self, path: &[&str]) -> Option<&str> {
        match path {
            ["id"] => Some(&self.id),
            ["labels", key @ ..] => crate::filter::label(&self.labels, key),
            _ => None,
        }
    }
}
