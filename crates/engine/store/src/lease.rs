//! Leases: rows, and one row for each thing that a lease holds.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use model::filter::Filters;
use model::lease::{Lease, Leases, Resource};
use model::mask;
use model::{Cx, Result};
use ring::rand::{SecureRandom, SystemRandom};
use spec::{Digest, Error, HasKind, Kind, Labels, LeaseId};

use crate::core::{Change, Core};
use crate::db::{Rows, WriteTx};
use crate::{namespace, record, table};

/// A resource's kind: a blob.
pub(crate) const CONTENT: &str = "content";
/// A resource's kind: an ingest.
pub(crate) const INGESTS: &str = "ingests";
/// A resource's kind: an image.
pub(crate) const IMAGES: &str = "images";
/// A resource's kind before the slash and the snapshotter's name.
pub(crate) const SNAPSHOTS: &str = "snapshots";

/// Why a lease is not as asked. Clients match on these texts.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// There is none of this id.
    #[error("lease {0:?}: not found")]
    Missing(String),
    /// There is one.
    #[error("lease {0:?}: already exists")]
    Exists(String),
    /// The request's own lease is gone.
    #[error("lease does not exist: not found")]
    Gone,
    /// A resource of a kind that is written wrongly.
    #[error("invalid resource type {0}: invalid argument")]
    Kind(String),
    /// A snapshot resource without exactly one snapshotter.
    #[error("invalid snapshot resource type {0}: invalid argument")]
    SnapshotKind(String),
    /// A content resource whose id is no digest.
    #[error("invalid content resource id {id}: {why}: invalid argument")]
    Digest {
        /// The id.
        id: String,
        /// Why it is none.
        why: String,
    },
    /// A kind that no lease can hold.
    #[error("resource type {0} not supported yet: not implemented")]
    Unsupported(String),
    /// The system gave no random bytes.
    #[error("cannot make a lease id: no random bytes")]
    Random,
}

impl HasKind for LeaseError {
    fn kind(&self) -> Kind {
        match self {
            Self::Missing(_) | Self::Gone => Kind::NotFound,
            Self::Exists(_) => Kind::AlreadyExists,
            Self::Kind(_) | Self::SnapshotKind(_) | Self::Digest { .. } => Kind::InvalidArgument,
            Self::Unsupported(_) => Kind::Unimplemented,
            Self::Random => Kind::Internal,
        }
    }
}

/// Holds the resource `id` of `kind` by the request's lease, if it has one; whether it has.
pub(crate) fn hold(tx: &WriteTx<'_>, cx: &Cx<'_>, kind: &str, id: &str) -> Result<bool, Error> {
    let Some(lease) = cx.lease() else { return Ok(false) };
    let namespace = cx.namespace()?.as_str();
    if !exists(tx, namespace, lease.as_str())? {
        return Err(LeaseError::Gone.into());
    }
    tx.put(table::HELD, &table::key(&[namespace, lease.as_str(), kind, id])?, b"")?;
    Ok(true)
}

/// Lets the request's lease hold the resource no longer, if it has a lease that does.
pub(crate) fn release(tx: &WriteTx<'_>, cx: &Cx<'_>, kind: &str, id: &str) -> Result<(), Error> {
    let Some(lease) = cx.lease() else { return Ok(()) };
    let key = table::key(&[cx.namespace()?.as_str(), lease.as_str(), kind, id])?;
    tx.remove(table::HELD, &key)?;
    Ok(())
}

/// Refuses a request whose lease is gone, before it moves any bytes.
pub(crate) fn check(rows: &dyn Rows, cx: &Cx<'_>) -> Result<(), Error> {
    match cx.lease() {
        Some(lease) if !exists(rows, cx.namespace()?.as_str(), lease.as_str())? => {
            Err(LeaseError::Gone.into())
        }
        _ => Ok(()),
    }
}

/// Writes the row of a new lease.
pub(crate) fn insert(
    tx: &WriteTx<'_>,
    namespace: &str,
    id: &str,
    created_at: SystemTime,
    labels: &Labels,
) -> Result<(), Error> {
    let key = table::key(&[namespace, id])?;
    if tx.has(table::LEASES, &key)? {
        return Err(LeaseError::Exists(id.to_owned()).into());
    }
    let row = record::Lease { created: created_at.into(), labels: labels.clone() };
    Ok(record::put(tx, table::LEASES, &key, &row)?)
}

/// Removes a lease with all it holds; whether there was one.
pub(crate) fn remove(tx: &WriteTx<'_>, namespace: &str, id: &str) -> Result<bool, Error> {
    tx.remove_all(table::HELD, &table::prefix(&[namespace, id])?)?;
    Ok(tx.remove(table::LEASES, &table::key(&[namespace, id])?)?)
}

/// Whether there is the lease `id`.
pub(crate) fn exists(rows: &dyn Rows, namespace: &str, id: &str) -> Result<bool, Error> {
    Ok(rows.has(table::LEASES, &table::key(&[namespace, id])?)?)
}

