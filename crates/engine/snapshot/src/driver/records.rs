//! A driver's records, in redb.
//!
//! ```text
//! snapshots  key -> Record        (one byte of version, then JSON)
//! children   (parent id, id) -> ()
//! state      "next" -> the next id;  "kept" -> directories of ids below it may be of a time before the records
//! ```
//!
//! Every record has a file too ([`super::record_files`]).
//!
//! Invariant: every verb is one transaction, durable when it returns.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::mask::{self, Mask};
use model::snapshot::{Info, Kind, Usage};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use spec::Labels;

use super::SnapshotError;
use super::record_files::{Keyed, RecordFiles};

mod refill;

const SNAPSHOTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("snapshots");
const CHILDREN: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("children");
const STATE: TableDefinition<'_, &str, u64> = TableDefinition::new("state");
const NEXT: &str = "next";
const KEPT: &str = "kept";

/// The version of a record's form: its first byte.
const VERSION: u8 = 1;

/// A stored snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: u64,
    pub(super) kind: char,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) parent: String,
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub(super) labels: Labels,
    /// Nanoseconds since 1970.
    pub(super) created: u64,
    pub(super) updated: u64,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    pub(super) inodes: u64,
}

/// A snapshot as the records know it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub id: u64,
    pub info: Info,
    pub usage: Usage,
}

/// A snapshot that can be mounted, and what lies below it.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its id.
    pub id: u64,
    /// Active or view.
    pub kind: Kind,
    /// Its parents' ids, nearest first.
    pub parents: Vec<u64>,
    /// Its labels.
    pub labels: Labels,
}

/// An active snapshot about to be committed.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    pub id: u64,
    /// Whether it was made on a parent (and not given one by this commit).
    pub had_parent: bool,
    /// The parent it will have, or nothing.
    pub parent: String,
    /// The ids of its parents, nearest first.
    pub parents: Vec<u64>,
}

pub(crate) struct Records {
    db: Database,
    path: PathBuf,
    files: RecordFiles,
}

/// redb's error of whichever step, with the file it concerns.
pub(super) fn failed<E: Into<redb::Error>>(path: &Path) -> impl FnOnce(E) -> SnapshotError {
    let path = path.to_owned();
    move |error| SnapshotError::Records { path, source: Box::new(error.into()) }
}

impl Records {
    /// The records in `db`, which is the file `path`, and their second copy.
    pub(super) fn new(db: Database, path: &Path, files: RecordFiles) -> Result<Self, SnapshotError> {
        let records = Self { db, path: path.to_owned(), files };
        // The tables exist from here on, so that readers need not ask.
        records.write(|_| Ok(()))?;
        Ok(records)
    }

    pub(super) fn files(&self) -> &RecordFiles {
        &self.files
    }

    /// Keeps directories up to the id `highest` if no id was ever given out, since they are older than the records; the
    /// first id that is not kept.
    pub fn keep(&self, highest: Option<u64>) -> Result<u64, SnapshotError> {
        self.write(|tables| {
            let failed = |error| failed::<redb::StorageError>(tables.path)(error);
            let kept = tables.state.get(KEPT).map_err(failed)?.map_or(0, |kept| kept.value());
            let is_used = tables.state.get(NEXT).map_err(failed)?.is_some();
            match highest.and_then(|highest| highest.checked_add(1)) {
                Some(first) if !is_used => {
                    tables.state.insert(NEXT, first).map_err(failed)?;
                    tables.state.insert(KEPT, first).map_err(failed)?;
                    Ok(first)
                }
                _ => Ok(kept),
            }
        })
    }

    pub fn get(&self, key: &str) -> Result<Found, SnapshotError> {
        self.read(|tables| Ok(found(key, tables.need(key)?)))
    }

    pub fn place(&self, key: &str) -> Result<Place, SnapshotError> {
        self.read(|tables| {
            let record = tables.need(key)?;
            if record.kind() == Kind::Committed {
                return Err(SnapshotError::NotMountable(key.to_owned()));
            }
            let parents = tables.chain(&record.parent)?;
            Ok(Place { id: record.id, kind: record.kind(), parents, labels: record.labels })
        })
    }

