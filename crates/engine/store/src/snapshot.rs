//! The namespaces' view of a snapshot driver.
//!
//! The driver knows a snapshot as `<namespace>/<number>/<key>`; the record maps the namespace's key to that. A verb
//! that creates looks first at what there is, then asks the driver, then records.
//! What the driver made and no record names is removed at once on failure, and by the next sweep after a crash.
//!
//! Invariant: a sweep removes only what has no record and is not being made: it lists the driver's snapshots first, then
//! those that are being made, then the records. What was listed and is recorded later was being made in between.
//! Invariant: verbs on the same key or name run one after the other, so a check made before the driver's work holds
//! behind it, but for what a collection or a removed parent changed.

mod error;
mod lost;
mod recover;
mod rows;
mod sweep;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use api::containerd::events::{SnapshotCommit, SnapshotPrepare, SnapshotRemove};
use model::filter::Filters;
use model::mask::{self, Mask};
use model::snapshot::{Commit, Info, Kind as SnapshotKind, Mount, REBASE, Snapshotter, Usage};
use model::{Cx, Result};
use spec::label::SNAPSHOT_REF;
use spec::{Error, Kind, Labels};

pub use error::SnapshotError;
pub(crate) use rows::{Below, driver_keys, forget};

use crate::core::{Change, Core};
use crate::db::Rows;
use crate::hold::{Hold, Holds};
use crate::{lease, namespace, record};

/// Labels with this prefix are the driver's business too.
const INHERITED: &str = "containerd.io/snapshot/";

/// The view of one driver.
pub(crate) struct Snapshots {
    core: Arc<Core>,
    name: String,
    driver: Arc<dyn Snapshotter>,
    /// The driver's keys of what is being made: given out, perhaps made, not recorded yet.
    making: Holds,
    /// Keys that verbs work on.
    keys: Holds,
    /// Held by a sweep, and while a snapshot that the driver has had all along gets its first record.
    adopting: Mutex<()>,
}

/// A snapshot that the driver has and no record names yet.
struct Made {
    driver_key: String,
    parent_driver_key: String,
    created: SystemTime,
    updated: SystemTime,
    labels: Labels,
}

/// A request to make a snapshot.
struct Request<'r> {
    key: &'r str,
    parent: &'r str,
    labels: &'r Labels,
    view: bool,
}

impl Snapshots {
    pub(crate) fn new(core: Arc<Core>, name: String, driver: Arc<dyn Snapshotter>) -> Self {
        Self {
            core,
            name,
            driver,
            making: Holds::default(),
            keys: Holds::default(),
            adopting: Mutex::default(),
        }
    }

    /// The driver below.
    pub(crate) fn driver(&self) -> Arc<dyn Snapshotter> {
        Arc::clone(&self.driver)
    }

