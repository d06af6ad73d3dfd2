//! What the `containerd.io/gc.*` labels of a record say.

use std::time::{Duration, SystemTime};

use spec::Labels;
use spec::label::{GC_PREFIX, GC_REF_CONTENT, GC_REF_IMAGE, GC_REF_SNAPSHOT, GC_ROOT};

use super::{Kind, rfc3339, time::go_duration};

const BACK_CONTAINER: &str = "containerd.io/gc.bref.container";
const BACK_CONTENT: &str = "containerd.io/gc.bref.content";
const BACK_IMAGE: &str = "containerd.io/gc.bref.image";
const BACK_SNAPSHOT: &str = "containerd.io/gc.bref.snapshot.";
const CONDITION: &str = "containerd.io/gc.cond.snapshot";
const USED_AT: &str = "containerd.io/gc.cond.value-usedat";

/// Whether the record is a root by itself.
pub(super) fn is_root(labels: &Labels) -> bool {
    gc_labels(labels).any(|(key, _)| key.starts_with(GC_ROOT))
}

/// What the record keeps.
pub(super) fn references(labels: &Labels) -> impl Iterator<Item = (Kind, String)> {
    gc_labels(labels).filter_map(|(key, value)| {
        target(key, value, GC_REF_CONTENT, Kind::Content)
            .or_else(|| target(key, value, GC_REF_IMAGE, Kind::Image))
            .or_else(|| snapshot(key, value, GC_REF_SNAPSHOT))
    })
}

/// What keeps the record.
pub(super) fn back_references(labels: &Labels) -> impl Iterator<Item = (Kind, String)> {
    gc_labels(labels).filter_map(|(key, value)| {
        target(key, value, BACK_CONTAINER, Kind::Container)
            .or_else(|| target(key, value, BACK_CONTENT, Kind::Content))
            .or_else(|| target(key, value, BACK_IMAGE, Kind::Image))
            .or_else(|| snapshot(key, value, BACK_SNAPSHOT))
    })
}

/// A snapshot kept while the time of its last use compares as asked.
pub(super) struct Condition {
    /// The snapshot's key, with the snapshotter's name.
    pub(super) snapshot: String,
    younger: bool,
    age: Duration,
}

impl Condition {
    /// Whether the snapshot with these labels satisfies it.
    pub(super) fn holds(&self, labels: &Labels, now: SystemTime) -> bool {
        gc_labels(labels).filter(|(key, _)| key.starts_with(USED_AT)).any(|(_, value)| {
            let Some(used_at) = rfc3339(value) else { return false };
            // A time in the future has a negative age: younger than anything.
            match now.duration_since(used_at) {
                Ok(age) => {
                    if self.younger {
                        age < self.age
                    } else {
                        age > self.age
                    }
                }
                Err(_) => self.younger,
            }
        })
    }
}

/// The conditions of a record: `usedat<1h,usedat>2d|key`, of which any is enough.
pub(super) fn conditions(labels: &Labels) -> impl Iterator<Item = Condition> {
    gc_labels(labels).flat_map(|(key, value)| {
        let name = key.strip_prefix(CONDITION).map(|rest| rest.trim_start_matches(['.', '/']));
        let name = name.map(|rest| rest.split('/').next().unwrap_or_default());
        let parts = name.and_then(|name| value.split_once('|').map(|(list, key)| (name, list, key)));
        parts.into_iter().flat_map(|(name, list, key)| {
            list.split(',').filter_map(move |text| {
                let (younger, age) = match text.strip_prefix("usedat")?.split_at_checked(1)? {
                    ("<", age) => (true, age),
                    (">", age) => (false, age),
                    _ => return None,
                };
                Some(Condition { snapshot: format!("{name}/{key}"), younger, age: go_duration(age)? })
            })
        })
    })
}

/// Every label that garbage collection may read; labels are in order, so these are neighbours.
fn gc_labels(labels: &Labels) -> impl Iterator<Item = (&str, &str)> {
    labels
        .range(GC_PREFIX.to_owned()..)
        .take_while(|(key, _)| key.starts_with(GC_PREFIX))
        .map(|(key, value)| (key.as_str(), value.as_str()))
}

/// `prefix`, `prefix.x` and `prefix/x` name a record of `kind`.
fn target(key: &str, value: &str, prefix: &str, kind: Kind) -> Option<(Kind, String)> {
    let rest = key.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with(['.', '/'])).then(|| (kind, value.to_owned()))
}

/// `prefix<snapshotter>` and `prefix<snapshotter>/x` name a snapshot.
fn snapshot(key: &str, value: &str, prefix: &str) -> Option<(Kind, String)> {
    let rest = key.strip_prefix(prefix)?;
    let name = rest.split('/').next().unwrap_or_default();
    Some((Kind::Snapshot, format!("{name}/{value}")))
}
