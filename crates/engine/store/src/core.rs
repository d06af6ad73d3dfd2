//! What every part of the store shares: the database, the exchange, and the count of changes that collection waits for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::Message;
use model::event::Exchange;
use model::snapshot::Snapshotter;
use spec::label::{GC_EXPIRE, GC_PREFIX};
use spec::{Error, Labels, Namespace};

use crate::content::FileError;
use crate::db::{Db, DbError, Origin, ReadTx, Rows, WriteTx};
use crate::gc::Demand;
use crate::kept::Kept;
use crate::number::Numbers;
use crate::{record, table};

const DIRECTORY: &str = "io.containerd.metadata.v1.bolt";
const FILE: &str = "meta.redb";
/// How many numbers a database that was made again leaves out: more than a few seconds can use.
const SKIPPED: u64 = 1 << 20;

/// Whether a transaction may leave something that nothing keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It only adds.
    Adds,
    /// It removes, so that a collection should follow.
    Removes,
}

impl Change {
    /// What replacing the labels `old` by `new` does: one that kept something may have gone.
    pub(crate) fn of_labels(old: &Labels, new: &Labels) -> Self {
        let lost =
            |(key, value): (&String, &String)| key.starts_with(GC_PREFIX) && new.get(key) != Some(value);
        if old.iter().any(lost) || new.contains_key(GC_EXPIRE) { Self::Removes } else { Self::Adds }
    }

    /// Removes if either does.
    pub(crate) fn or_removes(self, removes: bool) -> Self {
        if removes { Self::Removes } else { self }
    }
}

/// The shared parts.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) db: Db,
    /// Changes since the last collection, and who waits for the next.
    pub(crate) demand: Arc<Demand>,
    /// What no collection touches.
    pub(crate) kept: Kept,
    /// That the database was made again from its second copy, in one sentence.
    pub(crate) restored: Option<String>,
    /// The database's directory.
    pub(crate) directory: PathBuf,
    events: Exchange,
    numbers: Numbers,
}

impl Core {
    /// Opens the database below `root`; one that is made begins by keeping what `drivers` and the content store have.
    pub(crate) fn open(
        root: &Path,
        events: Exchange,
        drivers: &BTreeMap<String, Arc<dyn Snapshotter>>,
    ) -> Result<Self, Error> {
        let directory = root.join(DIRECTORY);
        fs::create_dir_all(&directory).map_err(|source| FileError::new("mkdir", &directory, source))?;
        let db = Db::open(&directory.join(FILE), &mut |rows, origin| {
            keep_unnamed(root, &directory, drivers, rows, origin)
        })?;
        let kept = Kept::read(&directory)?;
        let restored = restored(db.origin());
        for told in restored.iter().chain(&kept.summary(&directory)) {
            tracing::warn!("{told}");
        }
        let numbers = Numbers::above(kept.last_number().max(skipped_numbers(&db)?));
        Ok(Self { db, demand: Arc::default(), kept, restored, directory, events, numbers })
    }

    /// Runs `work` on one unchanging state.
    pub(crate) fn read<T, E: From<DbError>>(
        &self,
        work: impl FnOnce(&ReadTx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.db.read(work)
    }

    /// Runs `work` in a transaction of its own, durable on success.
    pub(crate) fn write<T>(
        &self,
        change: Change,
        work: impl FnOnce(&WriteTx<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.write_and_tell(|tx| work(tx).map(|value| (value, change)))
    }

    /// As [`Core::write`], for work that finds out by itself whether it removes.
    pub(crate) fn write_and_tell<T>(
        &self,
        work: impl FnOnce(&WriteTx<'_>) -> Result<(T, Change), Error>,
    ) -> Result<T, Error> {
        let (value, change) = self.db.write(work)?;
        self.demand.changed(change == Change::Removes);
        Ok(value)
    }

    /// The key that a store below knows `name` by, never used before: `<namespace>/<number>/<name>`.
    pub(crate) fn unique_key(&self, namespace: &str, name: &str) -> Result<String, Error> {
        Ok(format!("{namespace}/{}/{name}", self.numbers.next(&self.db, namespace)?))
    }

    /// Publishes what a transaction did; called once it is durable.
    pub(crate) fn publish<M: Message + prost::Name>(&self, namespace: &Namespace, topic: &str, event: &M) {
        let any = api::encode_any(event);
        self.events.publish(namespace, topic, model::Any { type_url: any.type_url, value: any.value });
    }
}

/// Writes down what the disk has and a database that is being made does not know.
fn keep_unnamed(
    root: &Path,
    directory: &Path,
    drivers: &BTreeMap<String, Arc<dyn Snapshotter>>,
    rows: &dyn Rows,
    origin: &Origin,
) -> Result<(), Error> {
    let mut kept = Kept::read(directory)?;
    kept.add_unnamed(root, drivers, rows)?;
    match origin {
        Origin::Lost { why } => kept.lost = Some(why.clone()),
        Origin::Opened | Origin::New | Origin::Restored { .. } => {}
    }
    if kept.is_empty() { Ok(()) } else { kept.write(directory) }
}

fn restored(origin: &Origin) -> Option<String> {
    match origin {
        Origin::Restored { why, sequence } => Some(format!(
            "{why}; it was made again from its second copy, with all transactions up to number {sequence}"
        )),
        Origin::Opened | Origin::New | Origin::Lost { .. } => None,
    }
}

/// A number above all that were given out, where the last records may be missing: those numbers are not known.
fn skipped_numbers(db: &Db) -> Result<u64, Error> {
    if !matches!(db.origin(), Origin::Restored { .. }) {
        return Ok(0);
    }
    let mut last = 0;
    db.read::<_, DbError>(|rows| {
        record::scan(rows, table::SEQUENCES, b"", &mut |_, row: record::Sequence| last = last.max(row.last))
    })?;
    Ok(last + SKIPPED)
}