    /// Refuses early what [`Records::create`] would refuse, and tells what is below the new snapshot.
    pub fn check_new(&self, key: &str, parent: &str) -> Result<Vec<u64>, SnapshotError> {
        self.read(|tables| tables.check_new(key, parent))
    }

    /// Makes a record; `publish` puts the directory of the new id in place and runs inside the transaction.
    pub fn create(
        &self,
        kind: Kind,
        key: &str,
        parent: &str,
        below: &[u64],
        labels: &Labels,
        publish: impl FnOnce(u64) -> Result<(), SnapshotError>,
    ) -> Result<Place, SnapshotError> {
        self.write(|tables| {
            let parents = tables.view().check_new(key, parent)?;
            if parents != below {
                return Err(SnapshotError::Raced(key.to_owned()));
            }
            let id = tables.next_id()?;
            let now = nanos(SystemTime::now());
            let record = Record {
                id,
                kind: letter(kind),
                parent: parent.to_owned(),
                labels: labels.clone(),
                created: now,
                updated: now,
                size: 0,
                inodes: 0,
            };
            tables.put(key, &record)?;
            if let Some(&parent) = parents.first() {
                tables.children.insert((parent, id), ()).map_err(failed(tables.path))?;
            }
            publish(id)?;
            Ok(Place { id, kind, parents, labels: labels.clone() })
        })
    }

    /// Refuses early what [`Records::commit`] would refuse, and tells what the snapshot will lie on.
    pub fn check_commit(&self, key: &str, name: &str, rebase: &str) -> Result<Active, SnapshotError> {
        self.read(|tables| tables.check_commit(key, name, rebase))
    }

    /// Turns the active `key` into the committed `name`; `active` is what [`Records::check_commit`] told.
    pub fn commit(
        &self,
        key: &str,
        name: &str,
        active: &Active,
        labels: &Labels,
        usage: Usage,
    ) -> Result<(), SnapshotError> {
        self.write(|tables| {
            let rebase = if active.had_parent { "" } else { &active.parent };
            let again = tables.view().check_commit(key, name, rebase)?;
            if again.id != active.id || again.parents != active.parents {
                return Err(SnapshotError::Raced(key.to_owned()));
            }
            let now = nanos(SystemTime::now());
            let record = Record {
                id: active.id,
                kind: letter(Kind::Committed),
                parent: active.parent.clone(),
                labels: labels.clone(),
                created: now,
                updated: now,
                size: usage.size,
                inodes: usage.inodes,
            };
            tables.snapshots.remove(key).map_err(failed(tables.path))?;
            tables.put(name, &record)?;
            if let Some(&parent) = active.parents.first() {
                tables.children.insert((parent, active.id), ()).map_err(failed(tables.path))?;
            }
            Ok(())
        })
    }

    /// Removes a record and returns the id whose directory is garbage now.
    pub fn remove(&self, key: &str) -> Result<u64, SnapshotError> {
        self.write(|tables| {
            let record = tables.view().need(key)?;
            let mut children =
                tables.children.range((record.id, 0)..=(record.id, u64::MAX)).map_err(failed(tables.path))?;
            if children.next().is_some() {
                return Err(SnapshotError::HasChild);
            }
            drop(children);
            if let Some(parent) = tables.view().chain(&record.parent)?.first() {
                tables.children.remove((*parent, record.id)).map_err(failed(tables.path))?;
            }
            tables.snapshots.remove(key).map_err(failed(tables.path))?;
            tables.files.remove(record.id)?;
            Ok(record.id)
        })
    }

    pub fn update(&self, key: &str, labels: &Labels, mask: &Mask) -> Result<Found, SnapshotError> {
        self.write(|tables| {
            let mut record = tables.view().need(key)?;
            if mask.is_all() {
                record.labels = labels.clone();
            }
            for path in mask.paths() {
                if path == "labels" {
                    record.labels = labels.clone();
                } else if let Some(label) = path.strip_prefix("labels.") {
                    mask::set_label(&mut record.labels, labels, label);
                } else {
                    return Err(SnapshotError::Field { field: path.to_owned(), key: key.to_owned() });
                }
            }
            record.updated = nanos(SystemTime::now());
            tables.put(key, &record)?;
            Ok(found(key, record))
        })
    }

