//! What was on the disk before the records were: blobs, ingests and snapshots that an empty database knows nothing of.
//!
//! Records are lost with a database that is gone or empty, and are absent where Go's containerd kept its own. Collecting
//! then would delete every image and every snapshot of the node. So whatever is there when a database is made, and has no
//! record in it, is written down beside it, and no collection touches what is written down.
//!
//! ```text
//! io.containerd.metadata.v1.bolt/kept.json    there only when something is kept; removing it gives all of it free
//! ```
//!
//! Invariant: the list is durable before the empty database has its name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::snapshot::Snapshotter;
use model::{Ctx, Filters};
use serde::{Deserialize, Serialize};
use spec::Error;

use crate::content::{self, FileError, Named};
use crate::db::Rows;
use crate::snapshot;

const FILE: &str = "kept.json";
/// How long a driver may take to say what it has: one in another process may be hanging.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest list that is read: half a million snapshots.
const MAX_FILE: u64 = 64 << 20;

/// What no collection touches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Digests.
    #[serde(default)]
    pub(crate) blobs: BTreeSet<String>,
    /// Names of ingests' directories.
    #[serde(default)]
    pub(crate) ingests: BTreeSet<String>,
    /// Keys by driver; none where the driver did not say what it has, so that all of it is kept.
    #[serde(default)]
    pub(crate) snapshots: BTreeMap<String, Option<BTreeSet<String>>>,
    /// What became of the records, where there were some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<String>,
}

impl Kept {
    /// Adds what is on the disk below `root` and in `drivers`, and has no record in `rows`.
    pub(crate) fn add_unnamed(
        &mut self,
        root: &Path,
        drivers: &BTreeMap<String, Arc<dyn Snapshotter>>,
        rows: &dyn Rows,
    ) -> Result<(), Error> {
        let (blobs, ingests) = content::found(root)?;
        let named = Named::read(rows)?;
        self.blobs.extend(blobs.into_iter().filter(|digest| !named.blobs.contains(digest)));
        self.ingests.extend(ingests.into_iter().filter(|name| !named.ingests.contains(name)));
        for (name, driver) in drivers {
            self.add_snapshots(name, &**driver, &snapshot::driver_keys(rows, name)?);
        }
        Ok(())
    }

    /// What the list in `directory` says; nothing when there is none.
    pub(crate) fn read(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(FileError::new("read", &path, source).into()),
            Ok(_) => {}
        }
        serde_json::from_str(&text).map_err(|error| {
            let what = format!("{} is damaged: {error}; removing it lets collections delete", path.display());
            Error::new(spec::Kind::DataLoss, format!("{what} what it listed"))
        })
    }

    fn add_snapshots(&mut self, name: &str, driver: &dyn Snapshotter, named: &[String]) {
        let ctx = Ctx::background().with_deadline(Instant::now() + PATIENCE);
        let listed = ctx.on_this_thread(|cx| driver.list(cx, &Filters::default()));
        match listed {
            Ok(all) => {
                let named: BTreeSet<&String> = named.iter().collect();
                let keys = all.into_iter().map(|info| info.name).filter(|key| !named.contains(key));
                let keys: BTreeSet<String> = keys.collect();
                match self.snapshots.get_mut(name) {
                    Some(Some(kept)) => kept.extend(keys),
                    Some(None) => {}
                    None if keys.is_empty() => {}
                    None => drop(self.snapshots.insert(name.to_owned(), Some(keys))),
                }
            }
            Err(error) => {
                tracing::warn!(snapshotter = name, %error, "cannot tell what the snapshotter has: all of it is kept");
                self.snapshots.insert(name.to_owned(), None);
            }
        }
    }

    /// Writes the list into `directory`, durably.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), Error> {
        let (path, new) = (directory.join(FILE), directory.join("kept.json.new"));
        let text = serde_json::to_vec(self).map_err(|error| Error::internal(format!("{FILE}: {error}")))?;
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        });
        written.map_err(|source| FileError::new("write", &new, source))?;
        fs::rename(&new, &path).map_err(|source| FileError::new("rename", &new, source))?;
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| FileError::new("fsync", directory, source).into())
    }

    /// Removes the list from `directory`: everything has its record again.
    pub(crate) fn remove(directory: &Path) -> Result<(), Error> {
        let path = directory.join(FILE);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(FileError::new("unlink", &path, source).into())
            }
            _ => Ok(()),
        }
    }

    /// Whether nothing is kept. A driver that says nothing is no sign of anything: on a new node its program may only
    /// not run yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.ingests.is_empty() && self.snapshots.values().all(Option::is_none)
    }

    /// Whether the driver's snapshot `key` is kept.
    pub(crate) fn has_snapshot(&self, driver: &str, key: &str) -> bool {
        match self.snapshots.get(driver) {
            None => false,
            Some(None) => true,
            Some(Some(keys)) => keys.contains(key),
        }
    }

    /// The largest number in the keys `<namespace>/<number>/<name>` that are kept: no new key may be one of them.
    pub(crate) fn last_number(&self) -> u64 {
        let keys = self.snapshots.values().flatten().flatten();
        keys.filter_map(|key| key.split('/').nth(1)?.parse().ok()).max().unwrap_or(0)
    }

    /// Says in one sentence what is kept.
    pub(crate) fn summary(&self, directory: &Path) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let snapshots: usize = self.snapshots.values().flatten().map(BTreeSet::len).sum();
        Some(format!(
            "the metadata database was made anew over {} blobs and {snapshots} snapshots that it knows nothing of; no \
             collection touches them until `containerd recover` has recorded them again, or {} is removed",
            self.blobs.len(),
            directory.join(FILE).display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_back_and_a_damaged_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Kept::read(dir.path()).unwrap(), Kept::default());
        let keys = BTreeSet::from(["k8s.io/7/a".to_owned(), "moby/41/b\nc".to_owned(), "odd".to_owned()]);
        let kept = Kept {
            blobs: BTreeSet::from(["sha256:00".to_owned()]),
            ingests: BTreeSet::new(),
            snapshots: BTreeMap::from([("overlayfs".to_owned(), Some(keys)), ("far".to_owned(), None)]),
            lost: Some("it is empty".to_owned()),
        };
        kept.write(dir.path()).unwrap();
        assert_eq!(Kept::read(dir.path()).unwrap(), kept);
        assert_eq!(kept.last_number(), 41);
        assert!(kept.has_snapshot("overlayfs", "odd") && !kept.has_snapshot("overlayfs", "even"));
        assert!(kept.has_snapshot("far", "any") && !kept.has_snapshot("native", "odd"));
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(Kept::read(dir.path()).unwrap_err().kind(), spec::Kind::DataLoss);
    }
}
