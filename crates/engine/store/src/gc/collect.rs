//! One collection.

use std::sync::PoisonError;
use std::time::{Instant, SystemTime};

use api::containerd::events::SnapshotRemove;
use api::containerd::services::images::v1::ImageDelete;
use model::gc::{Kind, Noun, Record};
use model::{Ctx, Result};
use spec::{Error, Namespace};

use super::{Garden, Stats};
use crate::content::Contents;
use crate::db::{Rows, WriteTx};
use crate::{lease, record, snapshot, table};

impl Garden {
    /// Removes what nothing keeps.
    pub(super) fn collect(&self) -> Result<Stats> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.core.demand.begin();
        let result = self.run();
        self.core.demand.end(&result);
        result
    }

    fn run(&self) -> Result<Stats> {
        // Most collections find nothing, and need not stop the writers to find it.
        let found = self.core.read(|rows| {
            let records = records(rows, &self.content)?;
            Ok::<_, Error>(!model::gc::garbage(&records, SystemTime::now()).is_empty())
        })?;
        let start = Instant::now();
        let removed = if found { self.remove()? } else { Vec::new() };
        let mut stats = Stats { elapsed: start.elapsed(), records: removed.len(), ..Stats::default() };
        self.publish(&removed);
        self.sweep(&removed, &mut stats);
        Ok(stats)
    }

    /// Marks again while no writer can change anything, and removes.
    fn remove(&self) -> Result<Vec<Record>> {
        // Not `Core::write`: a collection is no change that asks for a collection.
        self.core.db.write(|tx| {
            let records = records(tx, &self.content)?;
            let garbage = model::gc::garbage(&records, SystemTime::now());
            let mut garbage = garbage.into_iter().peekable();
            let mut removed = Vec::new();
            for (at, record) in records.into_iter().enumerate() {
                if garbage.next_if_eq(&at).is_some() {
                    drop_record(tx, &record)?;
                    removed.push(record);
                }
            }
            Ok(removed)
        })
    }

    fn publish(&self, removed: &[Record]) {
        for record in removed {
            let Ok(namespace) = record.namespace.parse::<Namespace>() else { continue };
            match record.noun {
                Noun::Image { .. } => {
                    let event = ImageDelete { name: record.key.clone() };
                    self.core.publish(&namespace, "/images/delete", &event);
                }
                Noun::Snapshot { .. } => {
                    let (snapshotter, key) = split(&record.key);
                    let event = SnapshotRemove { key: key.to_owned(), snapshotter: snapshotter.to_owned() };
                    self.core.publish(&namespace, "/snapshot/remove", &event);
                }
                Noun::Content
                | Noun::Container { .. }
                | Noun::Sandbox
                | Noun::Ingest { .. }
                | Noun::Lease { .. } => {}
            }
        }
    }

    /// Sweeps what has lost records. What fails is logged, and swept again next time.
    fn sweep(&self, removed: &[Record], stats: &mut Stats) {
        let mut dirty = self.core.demand.take_dirty();
        for record in removed {
            match record.noun.kind() {
                Kind::Content | Kind::Ingest => dirty.content = true,
                Kind::Snapshot => {
                    dirty.drivers.insert(split(&record.key).0.to_owned());
                }
                Kind::Container | Kind::Sandbox | Kind::Image | Kind::Lease => {}
            }
        }
        if dirty.content {
            match self.content.sweep() {
                Ok(swept) => {
                    (stats.blobs, stats.bytes, stats.ingests) = (swept.blobs, swept.bytes, swept.ingests);
                }
                Err(error) => {
                    tracing::warn!(%error, "content garbage collection failed");
                    self.core.demand.dirty_content();
                }
            }
        }
        for name in dirty.drivers {
            let Some(view) = self.snapshotters.get(&name) else { continue };
            match Ctx::background().on_this_thread(|cx| view.sweep(cx)) {
                Ok(count) => {
                    stats.snapshots.insert(name, count);
                }
                Err(error) => {
                    tracing::warn!(snapshotter = name, %error, "snapshot garbage collection failed");
                    self.core.demand.dirty_driver(&name);
                }
            }
        }
    }
}

/// The snapshotter and the key of a snapshot's key in the mark.
fn split(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or((key, ""))
}

