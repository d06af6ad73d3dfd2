//! What the drivers share: records, the life of a snapshot's directory, and the trait's verbs over them.
//!
//! ```text
//! <root>/metadata.redb      records
//! <root>/records/<id>       a second copy of each, from which a lost database is made again
//! <root>/snapshots/<id>/    one snapshot; what is in it is the driver's [`Layout`]
//! <root>/snapshots/new-*    being made; removed when the driver opens
//! <root>/set-aside/<id>     directories that no record is of, moved there by an operator's recovery
//! ```
//!
//! Invariant: a directory `<id>` exists before its record does and goes after it, so every record has its directory.
//! Invariant: an id is never given out twice, so a directory without a record is garbage for ever. Directories that were
//! there before the records (of Go's containerd, or of records that are lost) are no garbage and keep their numbers.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use model::mask::Mask;
use model::snapshot::{Commit, Info, Kind, Mount, Snapshotter, Usage};
use model::{Cx, Filters};
use spec::{Labels, Result};
use sys::path::{Root, at};

mod copy;
mod distrust;
mod error;

pub mod native;
pub mod overlay;
mod record_files;
mod records;
mod restore;
mod settle;
mod usage;

pub(crate) use copy::copy_tree;
pub use error::SnapshotError;
pub(crate) use settle::{hide_root, remove_whiteouts};

pub use records::Place;
use records::Records;
pub use restore::Origin;

use crate::lower::Lower;

/// The directory of what a recovery moved out of the way.
const ASIDE: &str = "set-aside";

/// How a driver lays out one snapshot.
pub trait Layout: Send + Sync {
    /// Fills the new, empty directory `dir` of a snapshot; `parents` are the directories below it, nearest first.
    fn fill(&self, cx: &Cx<'_>, dir: BorrowedFd<'_>, new: &New<'_>) -> Result<()>;

    /// How to mount the snapshot.
    fn mounts(&self, paths: &Paths, place: &Place) -> Vec<Mount>;

    /// The directory in a snapshot's directory that holds its files; empty for that directory itself.
    fn files(&self) -> &'static str;

    /// Whether layers are separate directories that a mount puts on top of each other.
    fn is_stacked(&self) -> bool;

    /// Labels to add to what is stored.
    fn decorate(&self, _paths: &Paths, _id: u64, _labels: &mut Labels) {}

    /// What the driver can do beyond the common.
    fn capabilities(&self) -> &[&'static str];
}

/// A snapshot about to be made.
#[derive(Debug)]
pub struct New<'a> {
    /// Active or view.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'a Labels,
    /// The directory with the files of its parent.
    pub parent: Option<PathBuf>,
}

/// Where a driver keeps things.
#[derive(Clone, Debug)]
pub struct Paths {
    root: PathBuf,
    files: &'static str,
}

impl Paths {
    /// The directory of the snapshot `id`.
    pub fn snapshot(&self, id: u64) -> PathBuf {
        self.root.join("snapshots").join(id.to_string())
    }

    /// The directory with the files of the snapshot `id`.
    pub fn files(&self, id: u64) -> PathBuf {
        let dir = self.snapshot(id);
        if self.files.is_empty() { dir } else { dir.join(self.files) }
    }
}

/// A driver: the common verbs over one [`Layout`].
pub struct Driver<L> {
    layout: L,
    paths: Paths,
    snapshots: Root,
    records: Records,
    origin: Origin,
    sync_remove: bool,
    staged: AtomicU64,
    /// Held while directories are deleted: of two that delete one tree, one would find names gone under its feet.
    deleting: Mutex<()>,
    /// Directories with a lower number are never garbage.
    kept: u64,
}

impl<L: Layout> Driver<L> {
    /// Opens the driver's directory, making it when it is absent, and removes what a crash left in it.
    pub(crate) fn open_with(root: &Path, layout: L, sync_remove: bool) -> Result<Self> {
        make_private_dir(root)?;
        let dir = root.join("snapshots");
        make_private_dir(&dir)?;
        let snapshots = Root::open_dir(&dir).map_err(SnapshotError::files("open", &dir))?;
        let entries = at::entries(snapshots.as_fd()).map_err(SnapshotError::files("list", &dir))?;
        let numbers: BTreeSet<u64> =
            entries.iter().filter_map(|(name, _)| name.to_str()?.parse().ok()).collect();
        let (records, origin) = restore::open(&root.join("metadata.redb"), &numbers)?;
        if let Some(notice) = origin.notice() {
            tracing::warn!("{notice}");
        }
        let paths = Paths { root: root.to_owned(), files: layout.files() };
        let kept = records.keep(numbers.last().copied())?;
        if kept > 0 {
            tracing::warn!(
                directory = %dir.display(),
                "directories below number {kept} are older than the records of snapshots: they are kept"
            );
        }
        let driver = Self {
            layout,
            paths,
            snapshots,
            records,
            origin,
            sync_remove,
            staged: AtomicU64::new(0),
            deleting: Mutex::new(()),
            kept,
        };
        driver.remove_garbage(&driver.garbage(true)?)?;
        Ok(driver)
    }