    fn below<'b>(&'b self, cx: &'b Cx<'_>) -> Result<Below<'b>> {
        Ok(Below { namespace: cx.namespace()?.as_str(), snapshotter: &self.name })
    }

    fn hold(&self, cx: &Cx<'_>, keys: &[&str]) -> Result<Hold<'_>> {
        let namespace = cx.namespace()?;
        self.keys.take(cx, keys.iter().map(|key| format!("{namespace}\0{key}")).collect())
    }

    fn row(&self, cx: &Cx<'_>, key: &str) -> Result<record::Snapshot> {
        let below = self.below(cx)?;
        self.core.read(|rows| below.require(rows, key))
    }

    /// The resource kind by which a lease holds a snapshot of this driver.
    fn kind(&self) -> String {
        format!("{}/{}", lease::SNAPSHOTS, self.name)
    }

    fn make(&self, cx: &Cx<'_>, request: &Request<'_>) -> Result<Vec<Mount>> {
        check_labels(request.labels)?;
        let target = request.labels.get(SNAPSHOT_REF).map(String::as_str).filter(|target| !target.is_empty());
        let _hold = self.hold(cx, &[request.key, target.unwrap_or(request.key)])?;
        self.drop_lost(cx, target)?;
        self.drop_lost(cx, Some(request.key))?;
        let (driver_key, parent) = self.begin(cx, request, target)?;
        let _making = self.making.take(cx, vec![driver_key.clone()])?;
        match self.ask(cx, request, driver_key, &parent) {
            Ok((made, mounts)) => {
                if let Err(error) = self.record(cx, request, request.key, &made) {
                    self.take_back(cx, &made.driver_key);
                    return Err(error);
                }
                Ok(mounts)
            }
            Err(error) if error.kind() == Kind::AlreadyExists => match target {
                Some(target) => Err(self.adopt(cx, request, target, &parent)?.into()),
                // The key is new and unique: no caller must take this for its own key being known.
                None => Err(Error::new(Kind::Unknown, format!("unexpected error from snapshotter: {error}"))),
            },
            Err(error) => Err(error),
        }
    }

    /// Looks at what there is: what is known is held by the lease and told; else the driver's keys of the new snapshot
    /// and of its parent.
    fn begin(&self, cx: &Cx<'_>, request: &Request<'_>, target: Option<&str>) -> Result<(String, String)> {
        let below = self.below(cx)?;
        let known = |rows: &dyn Rows| -> Result<Option<(String, SnapshotError)>> {
            if let Some(target) = target
                && below.get(rows, target)?.is_some()
            {
                return Ok(Some((target.to_owned(), SnapshotError::Target(target.to_owned()))));
            }
            let found = below.get(rows, request.key)?;
            Ok(found.map(|_| (request.key.to_owned(), SnapshotError::Exists(request.key.to_owned()))))
        };
        let (known, parent) = self.core.read(|rows| {
            lease::check(rows, cx)?;
            let known = known(rows)?;
            let parent = match request.parent {
                parent if !parent.is_empty() && known.is_none() => {
                    below.require_parent(rows, parent)?.driver_key
                }
                _ => String::new(),
            };
            Ok::<_, Error>((known, parent))
        })?;
        if let Some((key, error)) = known {
            self.core.write(Change::Adds, |tx| lease::hold(tx, cx, &self.kind(), &key))?;
            return Err(error.into());
        }
        Ok((self.core.unique_key(below.namespace, request.key)?, parent))
    }

    /// The driver's work.
    fn ask(
        &self,
        cx: &Cx<'_>,
        request: &Request<'_>,
        driver_key: String,
        parent: &str,
    ) -> Result<(Made, Vec<Mount>)> {
        let labels = inherited(request.labels);
        let mounts = if request.view {
            self.driver.view(cx, &driver_key, parent, &labels)?
        } else {
            self.driver.prepare(cx, &driver_key, parent, &labels)?
        };
        let now = SystemTime::now();
        let labels = mask::without_empty(request.labels);
        let parent_driver_key = parent.to_owned();
        Ok((Made { driver_key, parent_driver_key, created: now, updated: now, labels }, mounts))
    }

    /// The driver has had the wanted snapshot all along, and now the namespace has it too; what the caller is told.
    fn adopt(&self, cx: &Cx<'_>, request: &Request<'_>, target: &str, parent: &str) -> Result<SnapshotError> {
        // A sweep may just have found that no record names it.
        let _no_sweep = self.adopting.lock().unwrap_or_else(PoisonError::into_inner);
        let made = self.find_target(cx, request, target, parent)?;
        self.record(cx, request, target, &made)?;
        Ok(SnapshotError::TargetInDriver(target.to_owned()))
    }

    /// The committed snapshot that the driver has for `target` on that parent.
    fn find_target(&self, cx: &Cx<'_>, request: &Request<'_>, target: &str, parent: &str) -> Result<Made> {
        let all = self.driver.list(cx, &Filters::default())?;
        let found = all.into_iter().find(|info| {
            info.kind == SnapshotKind::Committed
                && info.parent == parent
                && info.labels.get(SNAPSHOT_REF).is_some_and(|value| value == target)
        });
        let found = found.ok_or_else(|| SnapshotError::NoTarget(target.to_owned()))?;
        let mut labels = found.labels;
        labels.extend(mask::without_empty(request.labels));
        Ok(Made {
            driver_key: found.name,
            parent_driver_key: found.parent,
            created: found.created_at,
            updated: found.updated_at,
            labels,
        })
    }

    /// Records what the driver made.
    fn record(&self, cx: &Cx<'_>, request: &Request<'_>, key: &str, made: &Made) -> Result<()> {
        let below = self.below(cx)?;
        self.core.write(Change::Adds, |tx| {
            namespace::ensure(tx, cx.namespace()?)?;
            lease::hold(tx, cx, &self.kind(), key)?;
            if below.get(tx, key)?.is_some() {
                return Err(SnapshotError::Exists(key.to_owned()).into());
            }
            if !request.parent.is_empty() {
                let parent = below.require_parent(tx, request.parent)?;
                if parent.driver_key != made.parent_driver_key {
                    let (parent, target) = (request.parent.to_owned(), key.to_owned());
                    return Err(SnapshotError::Parent { parent, target }.into());
                }
            }
            let row = record::Snapshot {
                driver_key: made.driver_key.clone(),
                parent: request.parent.to_owned(),
                created: made.created.into(),
                updated: made.updated.into(),
                labels: made.labels.clone(),
                commit: None,
            };
            below.put(tx, key, &row)
        })
    }

    /// Removes what the driver made and nobody recorded.
    fn take_back(&self, cx: &Cx<'_>, driver_key: &str) {
        if let Err(error) = self.driver.remove(cx, driver_key) {
            tracing::warn!(snapshotter = self.name, key = driver_key, %error, "cannot remove an unrecorded snapshot");
        }
        self.core.demand.dirty_driver(&self.name);
        self.core.demand.changed(true);
    }

    /// The first transaction of a commit: whether `key` may become `name`, and the note that it is about to.
    fn begin_commit(&self, cx: &Cx<'_>, name: &str, key: &str, commit: &Commit) -> Result<Plan> {
        let below = self.below(cx)?;
        let driver_key = self.core.unique_key(below.namespace, name)?;
        let plan = self.core.write(Change::Adds, |tx| {
            lease::check(tx, cx)?;
            if below.get(tx, name)?.is_some() {
                lease::hold(tx, cx, &self.kind(), name)?;
                return Ok(Err(SnapshotError::Exists(name.to_owned())));
            }
            let mut row = below.require(tx, key)?;
            let wanted = commit.parent.as_deref().unwrap_or_default();
            let rebase = row.parent.is_empty() && !wanted.is_empty();
            if rebase && !self.driver.capabilities().contains(&REBASE) {
                return Err(SnapshotError::NoRebase(self.name.clone()).into());
            }
            let parent = if rebase { wanted } else { row.parent.as_str() };
            let below_driver_key = match parent {
                "" => String::new(),
                parent => below.require_parent(tx, parent)?.driver_key,
            };
            let becomes = record::SnapshotCommit {
                name: name.to_owned(),
                driver_key,
                parent: parent.to_owned(),
                labels: mask::without_empty(&commit.labels),
                lease: cx.lease().map(|lease| lease.as_str().to_owned()).unwrap_or_default(),
            };
            row.commit = Some(becomes.clone());
            below.put(tx, key, &row)?;
            let rebase = rebase.then_some(below_driver_key);
            Ok(Ok(Plan { driver_key: row.driver_key, becomes, rebase }))
        })?;
        Ok(plan?)
    }
}

