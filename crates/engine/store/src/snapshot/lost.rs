//! Snapshots that the driver has lost: their records are in the way of the same snapshots made again.
//!
//! Invariant: a record is dropped only when its driver answers that it has no such snapshot, and only by a verb that makes
//! the same snapshot again, or by an operator.

use std::collections::BTreeSet;

use model::filter::Filters;
use model::{Cx, Result};
use spec::Kind;

use super::{Snapshots, forget, rows};
use crate::core::Change;
use crate::db::DbError;
use crate::{record, table};

impl Snapshots {
    /// Drops the record of `key`, which the caller holds, when the driver has lost its snapshot.
    pub(super) fn drop_lost(&self, cx: &Cx<'_>, key: Option<&str>) -> Result<()> {
        let Some(key) = key else { return Ok(()) };
        let below = self.below(cx)?;
        let Some(row) = self.core.read(|rows| below.get(rows, key))? else { return Ok(()) };
        match self.driver.stat(cx, &row.driver_key) {
            Err(error) if error.kind() == Kind::NotFound => {}
            // What a driver cannot tell is not lost.
            _ => return Ok(()),
        }
        tracing::warn!(snapshotter = self.name, key, "the snapshotter has lost a snapshot; it is made again");
        self.core.write(Change::Removes, |tx| match below.get(tx, key)? {
            Some(now) if now.driver_key == row.driver_key => forget(tx, below.namespace, &self.name, key),
            _ => Ok(()),
        })
    }

    /// The driver's keys of recorded snapshots that the driver has lost.
    pub(crate) fn lost(&self, cx: &Cx<'_>) -> Result<Vec<String>> {
        let all = self.driver.list(cx, &Filters::default())?;
        let has: BTreeSet<String> = all.into_iter().map(|info| info.name).collect();
        let named = self.core.read::<_, DbError>(|tx| rows::driver_keys(tx, &self.name))?;
        Ok(named.into_iter().filter(|key| !has.contains(key)).collect())
    }

    /// Drops every record whose snapshot the driver has lost; the driver's keys of those.
    pub(crate) fn forget_lost(&self, cx: &Cx<'_>) -> Result<Vec<String>> {
        let lost: BTreeSet<String> = self.lost(cx)?.into_iter().collect();
        if lost.is_empty() {
            return Ok(Vec::new());
        }
        self.core.write(Change::Removes, |tx| {
            let mut dropped: Vec<Vec<u8>> = Vec::new();
            record::scan(tx, table::SNAPSHOTS, b"", &mut |key, row: record::Snapshot| {
                if table::parts(key).get(1) == Some(&self.name.as_str()) && lost.contains(&row.driver_key) {
                    dropped.push(key.to_owned());
                }
            })?;
            for key in dropped {
                if let [namespace, snapshotter, key] = table::parts(&key)[..] {
                    forget(tx, namespace, snapshotter, key)?;
                }
            }
            Ok(())
        })?;
        Ok(lost.into_iter().collect())
    }
}