    /// The driver's root directory.
    pub fn root(&self) -> &Path {
        &self.paths.root
    }

    /// How the driver's records came to be when it was opened.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Moves directories that have no record, and were kept for being older than the records, out of the way; where to.
    /// They are the operator's to look at and to delete.
    ///
    /// # Errors
    /// A directory cannot be listed or moved.
    pub fn set_aside(&self) -> Result<Vec<PathBuf>> {
        let dir = self.paths.root.join("snapshots");
        let old: Vec<u64> = self.records.with_ids(|known: &BTreeSet<u64>| {
            let entries = at::entries(self.snapshots.as_fd()).map_err(SnapshotError::files("list", &dir))?;
            let numbers = entries.into_iter().filter_map(|(name, _)| name.to_str()?.parse().ok());
            Ok(numbers.filter(|id| *id < self.kept && !known.contains(id)).collect())
        })?;
        let aside = self.paths.root.join(ASIDE);
        if !old.is_empty() {
            make_private_dir(&aside)?;
        }
        let mut moved = Vec::new();
        for id in old {
            let (from, to) = (self.paths.snapshot(id), aside.join(id.to_string()));
            std::fs::rename(&from, &to).map_err(|source| SnapshotError::Open { path: from, source })?;
            moved.push(to);
        }
        Ok(moved)
    }

    fn create(
        &self,
        cx: &Cx<'_>,
        kind: Kind,
        key: &str,
        parent: &str,
        labels: &Labels,
    ) -> Result<Vec<Mount>> {
        let below = self.records.check_new(key, parent)?;
        let parent_files = below.first().map(|&id| self.paths.files(id));
        let new = New { kind, labels, parent: parent_files };
        let staged = self.stage()?;
        let made = self.layout.fill(cx, staged.dir.as_fd(), &new).and_then(|()| {
            let place = self.records.create(kind, key, parent, &below, labels, |id| {
                self.publish(&staged, id).map_err(SnapshotError::files("rename", self.paths.snapshot(id)))
            })?;
            Ok(self.layout.mounts(&self.paths, &place))
        });
        if made.is_err() {
            // A record that could not be written leaves the directory under its staged name or its number; both are
            // garbage, the latter for the next clean-up.
            let _ = sys::path::remove_tree(self.snapshots.as_fd(), &staged.name);
        }
        made
    }

    /// Gives a staged directory its number. A directory that has it is left of a record that could not be written.
    fn publish(&self, staged: &Staged, id: u64) -> sys::Result<()> {
        let (dir, name) = (self.snapshots.as_fd(), OsString::from(id.to_string()));
        match at::rename_new(dir, &staged.name, dir, &name) {
            Err(error) if error.is(libc::EEXIST) => {
                sys::path::remove_tree(dir, &name)?;
                at::rename_new(dir, &staged.name, dir, &name)
            }
            done => done,
        }
    }

    fn stage(&self) -> Result<Staged, SnapshotError> {
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        let name = OsString::from(format!("new-{number}"));
        at::make_dir(self.snapshots.as_fd(), &name, 0o700)
            .and_then(|()| at::open(self.snapshots.as_fd(), &name, libc::O_RDONLY | libc::O_DIRECTORY, 0))
            .map(|dir| Staged { name: name.clone(), dir })
            .map_err(SnapshotError::files("make", self.paths.root.join("snapshots").join(name)))
    }

    /// Names in the snapshots' directory that no record has. Those still being made count only while nobody makes any.
    fn garbage(&self, opening: bool) -> Result<Vec<OsString>, SnapshotError> {
        let dir = self.paths.root.join("snapshots");
        self.records.with_ids(|known: &BTreeSet<u64>| {
            let entries = at::entries(self.snapshots.as_fd()).map_err(SnapshotError::files("list", &dir))?;
            let is_garbage = |name: &OsStr| match name.to_str().map(str::parse::<u64>) {
                Some(Ok(id)) => id >= self.kept && !known.contains(&id),
                _ => opening,
            };
            Ok(entries.into_iter().map(|(name, _)| name).filter(|name| is_garbage(name)).collect())
        })
    }

