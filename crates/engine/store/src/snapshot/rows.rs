//! The rows of one driver's snapshots in one namespace.
//!
//! Invariant: a snapshot's row and its row among its parent's children come and go together.

use spec::Error;

use super::SnapshotError;
use crate::db::{DbError, Rows, WriteTx};
use crate::record::{self, Snapshot, SnapshotCommit};
use crate::{lease, table};

/// Where the rows are.
#[derive(Clone, Copy)]
pub(crate) struct Below<'b> {
    pub(crate) namespace: &'b str,
    pub(crate) snapshotter: &'b str,
}

impl Below<'_> {
    fn key(&self, key: &str) -> Result<Vec<u8>, Error> {
        Ok(table::key(&[self.namespace, self.snapshotter, key])?)
    }

    /// The snapshot `key`, if there is one.
    pub(crate) fn get(&self, rows: &dyn Rows, key: &str) -> Result<Option<Snapshot>, Error> {
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
    pub(crate) fn put(&self, tx: &WriteTx<'_>, key: &str, row: &Snapshot) -> Result<(), Error> {
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

    /// Forgets that `key` was about to be committed.
    pub(super) fn clear_commit(&self, tx: &WriteTx<'_>, key: &str) -> Result<(), Error> {
        let Some(mut row) = self.get(tx, key)? else { return Ok(()) };
        row.commit = None;
        self.put(tx, key, &row)
    }

    /// The driver has committed `key`: its record becomes that of `becomes.name`. When the parent's record has gone
    /// meanwhile the snapshot cannot be recorded, and goes too.
    pub(super) fn finish_commit(
        &self,
        tx: &WriteTx<'_>,
        key: &str,
        becomes: &SnapshotCommit,
    ) -> Result<Result<(), SnapshotError>, Error> {
        let kind = format!("{}/{}", lease::SNAPSHOTS, self.snapshotter);
        let namespace = self.namespace;
        forget(tx, namespace, self.snapshotter, key)?;
        if !becomes.parent.is_empty() && self.get(tx, &becomes.parent)?.is_none() {
            return Ok(Err(SnapshotError::NoParent(becomes.parent.clone())));
        }
        // A lease that has ended meanwhile holds nothing.
        if lease::exists(tx, namespace, &becomes.lease)? {
            let held = |id: &str| table::key(&[namespace, &becomes.lease, &kind, id]);
            tx.remove(table::HELD, &held(key)?)?;
            tx.put(table::HELD, &held(&becomes.name)?, b"")?;
        }
        let now = record::Time::now();
        let row = Snapshot {
            driver_key: becomes.driver_key.clone(),
            parent: becomes.parent.clone(),
            created: now,
            updated: now,
            labels: becomes.labels.clone(),
            commit: None,
        };
        self.put(tx, &becomes.name, &row)?;
        Ok(Ok(()))
    }

    /// Every snapshot.
    pub(crate) fn all(&self, rows: &dyn Rows) -> Result<Vec<(String, Snapshot)>, Error> {
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
pub(crate) fn driver_keys(rows: &dyn Rows, name: &str) -> Result<Vec<String>, DbError> {
    let mut found = Vec::new();
    record::scan(rows, table::SNAPSHOTS, b"", &mut |key, row: Snapshot| {
        if table::parts(key).get(1) == Some(&name) {
            found.push(row.driver_key);
        }
    })?;
    Ok(found)
}
