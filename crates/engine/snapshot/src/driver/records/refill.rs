//! Records taken from their files: into a new database, or into one that lacks them.

use std::collections::BTreeMap;

use redb::ReadableTable as _;

use super::{KEPT, Keyed, NEXT, Records, SnapshotError, Writing, decode, failed};

impl Records {
    /// Every record by its id.
    pub(in super::super) fn keyed(&self) -> Result<BTreeMap<u64, Keyed>, SnapshotError> {
        self.read(|tables| {
            let mut all = BTreeMap::new();
            for entry in tables.snapshots.iter().map_err(failed(&self.path))? {
                let (key, stored) = entry.map_err(failed(&self.path))?;
                let (key, record) = (key.value(), decode(&self.path, key.value(), stored.value())?);
                all.insert(record.id, Keyed { key: key.to_owned(), record });
            }
            Ok(all)
        })
    }

    /// Makes a new database of `all`; directories up to the id `kept` that have no record are older than it.
    pub(in super::super) fn fill(
        &self,
        all: &BTreeMap<u64, Keyed>,
        kept: Option<u64>,
    ) -> Result<(), SnapshotError> {
        let ids = ids_of_committed(all.values());
        self.write(|tables| {
            for keyed in all.values() {
                tables.insert(keyed, &ids)?;
            }
            if let Some(first) = kept.map(|kept| kept.saturating_add(1)) {
                tables.state.insert(KEPT, first).map_err(failed(tables.path))?;
                tables.skip_to(first)?;
            }
            Ok(())
        })
    }

    /// Takes a record as its file has it, in place of the one under the key `old`; `all` has every snapshot below.
    pub(in super::super) fn replace(
        &self,
        old: Option<&str>,
        keyed: &Keyed,
        all: &BTreeMap<u64, Keyed>,
    ) -> Result<(), SnapshotError> {
        let ids = ids_of_committed(all.values());
        self.write(|tables| {
            if let Some(old) = old {
                tables.snapshots.remove(old).map_err(failed(tables.path))?;
            }
            tables.insert(keyed, &ids)
        })
    }
}

impl Writing<'_> {
    /// Writes a record that has its file, with its row among its parent's children.
    fn insert(&mut self, keyed: &Keyed, ids: &BTreeMap<&str, u64>) -> Result<(), SnapshotError> {
        self.put_row(&keyed.key, &keyed.record)?;
        if let Some(parent) = ids.get(keyed.record.parent.as_str()) {
            self.children.insert((*parent, keyed.record.id), ()).map_err(failed(self.path))?;
        }
        self.skip_to(keyed.record.id.saturating_add(1))
    }

    /// Gives out no id below `first` any more.
    fn skip_to(&mut self, first: u64) -> Result<(), SnapshotError> {
        let next = self.state.get(NEXT).map_err(failed(self.path))?.map_or(1, |next| next.value());
        if first > next {
            self.state.insert(NEXT, first).map_err(failed(self.path))?;
        }
        Ok(())
    }
}

/// The ids of committed snapshots, by key.
fn ids_of_committed<'k>(all: impl Iterator<Item = &'k Keyed>) -> BTreeMap<&'k str, u64> {
    all.filter(|keyed| keyed.record.is_committed())
        .map(|keyed| (keyed.key.as_str(), keyed.record.id))
        .collect()
}
