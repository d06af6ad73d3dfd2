//! What snapshots take on disk, measured in the background and never for an answer.
//!
//! A committed snapshot does not change and is measured once. The others are walked, which takes as long as they are
//! large: measuring takes at most half of the time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use ::spec::Kind;
use model::snapshot::{Kind as SnapshotKind, Snapshotter};
use model::{Filters, Result};

use super::now;
use crate::Cri;

/// How many snapshots are measured in one visit to the blocking side.
const AT_ONCE: usize = 32;

/// What something takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    /// When it was measured, in nanoseconds since 1970.
    pub at: i64,
    /// Bytes.
    pub size: u64,
    /// Inodes.
    pub inodes: u64,
}

/// What every snapshot takes, by snapshotter and key.
#[derive(Debug, Default)]
pub(crate) struct DiskUse(RwLock<HashMap<String, HashMap<String, Disk>>>);

impl DiskUse {
    /// What one snapshot took when it was last measured.
    pub fn of(&self, snapshotter: &str, key: &str) -> Option<Disk> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(snapshotter)?.get(key).copied()
    }

    /// Sums, each as old as its oldest part.
    pub fn by_snapshotter(&self) -> BTreeMap<String, Disk> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let sum = |sum: Option<Disk>, one: &Disk| {
            let sum = sum.unwrap_or(Disk { at: one.at, ..Disk::default() });
            Some(Disk {
                at: sum.at.min(one.at),
                size: sum.size.saturating_add(one.size),
                inodes: sum.inodes.saturating_add(one.inodes),
            })
        };
        let sums = known.iter().map(|(name, all)| (name.clone(), all.values().fold(None, sum)));
        sums.filter_map(|(name, disk)| Some((name, disk?))).collect()
    }

    fn note(&self, snapshotter: &str, measured: impl IntoIterator<Item = (String, Disk)>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.entry(snapshotter.to_owned()).or_default().extend(measured);
    }

    /// Forgets what is there no more, and renews the time of what cannot have changed.
    fn keep(&self, snapshotter: &str, all: &HashSet<String>, settled: &HashSet<String>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = known.get_mut(snapshotter) else { return };
        known.retain(|key, _| all.contains(key));
        let at = now();
        settled.iter().for_each(|key| {
            known.entry(key.clone()).and_modify(|disk| disk.at = at);
        });
    }
}

/// Measures again and again, until the server is gone.
pub(super) async fn watch(cri: Weak<Cri>, period: Duration) {
    loop {
        let begun = Instant::now();
        {
            let Some(cri) = cri.upgrade() else { return };
            for (name, driver) in &cri.engine.snapshotters {
                if let Err(error) = measure(&cri, name, driver).await {
                    tracing::warn!(snapshotter = name, %error, "cannot measure snapshots");
                }
            }
        }
        tokio::time::sleep(period.max(begun.elapsed())).await;
    }
}

async fn measure(cri: &Arc<Cri>, name: &str, driver: &Arc<dyn Snapshotter>) -> Result<()> {
    let ctx = cri.ctx();
    let lister = Arc::clone(driver);
    let infos = cri.on_disk(&ctx, move |_, cx| lister.list(cx, &Filters::default())).await?;
    let (mut all, mut settled, mut due) = (HashSet::new(), HashSet::new(), Vec::new());
    for info in infos {
        if info.kind == SnapshotKind::Committed && cri.disk.of(name, &info.name).is_some() {
            settled.insert(info.name.clone());
        } else {
            due.push(info.name.clone());
        }
        all.insert(info.name);
    }
    for keys in due.chunks(AT_ONCE) {
        let (driver, keys) = (Arc::clone(driver), keys.to_vec());
        let measured = cri.on_disk(&ctx, move |_, cx| {
            let mut measured = Vec::new();
            for key in keys {
                match driver.usage(cx, &key) {
                    Ok(usage) => {
                        measured.push((key, Disk { at: now(), size: usage.size, inodes: usage.inodes }));
                    }
                    // It was removed in between.
                    Err(error) if error.kind() == Kind::NotFound => {}
                    Err(error) => tracing::debug!(snapshot = key, %error, "cannot measure a snapshot"),
                }
            }
            Ok(measured)
        });
        cri.disk.note(name, measured.await?);
    }
    cri.disk.keep(name, &all, &settled);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_as_old_as_its_oldest_part_and_gone_snapshots_do_not_count() {
        let disk = DiskUse::default();
        let one = |at, size| Disk { at, size, inodes: 1 };
        disk.note("overlayfs", [("a".to_owned(), one(5, 10)), ("b".to_owned(), one(3, 20))]);
        let sums = disk.by_snapshotter();
        assert_eq!(sums["overlayfs"], Disk { at: 3, size: 30, inodes: 2 });
        disk.keep("overlayfs", &HashSet::from(["a".to_owned()]), &HashSet::new());
        assert_eq!(disk.by_snapshotter()["overlayfs"], one(5, 10));
        assert_eq!(disk.of("overlayfs", "b"), None);
    }
}
