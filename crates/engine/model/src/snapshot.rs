//! Snapshots: file system states with a parent.
//!
//! The same trait has two sides: a driver (overlay, native) under keys of its own, and a namespace's view of that
//! driver, which the store puts over it.

use std::time::SystemTime;

use spec::{Labels, Result};

use crate::filter::{Fields, Filters};
use crate::{Cx, mask::Mask};

/// What a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A read-only look at a committed snapshot.
    View,
    /// Being written.
    Active,
    /// Finished; may be a parent.
    Committed,
}

impl Kind {
    /// containerd's word for filters: `view`, `active`, `committed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Active => "active",
            Self::Committed => "committed",
        }
    }
}

/// A snapshot's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// What it is.
    pub kind: Kind,
    /// Its key (active, view) or name (committed).
    pub name: String,
    /// The committed snapshot below it, or nothing.
    pub parent: String,
    /// Its labels.
    pub labels: Labels,
    /// When it was made.
    pub created_at: SystemTime,
    /// When it last changed.
    pub updated_at: SystemTime,
}

/// What a snapshot itself takes on disk, without its parents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Disk blocks in bytes.
    pub size: u64,
    /// Inodes.
    pub inodes: u64,
}

/// One mount(8) line that makes a snapshot visible.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// File system type, or `bind`.
    pub kind: String,
    /// Device, or directory of a bind.
    pub source: String,
    /// Where under the target; empty for the target itself.
    pub target: String,
    /// fstab words.
    pub options: Vec<String>,
}

/// How to commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Labels of the committed snapshot.
    pub labels: Labels,
    /// A parent to put it on, for a snapshot prepared on nothing; needs the capability [`REBASE`].
    pub parent: Option<String>,
}

/// The capability of a driver that can give a parentless snapshot a parent at commit.
pub const REBASE: &str = "rebase";

/// Snapshots of one driver.
pub trait Snapshotter: Send + Sync {
    /// What the driver can do beyond the common: [`REBASE`], `remap-ids`, ...
    fn capabilities(&self) -> &[&'static str];

    /// One snapshot. `NotFound`.
    fn stat(&self, cx: &Cx<'_>, key: &str) -> Result<Info>;

    /// Replaces the labels that `mask` names (all when it is empty).
    fn update(&self, cx: &Cx<'_>, key: &str, labels: &Labels, mask: &Mask) -> Result<Info>;

    /// What it takes on disk; walks the tree of an active one.
    fn usage(&self, cx: &Cx<'_>, key: &str) -> Result<Usage>;

    /// How to mount an active snapshot or a view. `FailedPrecondition` for a committed one.
    fn mounts(&self, cx: &Cx<'_>, key: &str) -> Result<Vec<Mount>>;

    /// Makes the active snapshot `key` on the committed `parent` (or on nothing, when it is empty).
    /// `AlreadyExists`; `NotFound` or `InvalidArgument` when the parent is missing or not committed.
    fn prepare(&self, cx: &Cx<'_>, key: &str, parent: &str, labels: &Labels) -> Result<Vec<Mount>>;

    /// Makes the read-only snapshot `key` of `parent`.
    fn view(&self, cx: &Cx<'_>, key: &str, parent: &str, labels: &Labels) -> Result<Vec<Mount>>;

    /// Turns the active snapshot `key` into the committed `name`. `AlreadyExists` when `name` is known.
    fn commit(&self, cx: &Cx<'_>, name: &str, key: &str, commit: &Commit) -> Result<()>;

    /// Removes a snapshot. `FailedPrecondition` while it has children.
    fn remove(&self, cx: &Cx<'_>, key: &str) -> Result<()>;

    /// Every snapshot that passes.
    fn list(&self, cx: &Cx<'_>, filters: &Filters) -> Result<Vec<Info>>;

    /// Deletes on disk what removals left for later.
    fn cleanup(&self, cx: &Cx<'_>) -> Result<()>;
}

impl Fields for Info {
    fn field(&self, path: &[&str]) -> Option<&str> {
        match path {
            ["kind"] => Some(self.kind.as_str()),
            ["name"] => Some(&self.name),
            ["parent"] => Some(&self.parent),
            ["labels", key @ ..] => crate::filter::label(&self.labels, key),
            _ => None,
        }
    }
}