    pub fn list(&self) -> Result<Vec<Found>, SnapshotError> {
        self.read(|tables| tables.all())
    }

    /// Runs `work` with every id that has a record, while no record can be made.
    pub fn with_ids<T>(
        &self,
        work: impl FnOnce(&BTreeSet<u64>) -> Result<T, SnapshotError>,
    ) -> Result<T, SnapshotError> {
        self.write(|tables| {
            let ids = tables.view().all()?.into_iter().map(|found| found.id).collect();
            work(&ids)
        })
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&View<'_, redb::ReadOnlyTable<&'static str, &'static [u8]>>) -> Result<T, SnapshotError>,
    ) -> Result<T, SnapshotError> {
        let tx = self.db.begin_read().map_err(failed(&self.path))?;
        let snapshots = tx.open_table(SNAPSHOTS).map_err(failed(&self.path))?;
        work(&View { snapshots: &snapshots, path: &self.path })
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&mut Writing<'_>) -> Result<T, SnapshotError>,
    ) -> Result<T, SnapshotError> {
        let tx = self.db.begin_write().map_err(failed(&self.path))?;
        let out = {
            let mut tables = Writing {
                snapshots: tx.open_table(SNAPSHOTS).map_err(failed(&self.path))?,
                files: &self.files,
                children: tx.open_table(CHILDREN).map_err(failed(&self.path))?,
                state: tx.open_table(STATE).map_err(failed(&self.path))?,
                path: &self.path,
            };
            work(&mut tables)?
        };
        tx.commit().map_err(failed(&self.path))?;
        Ok(out)
    }
}

/// The snapshots' table, in whichever kind of transaction.
struct View<'a, T> {
    snapshots: &'a T,
    path: &'a Path,
}

impl<T: ReadableTable<&'static str, &'static [u8]>> View<'_, T> {
    fn find(&self, key: &str) -> Result<Option<Record>, SnapshotError> {
        let Some(stored) = self.snapshots.get(key).map_err(failed(self.path))? else { return Ok(None) };
        decode(self.path, key, stored.value()).map(Some)
    }

    fn need(&self, key: &str) -> Result<Record, SnapshotError> {
        self.find(key)?.ok_or_else(|| SnapshotError::Missing(key.to_owned()))
    }

    /// The ids from the committed snapshot `parent` down to the lowest.
    fn chain(&self, parent: &str) -> Result<Vec<u64>, SnapshotError> {
        let mut ids = Vec::new();
        let mut next = parent.to_owned();
        while !next.is_empty() {
            let record = self.find(&next)?.ok_or_else(|| SnapshotError::NoParent(next.clone()))?;
            // Records are only ever written on top of existing ones; a loop can only be damage.
            if ids.contains(&record.id) {
                let why = "it is its own parent".to_owned();
                return Err(SnapshotError::Damaged { path: self.path.to_owned(), key: next, why });
            }
            ids.push(record.id);
            next = record.parent;
        }
        Ok(ids)
    }

    fn check_new(&self, key: &str, parent: &str) -> Result<Vec<u64>, SnapshotError> {
        if !parent.is_empty() {
            let below = self.find(parent)?.ok_or_else(|| SnapshotError::NoParent(parent.to_owned()))?;
            if below.kind() != Kind::Committed {
                return Err(SnapshotError::ParentKind(parent.to_owned()));
            }
        }
        if self.find(key)?.is_some() {
            return Err(SnapshotError::Exists(key.to_owned()));
        }
        self.chain(parent)
    }

    fn check_commit(&self, key: &str, name: &str, rebase: &str) -> Result<Active, SnapshotError> {
        if self.find(name)?.is_some() {
            return Err(SnapshotError::CommittedExists(name.to_owned()));
        }
        let record = self.need(key)?;
        if record.kind() != Kind::Active {
            return Err(SnapshotError::NotActive(key.to_owned()));
        }
        let had_parent = !record.parent.is_empty();
        if had_parent && !rebase.is_empty() && rebase != record.parent {
            return Err(SnapshotError::Reparent(key.to_owned()));
        }
        let parent = if had_parent { record.parent } else { rebase.to_owned() };
        if !parent.is_empty() {
            let below = self.find(&parent)?.ok_or_else(|| SnapshotError::NoParent(parent.clone()))?;
            if below.kind() != Kind::Committed {
                return Err(SnapshotError::ParentKind(parent));
            }
        }
        Ok(Active { id: record.id, had_parent, parents: self.chain(&parent)?, parent })
    }

    fn all(&self) -> Result<Vec<Found>, SnapshotError> {
        let mut out = Vec::new();
        for entry in self.snapshots.iter().map_err(failed(self.path))? {
            let (key, stored) = entry.map_err(failed(self.path))?;
            out.push(found(key.value(), decode(self.path, key.value(), stored.value())?));
        }
        Ok(out)
    }
}

