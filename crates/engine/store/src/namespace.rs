//! Namespaces: rows with labels. One appears with its first object, or by being made.

use std::str::FromStr;
use std::sync::Arc;

use api::containerd::events::{NamespaceCreate, NamespaceDelete, NamespaceUpdate};
use model::mask::{self, Mask};
use model::namespace::Namespaces;
use model::{Cx, Result};
use spec::{Error, HasKind, Kind, Labels, Namespace};

use crate::core::{Change, Core};
use crate::db::{DbError, Rows, WriteTx};
use crate::{record, table};

/// Why a namespace is not as asked.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// It exists.
    #[error("namespace {0:?}: already exists")]
    Exists(String),
    /// It does not.
    #[error("namespace {0:?}: not found")]
    Missing(String),
    /// It still has objects.
    #[error("namespace {name:?} must be empty, but it still has {what}: failed precondition")]
    NotEmpty {
        /// The namespace.
        name: String,
        /// What remains, by kind.
        what: String,
    },
    /// A mask names something that no namespace has.
    #[error("cannot update {0:?} field: invalid argument")]
    Field(String),
}

impl HasKind for NamespaceError {
    fn kind(&self) -> Kind {
        match self {
            Self::Exists(_) => Kind::AlreadyExists,
            Self::Missing(_) => Kind::NotFound,
            Self::NotEmpty { .. } => Kind::FailedPrecondition,
            Self::Field(_) => Kind::InvalidArgument,
        }
    }
}

/// Makes sure that `namespace` has a row, as containerd does with the first object in it.
pub(crate) fn ensure(tx: &WriteTx<'_>, namespace: &Namespace) -> Result<(), DbError> {
    let key = namespace.as_str().as_bytes();
    if tx.has(table::NAMESPACES, key)? {
        return Ok(());
    }
    record::put(tx, table::NAMESPACES, key, &record::Namespace::default())
}

/// The names of all namespaces.
pub(crate) fn all(rows: &dyn Rows) -> Result<Vec<String>, DbError> {
    let keys = rows.keys(table::NAMESPACES, b"")?;
    Ok(keys.iter().map(|key| table::last(key).to_owned()).collect())
}

/// The labels of a namespace, if it has a row.
pub(crate) fn labels(rows: &dyn Rows, name: &str) -> Result<Option<Labels>, DbError> {
    let row: Option<record::Namespace> = record::get(rows, table::NAMESPACES, name.as_bytes())?;
    Ok(row.map(|row| row.labels))
}

/// The namespaces of a store.
pub(crate) struct NamespaceStore {
    core: Arc<Core>,
}

impl NamespaceStore {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

impl Namespaces for NamespaceStore {
    fn labels(&self, _: &Cx<'_>, name: &str) -> Result<Labels> {
        self.core.read(|rows| Ok(labels(rows, name)?.unwrap_or_default()))
    }

    fn list(&self, _: &Cx<'_>) -> Result<Vec<(String, Labels)>> {
        self.core.read(|rows| {
            let mut found = Vec::new();
            record::scan(rows, table::NAMESPACES, b"", &mut |key, row: record::Namespace| {
                found.push((table::last(key).to_owned(), row.labels));
            })?;
            Ok(found)
        })
    }

    fn create(&self, _: &Cx<'_>, name: &str, labels: &Labels) -> Result<()> {
        let namespace = Namespace::from_str(name)?;
        check_labels(labels)?;
        self.core.write(Change::Adds, |tx| {
            if tx.has(table::NAMESPACES, name.as_bytes())? {
                return Err(NamespaceError::Exists(name.to_owned()).into());
            }
            let row = record::Namespace { labels: mask::without_empty(labels) };
            Ok(record::put(tx, table::NAMESPACES, name.as_bytes(), &row)?)
        })?;
        let event = NamespaceCreate { name: name.to_owned(), labels: labels.clone() };
        self.core.publish(&namespace, "/namespaces/create", &event);
        Ok(())
    }

    fn update(&self, _: &Cx<'_>, name: &str, labels: &Labels, mask: &Mask) -> Result<Labels> {
        let namespace = Namespace::from_str(name)?;
        let stored = self.core.write(Change::Adds, |tx| {
            let mut row: record::Namespace =
                record::get(tx, table::NAMESPACES, name.as_bytes())?.unwrap_or_default();
            mask::apply_to_labels(&mut row.labels, labels, mask)
                .map_err(|path| NamespaceError::Field(path.to_owned()))?;
            check_labels(&row.labels)?;
            record::put(tx, table::NAMESPACES, name.as_bytes(), &row)?;
            Ok(row.labels)
        })?;
        let event = NamespaceUpdate { name: name.to_owned(), labels: labels.clone() };
        self.core.publish(&namespace, "/namespaces/update", &event);
        Ok(stored)
    }

    fn delete(&self, _: &Cx<'_>, name: &str) -> Result<()> {
        let namespace = Namespace::from_str(name)?;
        self.core.write_and_tell(|tx| {
            let remains = remains(tx, name)?;
            if !remains.is_empty() {
                let what = remains.join(", ");
                return Err(NamespaceError::NotEmpty { name: name.to_owned(), what }.into());
            }
            if !tx.remove(table::NAMESPACES, name.as_bytes())? {
                return Err(NamespaceError::Missing(name.to_owned()).into());
            }
            let below = table::prefix(&[name])?;
            // Leases and ingests do not count as content, and go with the namespace; its sequence stays, so that a
            // namespace of the same name never meets a driver's key again.
            let mut change = Change::Adds;
            for table in [table::LEASES, table::HELD, table::INGESTS] {
                change = change.or_removes(tx.has_any(table, &below)?);
                tx.remove_all(table, &below)?;
            }
            Ok(((), change))
        })?;
        self.core.demand.dirty_content();
        let event = NamespaceDelete { name: name.to_owned() };
        self.core.publish(&namespace, "/namespaces/delete", &event);
        Ok(())
    }
}

/// What a namespace still has, in containerd's words and order.
fn remains(rows: &dyn Rows, name: &str) -> Result<Vec<String>, Error> {
    let below = table::prefix(&[name])?;
    let mut found = Vec::new();
    for (table, word) in
        [(table::IMAGES, "images"), (table::BLOBS, "blobs"), (table::CONTAINERS, "containers")]
    {
        if rows.has_any(table, &below)? {
            found.push(word.to_owned());
        }
    }
    let mut last = String::new();
    for key in rows.keys(table::SNAPSHOTS, &below)? {
        let snapshotter = table::parts(&key).get(1).copied().unwrap_or_default().to_owned();
        if snapshotter != last {
            found.push(format!("snapshots on {snapshotter:?} snapshotter"));
            last = snapshotter;
        }
    }
    Ok(found)
}

fn check_labels(labels: &Labels) -> Result<(), Error> {
    spec::label::check_all(labels).map_err(|error| error.context("namespace.Labels"))
}