/// What a commit will do.
struct Plan {
    /// The driver's key of what is committed.
    driver_key: String,
    becomes: record::SnapshotCommit,
    /// The driver's key of the parent that it gets now.
    rebase: Option<String>,
}

impl Snapshotter for Snapshots {
    fn capabilities(&self) -> &[&'static str] {
        self.driver.capabilities()
    }

    fn stat(&self, cx: &Cx<'_>, key: &str) -> Result<Info> {
        let row = self.row(cx, key)?;
        Ok(merge(self.driver.stat(cx, &row.driver_key)?, key, row))
    }

    fn update(&self, cx: &Cx<'_>, key: &str, labels: &Labels, mask: &Mask) -> Result<Info> {
        let below = self.below(cx)?;
        let _hold = self.hold(cx, &[key])?;
        let row = self.core.write_and_tell(|tx| {
            let mut row = below.require(tx, key)?;
            let stored = row.labels.clone();
            mask::apply_to_labels(&mut row.labels, labels, mask)
                .map_err(|path| SnapshotError::Field { path: path.to_owned(), key: key.to_owned() })?;
            check_labels(&row.labels)?;
            row.updated = record::Time::now();
            below.put(tx, key, &row)?;
            let change = Change::of_labels(&stored, &row.labels);
            Ok((row, change))
        })?;
        let info = self.driver.update(cx, &row.driver_key, &inherited(&row.labels), mask)?;
        Ok(merge(info, key, row))
    }

    fn usage(&self, cx: &Cx<'_>, key: &str) -> Result<Usage> {
        self.driver.usage(cx, &self.row(cx, key)?.driver_key)
    }

