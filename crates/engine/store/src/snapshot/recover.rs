//! Ends the commits that a crash interrupted.
//!
//! The record of an active snapshot notes what it is about to become before the driver is asked. At the next start the
//! driver says whether it got that far: then the record becomes what was noted, else the note goes.

use model::snapshot::Kind as SnapshotKind;
use model::{Cx, Result};
use spec::Kind;

use super::Snapshots;
use super::rows::Below;
use crate::core::Change;
use crate::db::{DbError, Rows};
use crate::record::{self, Snapshot, SnapshotCommit};
use crate::table;

/// An interrupted commit.
struct Interrupted {
    namespace: String,
    key: String,
    becomes: SnapshotCommit,
}

impl Snapshots {
    /// Ends every interrupted commit of this driver; run before anything else is.
    pub(crate) fn recover(&self, cx: &Cx<'_>) -> Result<()> {
        for one in self.core.read::<_, DbError>(|rows| self.interrupted(rows))? {
            let below = Below { namespace: &one.namespace, snapshotter: &self.name };
            let done = match self.driver.stat(cx, &one.becomes.driver_key) {
                Ok(info) => info.kind == SnapshotKind::Committed,
                Err(error) if error.kind() == Kind::NotFound => false,
                // A driver in another process that is not there yet; the next start asks again.
                Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::DeadlineExceeded) => {
                    tracing::warn!(snapshotter = self.name, %error, "cannot end an interrupted commit yet");
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            self.core.write(Change::Adds, |tx| {
                if !done {
                    return below.clear_commit(tx, &one.key);
                }
                // A parent that has gone takes it along; the sweep removes the driver's part.
                below.finish_commit(tx, &one.key, &one.becomes).map(drop)
            })?;
        }
        Ok(())
    }

    fn interrupted(&self, rows: &dyn Rows) -> Result<Vec<Interrupted>, DbError> {
        let mut found = Vec::new();
        record::scan(rows, table::SNAPSHOTS, b"", &mut |key, row: Snapshot| {
            if let ([namespace, snapshotter, key], Some(becomes)) = (&table::parts(key)[..], row.commit)
                && *snapshotter == self.name
            {
                found.push(Interrupted {
                    namespace: (*namespace).to_owned(),
                    key: (*key).to_owned(),
                    becomes,
                });
            }
        })?;
        Ok(found)
    }
}