/// Every record, as the mark sees it.
fn records(rows: &dyn Rows, content: &Contents) -> Result<Vec<Record>, Error> {
    let mut found = Vec::new();
    record::scan(rows, table::LEASES, b"", &mut |key, row: record::Lease| {
        found.push(entry(key, row.labels, Noun::Lease { holds: Vec::new() }));
    })?;
    for lease in &mut found {
        let below = table::prefix(&[&lease.namespace, &lease.key])?;
        let keys = rows.keys(table::HELD, &below)?;
        lease.noun = Noun::Lease { holds: keys.iter().filter_map(|key| held(key)).collect() };
    }
    record::scan(rows, table::IMAGES, b"", &mut |key, row: record::Image| {
        found.push(entry(key, row.labels, Noun::Image { target: row.digest }));
    })?;
    record::scan(rows, table::BLOBS, b"", &mut |key, row: record::Blob| {
        found.push(entry(key, row.labels, Noun::Content));
    })?;
    record::scan(rows, table::INGESTS, b"", &mut |key, row: record::Ingest| {
        let parts = table::parts(key);
        let open = matches!(parts[..], [namespace, reference] if content.is_open(namespace, reference));
        let expires_at = row.expires_at.map(SystemTime::from);
        let expected = Some(row.expected).filter(|digest| !digest.is_empty());
        found.push(entry(key, Default::default(), Noun::Ingest { expires_at, expected, open }));
    })?;
    record::scan(rows, table::CONTAINERS, b"", &mut |key, row: record::Container| {
        let snapshot = format!("{}/{}", row.snapshotter, row.snapshot_key);
        let snapshot = (!row.snapshotter.is_empty()).then_some(snapshot);
        found.push(entry(key, row.labels, Noun::Container { snapshot }));
    })?;
    record::scan(rows, table::SANDBOXES, b"", &mut |key, row: record::Sandbox| {
        found.push(entry(key, row.labels, Noun::Sandbox));
    })?;
    record::scan(rows, table::SNAPSHOTS, b"", &mut |key, row: record::Snapshot| {
        let snapshotter = table::parts(key).get(1).copied().unwrap_or_default().to_owned();
        let parent = (!row.parent.is_empty()).then(|| format!("{snapshotter}/{}", row.parent));
        found.push(entry(key, row.labels, Noun::Snapshot { parent }));
    })?;
    Ok(found)
}

/// A record of the mark; the parts of its key behind the namespace make its key there.
fn entry(key: &[u8], labels: spec::Labels, noun: Noun) -> Record {
    let parts = table::parts(key);
    let (namespace, rest) = parts.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
    Record { namespace: namespace.to_owned(), key: rest.join("/"), labels, noun }
}

/// What a row of [`table::HELD`] holds.
fn held(key: &[u8]) -> Option<(Kind, String)> {
    let parts = table::parts(key);
    let [_, _, kind, id] = parts[..] else { return None };
    Some(match kind.split_once('/') {
        None => match kind {
            lease::CONTENT => (Kind::Content, id.to_owned()),
            lease::INGESTS => (Kind::Ingest, id.to_owned()),
            lease::IMAGES => (Kind::Image, id.to_owned()),
            _ => return None,
        },
        Some((lease::SNAPSHOTS, snapshotter)) => (Kind::Snapshot, format!("{snapshotter}/{id}")),
        Some(_) => return None,
    })
}

fn drop_record(tx: &WriteTx<'_>, record: &Record) -> Result<(), Error> {
    let (namespace, key) = (record.namespace.as_str(), record.key.as_str());
    let table = match record.noun.kind() {
        Kind::Lease => return lease::remove(tx, namespace, key).map(drop),
        Kind::Snapshot => {
            let (snapshotter, key) = split(key);
            return snapshot::forget(tx, namespace, snapshotter, key);
        }
        Kind::Content => table::BLOBS,
        Kind::Image => table::IMAGES,
        Kind::Ingest => table::INGESTS,
        // Never garbage; see `model::gc`.
        Kind::Container | Kind::Sandbox => return Ok(()),
    };
    tx.remove(table, &table::key(&[namespace, key])?)?;
    Ok(())
}
