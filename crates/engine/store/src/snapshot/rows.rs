//! The rows of one driver's snapshots in one namespace.
//!
//! Invariant: a snapshot's row and its row among its parent's children come and go together.

use spec::Error;

use super::SnapshotError;
use crate::db::{DbError, Rows, WriteTx};
use crate::record::{self, Snapshot};
use crate::table;

/// Where the rows are.
#[derive(Clone, Copy)]
pub(super) struct Below<'b> {
    pub(super) namespace: &'b str,
    pub(super) snapshotter: &'b str,
}

impl Below<'_> {
    fn key(&self, key: &str) -> Result<Vec<u8>, Error> {
        Ok(table::key(&[self.namespace, self.snapshotter, key])?)
    }

    /// The snapshot `key`, if there is one.
    pub(super) fn get(&self, rows: &dyn Rows, key: &str) -> Result<Option<Snapshot>, Error> {
        Ok(record::get(rows, table::SNAPSHOTS, &self.key(key)?)?)
    }

    /// The snapshot `key`.
    pub(super) fn require(&self, rows: &dyn Rows, key: &str) -> Result<Snapshot, Error> {
        self.get(rows, key)?.ok_or_else(|| SnapshotError::Missing(key.to_owned()).into())
    }

    /// The snapshot `key`, which another shall stand on.
    pub(super) fn require_parent(&self, rows: &dyn Rows, key: &str) -> Result<Snapshot, Error> {
        self.get(rows, key)?.ok_or_else(|| SnapshotError::NoParent(key.to_owned()).into())
    }

    /// Writes the snapshot `key`.
    pub(super) fn put(&self, tx: &WriteTx<'_>, key: &str, row: &Snapshot) -> Result<(), Error> {
        if !row.parent.is_empty() {
            let child = table::key(&[self.namespace, self.snapshotter, &row.parent, key])?;
            tx.put(table::CHILDREN, &child, b"")?;
        }
        Ok(record::put(tx, table::SNAPSHOTS, &self.key(key)?, row)?)
    }

    /// Whether any snapshot stands on `key`.
    pub(super) fn has_children(&self, rows: &dyn Rows, key: &str) -> Result<bool, Error> {
        let below = table::prefix(&[self.namespace, self.snapshotter, key])?;
        Ok(rows.has_any(table::CHILDREN, &below)?)
    }

    /// Every snapshot.
    pub(super) fn all(&self, rows: &dyn Rows) -> Result<Vec<(String, Snapshot)>, Error> {
        let below = table::prefix(&[self.namespace, self.snapshotter])?;
        let mut found = Vec::new();
        record::scan(rows, table::SNAPSHOTS, &below, &mut |key, row| {
            found.push((table::last(key).to_owned(), row));
        })?;
        Ok(found)
    }
}

/// Removes the snapshot's record; the driver's part stays for the sweep.
pub(crate) fn forget(tx: &WriteTx<'_>, namespace: &str, snapshotter: &str, key: &str) -> Result<(), Error> {
    let below = Below { namespace, snapshotter };
    let Some(row) = below.get(tx, key)? else { return Ok(()) };
    if !row.parent.is_empty() {
        tx.remove(table::CHILDREN, &table::key(&[namespace, snapshotter, &row.parent, key])?)?;
    }
    tx.remove(table::SNAPSHOTS, &below.key(key)?)?;
    Ok(())
}

/// The driver's keys that the records of all namespaces name, for one driver.
pub(super) fn driver_keys(rows: &dyn Rows, name: &str) -> Result<Vec<String>, DbError> {
    let mut found = Vec::new();
    record::scan(rows, table::SNAPSHOTS, b"", &mut |key, row: Snapshot| {
        if table::parts(key).get(1) == Some(&name) {
            found.push(row.driver_key);
        }
    })?;
    Ok(found)
}