    fn mounts(&self, cx: &Cx<'_>, key: &str) -> Result<Vec<Mount>> {
        self.driver.mounts(cx, &self.row(cx, key)?.driver_key)
    }

    fn prepare(&self, cx: &Cx<'_>, key: &str, parent: &str, labels: &Labels) -> Result<Vec<Mount>> {
        let mounts = self.make(cx, &Request { key, parent, labels, view: false })?;
        let event = SnapshotPrepare {
            key: key.to_owned(),
            parent: parent.to_owned(),
            snapshotter: self.name.clone(),
        };
        self.core.publish(cx.namespace()?, "/snapshot/prepare", &event);
        Ok(mounts)
    }

    fn view(&self, cx: &Cx<'_>, key: &str, parent: &str, labels: &Labels) -> Result<Vec<Mount>> {
        self.make(cx, &Request { key, parent, labels, view: true })
    }

    fn commit(&self, cx: &Cx<'_>, name: &str, key: &str, commit: &Commit) -> Result<()> {
        check_labels(&commit.labels)?;
        let _hold = self.hold(cx, &[name, key])?;
        self.drop_lost(cx, Some(name))?;
        let plan = self.begin_commit(cx, name, key, commit)?;
        let _making = self.making.take(cx, vec![plan.becomes.driver_key.clone()])?;
        let below = Commit { labels: inherited(&commit.labels), parent: plan.rebase };
        let rows = self.below(cx)?;
        if let Err(error) = self.driver.commit(cx, &plan.becomes.driver_key, &plan.driver_key, &below) {
            self.core.write(Change::Adds, |tx| rows.clear_commit(tx, key))?;
            return Err(error);
        }
        let recorded = self.core.write(Change::Adds, |tx| rows.finish_commit(tx, key, &plan.becomes))?;
        if let Err(error) = recorded {
            self.take_back(cx, &plan.becomes.driver_key);
            return Err(error.into());
        }
        let event =
            SnapshotCommit { key: key.to_owned(), name: name.to_owned(), snapshotter: self.name.clone() };
        self.core.publish(cx.namespace()?, "/snapshot/commit", &event);
        Ok(())
    }

    fn remove(&self, cx: &Cx<'_>, key: &str) -> Result<()> {
        let below = self.below(cx)?;
        let _hold = self.hold(cx, &[key])?;
        self.core.write(Change::Removes, |tx| {
            below.require(tx, key)?;
            if below.has_children(tx, key)? {
                return Err(SnapshotError::Child.into());
            }
            forget(tx, below.namespace, &self.name, key)?;
            lease::release(tx, cx, &self.kind(), key)
        })?;
        self.core.demand.dirty_driver(&self.name);
        let event = SnapshotRemove { key: key.to_owned(), snapshotter: self.name.clone() };
        self.core.publish(cx.namespace()?, "/snapshot/remove", &event);
        Ok(())
    }

    fn list(&self, cx: &Cx<'_>, filters: &Filters) -> Result<Vec<Info>> {
        let below = self.below(cx)?;
        let rows = self.core.read(|rows| below.all(rows))?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut driver: BTreeMap<String, Info> = self
            .driver
            .list(cx, &Filters::default())?
            .into_iter()
            .map(|info| (info.name.clone(), info))
            .collect();
        let infos = rows.into_iter().filter_map(|(key, row)| {
            // What the driver has lost cannot be listed; `check` tells of it.
            let info = driver.remove(&row.driver_key)?;
            Some(merge(info, &key, row))
        });
        Ok(infos.filter(|info| filters.matches(info)).collect())
    }

    fn cleanup(&self, cx: &Cx<'_>) -> Result<()> {
        self.driver.cleanup(cx)
    }
}

/// The driver's information under the namespace's names, times and labels.
fn merge(driver: Info, key: &str, row: record::Snapshot) -> Info {
    let mut labels = driver.labels;
    labels.extend(row.labels);
    Info {
        kind: driver.kind,
        name: key.to_owned(),
        parent: row.parent,
        labels,
        created_at: row.created.into(),
        updated_at: row.updated.into(),
    }
}

/// The labels that the driver is told.
fn inherited(labels: &Labels) -> Labels {
    labels
        .iter()
        .filter(|(key, _)| *key == SNAPSHOT_REF || key.starts_with(INHERITED))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn check_labels(labels: &Labels) -> Result<()> {
    spec::label::check_all(labels).map_err(|error| error.context("info.Labels"))
}
