//! What an operator's recovery does: records that can be made again are, and what is damaged is let go of.
//!
//! ```text
//! snapshots   recorded, and lost by their driver           the record goes: the next pull makes the snapshot again
//! blobs       recorded, and other bytes than the digest's  the bytes go: the next pull fetches them, for the same record
//! kept        snapshots of a driver without a record       recorded again by the keys that the driver has for them
//!             blobs without a record, whole                recorded in every namespace that is known
//!             bundles of tasks without a record            recorded as containers
//! ```
//!
//! What is recorded again is held by the lease [`LEASE`] of its namespace until the operator deletes that.
//!
//! Invariant: nothing is recorded that is not there, and nothing that could be somebody's only copy is deleted: damaged
//! bytes are nobody's copy.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::SystemTime;

use model::container::Container;
use model::filter::Filters;
use model::snapshot::Info;
use model::{Ctx, Cx, Result};
use spec::{Digest, Error, Labels, Namespace};

use crate::content::Named;
use crate::core::Change;
use crate::db::{DbError, Rows, WriteTx};
use crate::kept::Kept;
use crate::snapshot::{Below, Snapshots};
use crate::{Store, container, lease, namespace, record, table};

/// The lease that holds what was recorded again.
pub const LEASE: &str = "recovered";

/// The namespace of blobs when no other is known.
const DEFAULT: &str = "default";

/// A task's bundle, from which its container's record can be made.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The namespace.
    pub namespace: Namespace,
    /// The container; its snapshot is found by its id.
    pub container: Container,
}

/// What a recovery did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Keys of snapshots whose records were dropped, by driver.
    pub lost_snapshots: BTreeMap<String, Vec<String>>,
    /// Digests of recorded blobs whose bytes are missing or were damaged.
    pub lost_blobs: Vec<String>,
    /// Number of snapshots recorded again.
    pub snapshots: usize,
    /// Number of blobs recorded again.
    pub blobs: usize,
    /// Containers recorded again, as `<namespace>/<id>`.
    pub containers: Vec<String>,
    /// What has no record still, and why.
    pub left: Vec<String>,
}

impl Store {
    /// Makes records again, as far as the disk has what they stand for. Only while nothing else uses the store.
    ///
    /// # Errors
    /// The database or a directory cannot be read or written.
    pub fn recover(&self, bundles: &[Bundle]) -> Result<Recovered> {
        let mut done = Recovered::default();
        Ctx::background().on_this_thread(|cx| {
            for (name, view) in &self.snapshotters {
                match view.forget_lost(cx) {
                    Ok(lost) if lost.is_empty() => {}
                    Ok(lost) => drop(done.lost_snapshots.insert(name.clone(), lost)),
                    Err(error) => done.left.push(format!("snapshotter {name}: {error}")),
                }
            }
            self.check_blobs(cx, &mut done)?;
            for (name, view) in &self.snapshotters {
                match self.record_snapshots(cx, name, view, &mut done) {
                    Ok(()) => {}
                    Err(error) => done.left.push(format!("snapshotter {name}: {error}")),
                }
            }
            self.record_containers(bundles, &mut done)?;
            self.record_blobs(cx, bundles, &mut done)
        })?;
        self.keep_the_rest()?;
        Ok(done)
    }

    /// Keeps what has no record still; ingests without one are of no use to anybody.
    fn keep_the_rest(&self) -> Result<()> {
        let directory = &self.core.directory;
        let root = directory.parent().unwrap_or(directory);
        let drivers = self.snapshotters.iter().map(|(name, view)| (name.clone(), view.driver()));
        let mut kept = Kept::default();
        // What drivers have that are not open here is not known.
        let others =
            self.core.kept.snapshots.iter().filter(|(name, _)| !self.snapshotters.contains_key(*name));
        kept.snapshots = others.map(|(name, keys)| (name.clone(), keys.clone())).collect();
        self.core.read(|rows| kept.add_unnamed(root, &drivers.collect(), rows))?;
        kept.ingests.clear();
        if kept.is_empty() { Kept::remove(directory) } else { kept.write(directory) }
    }

    /// Compares every recorded blob with its digest.
    fn check_blobs(&self, cx: &Cx<'_>, done: &mut Recovered) -> Result<()> {
        let named = self.core.read::<_, DbError>(|rows| Named::read(rows))?;
        for digest in named.blobs.iter().filter_map(|digest| Digest::from_str(digest).ok()) {
            if self.content.discard_unless_whole(cx, &digest)? {
                done.lost_blobs.push(digest.to_string());
            }
        }
        Ok(())
    }

    /// Records the snapshots of a driver that have no record, parents before their children.
    fn record_snapshots(
        &self,
        cx: &Cx<'_>,
        name: &str,
        view: &Snapshots,
        done: &mut Recovered,
    ) -> Result<()> {
        let mut unnamed = view.without_record(cx)?;
        // Children come first there.
        unnamed.reverse();
        let all = view.driver().list(cx, &Filters::default())?;
        let infos: BTreeMap<&str, &Info> = all.iter().map(|info| (info.name.as_str(), info)).collect();
        for key in unnamed {
            let Some(info) = infos.get(key.as_str()) else { continue };
            match self.core.write(Change::Adds, |tx| record_snapshot(tx, name, info))? {
                Ok(()) => done.snapshots += 1,
                Err(why) => done.left.push(format!("snapshotter {name}: snapshot {key}: {why}")),
            }
        }
        Ok(())
    }