/// Every table, in a write transaction.
struct Writing<'tx> {
    snapshots: redb::Table<'tx, &'static str, &'static [u8]>,
    children: redb::Table<'tx, (u64, u64), ()>,
    state: redb::Table<'tx, &'static str, u64>,
    files: &'tx RecordFiles,
    path: &'tx Path,
}

impl<'tx> Writing<'tx> {
    fn view(&self) -> View<'_, redb::Table<'tx, &'static str, &'static [u8]>> {
        View { snapshots: &self.snapshots, path: self.path }
    }

    /// Writes a record and its file.
    fn put(&mut self, key: &str, record: &Record) -> Result<(), SnapshotError> {
        self.files.write(&Keyed { key: key.to_owned(), record: record.clone() })?;
        self.put_row(key, record)
    }

    fn put_row(&mut self, key: &str, record: &Record) -> Result<(), SnapshotError> {
        let mut bytes = vec![VERSION];
        serde_json::to_writer(&mut bytes, record).map_err(|error| self.damaged(key, error))?;
        self.snapshots.insert(key, bytes.as_slice()).map_err(failed(self.path))?;
        Ok(())
    }

    fn next_id(&mut self) -> Result<u64, SnapshotError> {
        let id = self.state.get(NEXT).map_err(failed(self.path))?.map_or(1, |next| next.value());
        self.state.insert(NEXT, id + 1).map_err(failed(self.path))?;
        Ok(id)
    }

    fn damaged(&self, key: &str, why: impl ToString) -> SnapshotError {
        SnapshotError::Damaged { path: self.path.to_owned(), key: key.to_owned(), why: why.to_string() }
    }
}

fn decode(path: &Path, key: &str, bytes: &[u8]) -> Result<Record, SnapshotError> {
    let damaged = |why: String| SnapshotError::Damaged { path: path.to_owned(), key: key.to_owned(), why };
    match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|error| damaged(error.to_string())),
        Some((version, _)) => Err(damaged(format!("version {version} is not known here"))),
        None => Err(damaged("it is empty".to_owned())),
    }
}

impl Record {
    pub(super) fn is_committed(&self) -> bool {
        self.kind() == Kind::Committed
    }

    fn kind(&self) -> Kind {
        match self.kind {
            'v' => Kind::View,
            'c' => Kind::Committed,
            _ => Kind::Active,
        }
    }
}

fn letter(kind: Kind) -> char {
    match kind {
        Kind::View => 'v',
        Kind::Active => 'a',
        Kind::Committed => 'c',
    }
}

fn found(key: &str, record: Record) -> Found {
    let info = Info {
        kind: record.kind(),
        name: key.to_owned(),
        parent: record.parent,
        labels: record.labels,
        created_at: time(record.created),
        updated_at: time(record.updated),
    };
    Found { id: record.id, info, usage: Usage { size: record.size, inodes: record.inodes } }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn time(nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanos)
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