    /// Removes directories; every one is tried, the first failure is returned.
    fn remove_garbage(&self, names: &[OsString]) -> Result<(), SnapshotError> {
        let _alone = self.deleting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failure = None;
        for name in names {
            let removed = sys::path::remove_tree(self.snapshots.as_fd(), name);
            if let Err(error) = removed {
                let path = self.paths.root.join("snapshots").join(name);
                failure.get_or_insert(SnapshotError::Files { what: "remove", path, source: error });
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn info(&self, id: u64, mut info: Info) -> Info {
        self.layout.decorate(&self.paths, id, &mut info.labels);
        info
    }

    /// The directories below a snapshot, as one read-only tree.
    fn lower(&self, parents: &[u64]) -> Result<Lower, SnapshotError> {
        Lower::open(parents.iter().map(|&id| self.paths.files(id)))
            .map_err(SnapshotError::files("open the layers of", self.paths.root.as_path()))
    }
}

struct Staged {
    name: OsString,
    dir: OwnedFd,
}

fn make_private_dir(path: &Path) -> Result<(), SnapshotError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| SnapshotError::Open { path: path.to_owned(), source })
}

impl<L: Layout> Snapshotter for Driver<L> {
    fn capabilities(&self) -> &[&'static str] {
        self.layout.capabilities()
    }

    fn stat(&self, _cx: &Cx<'_>, key: &str) -> Result<Info> {
        let found = self.records.get(key)?;
        Ok(self.info(found.id, found.info))
    }

    fn update(&self, _cx: &Cx<'_>, key: &str, labels: &Labels, mask: &Mask) -> Result<Info> {
        let found = self.records.update(key, labels, mask)?;
        Ok(self.info(found.id, found.info))
    }

    fn usage(&self, cx: &Cx<'_>, key: &str) -> Result<Usage> {
        let found = self.records.get(key)?;
        if found.info.kind == Kind::Active {
            return Ok(usage::measure(cx, &self.paths.files(found.id))?);
        }
        Ok(found.usage)
    }

    fn mounts(&self, _cx: &Cx<'_>, key: &str) -> Result<Vec<Mount>> {
        Ok(self.layout.mounts(&self.paths, &self.records.place(key)?))
    }

    fn prepare(&self, cx: &Cx<'_>, key: &str, parent: &str, labels: &Labels) -> Result<Vec<Mount>> {
        self.create(cx, Kind::Active, key, parent, labels)
    }

    fn view(&self, cx: &Cx<'_>, key: &str, parent: &str, labels: &Labels) -> Result<Vec<Mount>> {
        self.create(cx, Kind::View, key, parent, labels)
    }

    fn commit(&self, cx: &Cx<'_>, name: &str, key: &str, commit: &Commit) -> Result<()> {
        let rebase = commit.parent.as_deref().unwrap_or_default();
        let active = self.records.check_commit(key, name, rebase)?;
        let files = self.paths.files(active.id);
        // A snapshot that was made on nothing holds marks for layers below that are known only now.
        if self.layout.is_stacked() && !active.had_parent {
            settle::settle(cx, &files, &self.lower(&active.parents)?)?;
        }
        let usage = usage::measure(cx, &files)?;
        Ok(self.records.commit(key, name, &active, &commit.labels, usage)?)
    }

    fn remove(&self, _cx: &Cx<'_>, key: &str) -> Result<()> {
        let id = self.records.remove(key)?;
        if self.sync_remove {
            // The snapshot is gone with its record; files that cannot be deleted now are for the next clean-up, which
            // reports them.
            let _ = self.remove_garbage(&[id.to_string().into()]);
        }
        Ok(())
    }

    fn list(&self, cx: &Cx<'_>, filters: &Filters) -> Result<Vec<Info>> {
        let mut out = Vec::new();
        for found in self.records.list()? {
            cx.check()?;
            let info = self.info(found.id, found.info);
            if filters.matches(&info) {
                out.push(info);
            }
        }
        Ok(out)
    }

    fn cleanup(&self, _cx: &Cx<'_>) -> Result<()> {
        Ok(self.remove_garbage(&self.garbage(false)?)?)
    }
}
