//! Removes the files that no record names.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use model::Result;

use super::{Contents, Layout};
use crate::db::{DbError, Rows};
use crate::{record, table};

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Files of blobs.
    pub(crate) blobs: usize,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Directories of ingests.
    pub(crate) ingests: usize,
}

/// What the records of all namespaces name.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// Digests.
    pub(crate) blobs: BTreeSet<String>,
    /// Names of ingests' directories.
    pub(crate) ingests: BTreeSet<String>,
}

impl Named {
    /// Reads every record.
    pub(crate) fn read(rows: &dyn Rows) -> Result<Self, DbError> {
        let mut named = Self::default();
        for key in rows.keys(table::BLOBS, b"")? {
            named.blobs.insert(table::last(&key).to_owned());
        }
        record::scan(rows, table::INGESTS, b"", &mut |_, row: record::Ingest| {
            named.ingests.insert(Layout::ingest_name(&row.backend_ref));
            if !row.expected.is_empty() {
                named.blobs.insert(row.expected);
            }
        })?;
        Ok(named)
    }
}

impl Contents {
    /// Removes blobs and ingests without a record in any namespace.
    pub(crate) fn sweep(&self) -> Result<Swept> {
        let mut swept = Swept::default();
        let exclusive = self.placing.write().unwrap_or_else(PoisonError::into_inner);
        // Directories first: an ingest has its record before its directory, so one that is listed and not named is dead.
        let ingests = self.layout.list_ingests()?;
        let blobs = self.layout.list_blobs()?;
        let named = self.core.read(|rows| Named::read(rows))?;
        for name in ingests
            .iter()
            .filter(|name| !named.ingests.contains(*name) && !self.core.kept.ingests.contains(*name))
        {
            swept.ingests += usize::from(self.layout.kill_ingest(name)?);
        }
        let kept = &self.core.kept.blobs;
        let is_named = |digest: &str| named.blobs.contains(digest) || kept.contains(digest);
        for digest in blobs.iter().filter(|digest| !is_named(digest.as_str())) {
            if let Some(size) = self.layout.kill_blob(digest)? {
                swept.blobs += 1;
                swept.bytes += size;
            }
        }
        drop(exclusive);
        self.layout.empty_trash()?;
        Ok(swept)
    }
}
