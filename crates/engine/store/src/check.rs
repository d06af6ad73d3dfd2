//! Compares records with what they stand for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use model::{Ctx, Result};
use spec::{Digest, Error};

use crate::content::{Contents, Named};
use crate::core::Core;
use crate::db::DbError;
use crate::snapshot::Snapshots;
use crate::{record, table};

/// A record and the disk that disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A namespace has the record of a blob whose file is missing or has another length.
    Blob {
        /// The namespace.
        namespace: String,
        /// The blob.
        digest: String,
        /// The length of its file, if there is one.
        found: Option<u64>,
        /// The length in its record.
        recorded: u64,
    },
    /// A file that no record names; the next collection removes it.
    UnnamedBlob(String),
    /// A directory that no ingest names; the next collection removes it.
    UnnamedIngest(String),
    /// A recorded snapshot that the driver does not have.
    Snapshot {
        /// The driver.
        snapshotter: String,
        /// Its key in the driver.
        key: String,
    },
    /// A snapshot of the driver that no record names; the next collection removes it.
    UnnamedSnapshot {
        /// The driver.
        snapshotter: String,
        /// Its key in the driver.
        key: String,
    },
}

impl Problem {
    /// Whether something is lost, and not only left over.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Blob { .. } | Self::Snapshot { .. } => true,
            Self::UnnamedBlob(_) | Self::UnnamedIngest(_) | Self::UnnamedSnapshot { .. } => false,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob { namespace, digest, found: None, .. } => {
                write!(f, "namespace {namespace}: blob {digest} is recorded and its file is missing")
            }
            Self::Blob { namespace, digest, found: Some(found), recorded } => {
                write!(
                    f,
                    "namespace {namespace}: blob {digest} has {found} bytes, its record says {recorded}"
                )
            }
            Self::UnnamedBlob(digest) => write!(f, "blob {digest} has no record"),
            Self::UnnamedIngest(name) => write!(f, "ingest directory {name} has no record"),
            Self::Snapshot { snapshotter, key } => {
                write!(f, "snapshotter {snapshotter}: snapshot {key} is recorded and missing")
            }
            Self::UnnamedSnapshot { snapshotter, key } => {
                write!(f, "snapshotter {snapshotter}: snapshot {key} has no record")
            }
        }
    }
}

/// Looks for every problem. A store that others change meanwhile may show left-overs that are none.
pub(crate) fn check(
    core: &Core,
    content: &Contents,
    snapshotters: &BTreeMap<String, Arc<Snapshots>>,
) -> Result<Vec<Problem>> {
    let mut problems = lost_blobs(core, content)?;
    let named = core.read::<_, DbError>(|rows| Named::read(rows))?;
    for digest in content.layout().list_blobs()? {
        if !named.blobs.contains(digest.as_str()) && !core.kept.blobs.contains(digest.as_str()) {
            problems.push(Problem::UnnamedBlob(digest.to_string()));
        }
    }
    let ingests: BTreeSet<String> = content.layout().list_ingests()?.into_iter().collect();
    let unnamed = ingests.difference(&named.ingests).filter(|name| !core.kept.ingests.contains(*name));
    problems.extend(unnamed.cloned().map(Problem::UnnamedIngest));
    for (name, view) in snapshotters {
        let snapshotter = || name.clone();
        let (lost, unnamed) =
            Ctx::background().on_this_thread(|cx| Ok::<_, Error>((view.lost(cx)?, view.unnamed(cx)?)))?;
        problems.extend(lost.into_iter().map(|key| Problem::Snapshot { snapshotter: snapshotter(), key }));
        problems.extend(
            unnamed.into_iter().map(|key| Problem::UnnamedSnapshot { snapshotter: snapshotter(), key }),
        );
    }
    Ok(problems)
}

fn lost_blobs(core: &Core, content: &Contents) -> Result<Vec<Problem>> {
    let mut recorded: Vec<(String, String, u64)> = Vec::new();
    core.read::<_, DbError>(|rows| {
        record::scan(rows, table::BLOBS, b"", &mut |key, row: record::Blob| {
            let namespace = table::parts(key).first().copied().unwrap_or_default().to_owned();
            recorded.push((namespace, table::last(key).to_owned(), row.size));
        })
    })?;
    let mut problems = Vec::new();
    for (namespace, digest, recorded) in recorded {
        let found = match Digest::from_str(&digest) {
            Ok(digest) => content.layout().blob_size(&digest)?,
            Err(_) => None,
        };
        if found != Some(recorded) {
            problems.push(Problem::Blob { namespace, digest, found, recorded });
        }
    }
    Ok(problems)
}