    /// Records the blobs that have no record and are whole, wherever something is recorded.
    fn record_blobs(&self, cx: &Cx<'_>, bundles: &[Bundle], done: &mut Recovered) -> Result<()> {
        let named = self.core.read::<_, DbError>(|rows| Named::read(rows))?;
        let mut namespaces: BTreeSet<String> =
            self.core.read::<_, DbError>(|rows| namespace::all(rows))?.into_iter().collect();
        namespaces.extend(bundles.iter().map(|bundle| bundle.namespace.to_string()));
        if namespaces.is_empty() {
            namespaces.insert(DEFAULT.to_owned());
        }
        for digest in self.content.layout().list_blobs()? {
            if named.blobs.contains(digest.as_str()) {
                continue;
            }
            if self.content.discard_unless_whole(cx, &digest)? {
                done.lost_blobs.push(digest.to_string());
                continue;
            }
            let Some(size) = self.content.layout().blob_size(&digest)? else { continue };
            self.core.write(Change::Adds, |tx| {
                namespaces.iter().try_for_each(|namespace| record_blob(tx, namespace, &digest, size))
            })?;
            done.blobs += 1;
        }
        Ok(())
    }

    /// Records the containers of bundles that have no record.
    fn record_containers(&self, bundles: &[Bundle], done: &mut Recovered) -> Result<()> {
        for bundle in bundles {
            let (namespace, id) = (bundle.namespace.as_str(), &bundle.container.id);
            let recorded = self.core.write(Change::Adds, |tx| {
                if tx.has(table::CONTAINERS, &table::key(&[namespace, id])?)? {
                    return Ok(false);
                }
                let mut container = container::fresh(&bundle.container)?;
                for name in self.snapshotters.keys() {
                    let below = Below { namespace, snapshotter: name };
                    if below.get(tx, id)?.is_some() {
                        container.snapshotter.clone_from(name);
                        container.snapshot_key.clone_from(id);
                    }
                }
                namespace::ensure(tx, &bundle.namespace)?;
                container::insert(tx, namespace, &container)?;
                Ok(true)
            });
            match recorded {
                Ok(true) => done.containers.push(format!("{namespace}/{id}")),
                Ok(false) => {}
                Err(error) => done.left.push(format!("container {namespace}/{id}: {error}")),
            }
        }
        Ok(())
    }
}

/// Writes the record of a driver's snapshot, or says why there can be none.
fn record_snapshot(tx: &WriteTx<'_>, snapshotter: &str, info: &Info) -> Result<Result<(), String>, Error> {
    let Some((namespace, key)) = parts(&info.name) else {
        return Ok(Err("its key names no namespace".to_owned()));
    };
    let parent = match parent(tx, snapshotter, &namespace, &info.parent)? {
        Ok(parent) => parent,
        Err(why) => return Ok(Err(why)),
    };
    let below = Below { namespace: namespace.as_str(), snapshotter };
    if below.get(tx, key)?.is_some() {
        return Ok(Err(format!("another snapshot has been recorded as {key}")));
    }
    hold(tx, &namespace, &format!("{}/{snapshotter}", lease::SNAPSHOTS), key)?;
    let row = record::Snapshot {
        driver_key: info.name.clone(),
        parent,
        created: info.created_at.into(),
        updated: info.updated_at.into(),
        labels: info.labels.clone(),
        commit: None,
    };
    below.put(tx, key, &row)?;
    Ok(Ok(()))
}

/// The namespace's key of the snapshot that the driver knows as `driver_key`; empty for none.
fn parent(
    rows: &dyn Rows,
    snapshotter: &str,
    namespace: &Namespace,
    driver_key: &str,
) -> Result<Result<String, String>, Error> {
    if driver_key.is_empty() {
        return Ok(Ok(String::new()));
    }
    let below = Below { namespace: namespace.as_str(), snapshotter };
    let all = below.all(rows)?;
    let found = all.into_iter().find(|(_, row)| row.driver_key == driver_key).map(|(key, _)| key);
    Ok(found.ok_or_else(|| format!("its parent {driver_key} has no record")))
}

/// The namespace and the key in `<namespace>/<number>/<key>`.
fn parts(driver_key: &str) -> Option<(Namespace, &str)> {
    let mut parts = driver_key.splitn(3, '/');
    let (namespace, number, key) = (parts.next()?, parts.next()?, parts.next()?);
    number.parse::<u64>().ok()?;
    Some((namespace.parse().ok()?, key)).filter(|(_, key)| !key.is_empty())
}

fn record_blob(tx: &WriteTx<'_>, namespace: &str, digest: &Digest, size: u64) -> Result<(), Error> {
    let Ok(name) = Namespace::from_str(namespace) else { return Ok(()) };
    let now = record::Time::now();
    let row = record::Blob { created: now, updated: now, size, labels: Labels::new() };
    hold(tx, &name, lease::CONTENT, digest.as_str())?;
    Ok(record::put(tx, table::BLOBS, &table::key(&[namespace, digest.as_str()])?, &row)?)
}

/// Puts something under the lease [`LEASE`], which is made with its first resource.
fn hold(tx: &WriteTx<'_>, namespace: &Namespace, kind: &str, id: &str) -> Result<(), Error> {
    namespace::ensure(tx, namespace)?;
    let name = namespace.as_str();
    if !lease::exists(tx, name, LEASE)? {
        lease::insert(tx, name, LEASE, SystemTime::now(), &Labels::new())?;
    }
    Ok(tx.put(table::HELD, &table::key(&[name, LEASE, kind, id])?, b"")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drivers_key_has_namespace_and_key() {
        let (namespace, key) = parts("k8s.io/7/sha256:ab/c").unwrap();
        assert_eq!((namespace.as_str(), key), ("k8s.io", "sha256:ab/c"));
        for odd in ["", "a", "a/b/c", "a/1/", "-/1/k"] {
            assert!(parts(odd).is_none(), "{odd}");
        }
    }
}