/// The leases of a store.
pub(crate) struct LeaseStore {
    core: Arc<Core>,
}

impl LeaseStore {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    fn require(rows: &dyn Rows, namespace: &str, id: &str) -> Result<(), Error> {
        if exists(rows, namespace, id)? { Ok(()) } else { Err(LeaseError::Missing(id.to_owned()).into()) }
    }
}

impl Leases for LeaseStore {
    fn create(&self, cx: &Cx<'_>, id: Option<&LeaseId>, labels: &Labels) -> Result<Lease> {
        let namespace = cx.namespace()?;
        let id = match id {
            Some(id) => id.as_str().to_owned(),
            None => random_id()?,
        };
        spec::label::check_all(labels).map_err(|error| error.context("lease.Labels"))?;
        let lease = Lease { id, created_at: SystemTime::now(), labels: mask::without_empty(labels) };
        self.core.write(Change::Adds, |tx| {
            namespace::ensure(tx, namespace)?;
            insert(tx, namespace.as_str(), &lease.id, lease.created_at, &lease.labels)
        })?;
        Ok(lease)
    }

    fn delete(&self, cx: &Cx<'_>, id: &str) -> Result<()> {
        let namespace = cx.namespace()?.as_str();
        self.core.write(Change::Removes, |tx| {
            if remove(tx, namespace, id)? { Ok(()) } else { Err(LeaseError::Missing(id.to_owned()).into()) }
        })
    }

    fn list(&self, cx: &Cx<'_>, filters: &Filters) -> Result<Vec<Lease>> {
        let below = table::prefix(&[cx.namespace()?.as_str()])?;
        self.core.read(|rows| {
            let mut found = Vec::new();
            record::scan(rows, table::LEASES, &below, &mut |key, row: record::Lease| {
                let id = table::last(key).to_owned();
                let lease = Lease { id, created_at: row.created.into(), labels: row.labels };
                if filters.matches(&lease) {
                    found.push(lease);
                }
            })?;
            Ok(found)
        })
    }

    fn add(&self, cx: &Cx<'_>, id: &str, resource: &Resource) -> Result<()> {
        let namespace = cx.namespace()?.as_str();
        self.core.write(Change::Adds, |tx| {
            Self::require(tx, namespace, id)?;
            check_resource(resource)?;
            let key = table::key(&[namespace, id, &resource.kind, &resource.id])?;
            Ok(tx.put(table::HELD, &key, b"")?)
        })
    }

    fn remove(&self, cx: &Cx<'_>, id: &str, resource: &Resource) -> Result<()> {
        let namespace = cx.namespace()?.as_str();
        self.core.write(Change::Removes, |tx| {
            Self::require(tx, namespace, id)?;
            check_resource(resource)?;
            tx.remove(table::HELD, &table::key(&[namespace, id, &resource.kind, &resource.id])?)?;
            Ok(())
        })
    }

    fn resources(&self, cx: &Cx<'_>, id: &str) -> Result<Vec<Resource>> {
        let namespace = cx.namespace()?.as_str();
        self.core.read(|rows| {
            Self::require(rows, namespace, id)?;
            let keys = rows.keys(table::HELD, &table::prefix(&[namespace, id])?)?;
            Ok(keys.iter().map(|key| resource(key)).collect())
        })
    }
}

/// The resource that a key of [`table::HELD`] names.
fn resource(key: &[u8]) -> Resource {
    let parts = table::parts(key);
    let part = |at: usize| parts.get(at).copied().unwrap_or_default().to_owned();
    Resource { kind: part(2), id: part(3) }
}

fn check_resource(resource: &Resource) -> Result<(), LeaseError> {
    let kind = resource.kind.as_str();
    let mut words = kind.split('/');
    match (words.next(), words.next(), words.next()) {
        (Some(CONTENT), None, _) => match Digest::from_str(&resource.id) {
            Ok(_) => Ok(()),
            Err(error) => Err(LeaseError::Digest { id: resource.id.clone(), why: error.to_string() }),
        },
        (Some(INGESTS | IMAGES), None, _) => Ok(()),
        (Some(CONTENT | INGESTS | IMAGES), ..) => Err(LeaseError::Kind(kind.to_owned())),
        (Some(SNAPSHOTS), Some(_), None) => Ok(()),
        (Some(SNAPSHOTS), ..) => Err(LeaseError::SnapshotKind(kind.to_owned())),
        _ => Err(LeaseError::Unsupported(kind.to_owned())),
    }
}

/// An id that sorts by age and that nobody guesses twice.
fn random_id() -> Result<String, LeaseError> {
    let mut random = [0; 4];
    SystemRandom::new().fill(&mut random).map_err(|_| LeaseError::Random)?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{}-{:08x}", since.as_nanos(), u32::from_be_bytes(random)))
}
