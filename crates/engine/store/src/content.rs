//! Blobs and ingests: the namespaces' records over one set of files.
//!
//! ```text
//! open      record the ingest, hold it by the lease  -> make or find its directory
//! commit    flush the data -> put it in blobs/ -> flush the directory -> record the blob, drop the ingest's record
//! delete    drop the record; the file goes when a collection finds no record of it in any namespace
//! ```
//!
//! Invariant: the way from a file in blobs/ to its record, and the sweep that looks for files without one, exclude each
//! other ([`Contents::placing`]).

mod damage;
mod error;
mod hash;
mod ingest;
mod layout;
mod open;
mod sweep;

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use api::containerd::events::ContentDelete;
use model::content::{Blob, Content, Info, Ingest, Open, Status};
use model::filter::Filters;
use model::mask::{self, Mask};
use model::{Cx, Result};
use spec::{Digest, Error, Labels, Namespace};

pub use error::{ContentError, FileError};
pub(crate) use layout::Layout;
pub(crate) use layout::found;
use open::Writers;
pub(crate) use sweep::Named;

use crate::core::{Change, Core};
use crate::db::{DbError, Rows};
use crate::hold::Holds;
use crate::{Sharing, lease, namespace, record, table};

/// The label of a namespace whose blobs others may have under [`Sharing::Isolated`].
const SHAREABLE: &str = "containerd.io/namespace.shareable";

/// The content of a store. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Contents {
    parts: Arc<Parts>,
}

/// What every clone shares.
#[derive(Debug)]
pub(crate) struct Parts {
    core: Arc<Core>,
    layout: Layout,
    sharing: Sharing,
    /// Who writes which ingest right now.
    writers: Arc<Writers>,
    /// Held shared from placing a file to recording it, exclusively by the sweep.
    placing: RwLock<()>,
    /// Digests on their way into `blobs/`.
    digests: Holds,
}

impl Contents {
    /// Opens the files below `root`.
    pub(crate) fn open(core: Arc<Core>, root: &Path, sharing: Sharing) -> Result<Self> {
        let parts = Parts {
            core,
            layout: Layout::open(root)?,
            sharing,
            writers: Arc::default(),
            placing: RwLock::default(),
            digests: Holds::default(),
        };
        Ok(Self { parts: Arc::new(parts) })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether a writer has the ingest `reference` of `namespace` open.
    pub(crate) fn is_open(&self, namespace: &str, reference: &str) -> bool {
        self.writers.is_open(namespace, reference)
    }

    /// What is known of an ingest: from its writer if it has one, else from its directory.
    fn ingest_status(&self, namespace: &str, reference: &str, row: &record::Ingest) -> Result<Status> {
        if let Some(status) = self.writers.status(namespace, reference) {
            return Ok(status);
        }
        if let Ok(expected) = Digest::from_str(&row.expected) {
            let size = self.layout.blob_size(&expected)?.unwrap_or_default();
            let now = SystemTime::now();
            let (started_at, updated_at) = (now, now);
            let reference = reference.to_owned();
            return Ok(Status {
                reference,
                offset: size,
                total: size,
                expected: Some(expected),
                started_at,
                updated_at,
            });
        }
        let status = self.layout.ingest(&row.backend_ref).status()?;
        // A directory that is missing or not whole was cut off before its first byte: the next writer makes it again.
        Ok(status.map_or_else(
            || Status::empty(reference, SystemTime::now()),
            |status| Status { reference: reference.to_owned(), ..status },
        ))
    }
}

impl Deref for Contents {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Content for Contents {
    fn info(&self, cx: &Cx<'_>, digest: &Digest) -> Result<Info> {
        let namespace = cx.namespace()?;
        let info = self.core.read(|rows| read(rows, namespace, digest))?;
        if self.layout.blob_size(digest)? != Some(info.size) {
            return Err(ContentError::NoBlob(digest.clone()).into());
        }
        Ok(info)
    }

    fn discard_damaged(&self, cx: &Cx<'_>, digest: &Digest) -> Result<bool> {
        let namespace = cx.namespace()?;
        self.core.read(|rows| read(rows, namespace, digest))?;
        self.discard_unless_whole(cx, digest)
    }

    fn update(&self, cx: &Cx<'_>, digest: &Digest, labels: &Labels, mask: &Mask) -> Result<Info> {
        let namespace = cx.namespace()?;
        let key = table::key(&[namespace.as_str(), digest.as_str()])?;
        self.core.write_and_tell(|tx| {
            let mut info = read(tx, namespace, digest)?;
            let stored = info.labels.clone();
            mask::apply_to_labels(&mut info.labels, labels, mask)
                .map_err(|path| ContentError::Field { path: path.to_owned(), digest: digest.clone() })?;
            check_labels(&info.labels)?;
            info.updated_at = SystemTime::now();
            record::put(tx, table::BLOBS, &key, &to_row(&info))?;
            let change = Change::of_labels(&stored, &info.labels);
            Ok((info, change))
        })
    }

    fn list(&self, cx: &Cx<'_>, filters: &Filters) -> Result<Vec<Info>> {
        let below = table::prefix(&[cx.namespace()?.as_str()])?;
        self.core.read(|rows| {
            let mut found = Vec::new();
            record::scan(rows, table::BLOBS, &below, &mut |key, row| {
                let Ok(digest) = Digest::from_str(table::last(key)) else { return };
                let info = from_row(&digest, row);
                if filters.matches(&info) {
                    found.push(info);
                }
            })?;
            Ok(found)
        })
    }

    fn delete(&self, cx: &Cx<'_>, digest: &Digest) -> Result<()> {
        let namespace = cx.namespace()?;
        let key = table::key(&[namespace.as_str(), digest.as_str()])?;
        self.core.write(Change::Removes, |tx| {
            if !tx.remove(table::BLOBS, &key)? {
                return Err(ContentError::NoBlob(digest.clone()).into());
            }
            lease::release(tx, cx, lease::CONTENT, digest.as_str())
        })?;
        self.core.demand.dirty_content();
        let event = ContentDelete { digest: digest.to_string() };
        self.core.publish(namespace, "/content/delete", &event);
        Ok(())
    }

    fn open(&self, cx: &Cx<'_>, digest: &Digest) -> Result<Box<dyn Blob>> {
        let namespace = cx.namespace()?;
        self.core.read(|rows| read(rows, namespace, digest))?;
        match self.layout.open_blob(digest)? {
            Some((file, size)) => Ok(Box::new(OpenBlob { file, size })),
            // Deleted and swept since the record was read.
            None => Err(ContentError::NoBlob(digest.clone()).into()),
        }
    }

    fn ingest(&self, cx: &Cx<'_>, open: &Open) -> Result<Box<dyn Ingest>> {
        self.open_ingest(cx, open)
    }

    fn status(&self, cx: &Cx<'_>, reference: &str) -> Result<Status> {
        let namespace = cx.namespace()?.as_str();
        let key = table::key(&[namespace, reference])?;
        let row: Option<record::Ingest> =
            self.core.read::<_, DbError>(|rows| record::get(rows, table::INGESTS, &key))?;
        let row = row.ok_or_else(|| ContentError::NoIngest(reference.to_owned()))?;
        self.ingest_status(namespace, reference, &row)
    }

    fn statuses(&self, cx: &Cx<'_>, filters: &Filters) -> Result<Vec<Status>> {
        let namespace = cx.namespace()?.as_str();
        let below = table::prefix(&[namespace])?;
        let mut rows: Vec<(String, record::Ingest)> = Vec::new();
        self.core.read::<_, DbError>(|tx| {
            record::scan(tx, table::INGESTS, &below, &mut |key, row| {
                rows.push((table::last(key).to_owned(), row));
            })
        })?;
        let mut found = Vec::new();
        for (reference, row) in rows {
            match self.ingest_status(namespace, &reference, &row) {
                Ok(status) if filters.matches(&status) => found.push(status),
                Ok(_) => {}
                // Committed or aborted since its record was read.
                Err(error) if error.kind() == spec::Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    fn abort(&self, cx: &Cx<'_>, reference: &str) -> Result<()> {
        let namespace = cx.namespace()?.as_str();
        let key = table::key(&[namespace, reference])?;
        let row = self.core.write(Change::Removes, |tx| {
            let row: Option<record::Ingest> = record::get(tx, table::INGESTS, &key)?;
            let row = row.ok_or_else(|| ContentError::NoIngest(reference.to_owned()))?;
            tx.remove(table::INGESTS, &key)?;
            lease::release(tx, cx, lease::INGESTS, reference)?;
            Ok(row)
        })?;
        self.layout.ingest(&row.backend_ref).discard()?;
        Ok(())
    }
}

/// A blob's file.
#[derive(Debug)]
struct OpenBlob {
    file: File,
    size: u64,
}

impl Blob for OpenBlob {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
}

/// What `namespace` knows of a blob.
fn read(rows: &dyn Rows, namespace: &Namespace, digest: &Digest) -> Result<Info, Error> {
    let key = table::key(&[namespace.as_str(), digest.as_str()])?;
    let row: Option<record::Blob> = record::get(rows, table::BLOBS, &key)?;
    Ok(from_row(digest, row.ok_or_else(|| ContentError::NoBlob(digest.clone()))?))
}

/// Whether any namespace that `counts` has a record of the blob with `size` bytes.
fn is_known(
    rows: &dyn Rows,
    digest: &Digest,
    size: u64,
    counts: impl Fn(&Labels) -> bool,
) -> Result<bool, Error> {
    for name in namespace::all(rows)? {
        let key = table::key(&[&name, digest.as_str()])?;
        let row: Option<record::Blob> = record::get(rows, table::BLOBS, &key)?;
        if row.is_some_and(|row| row.size == size)
            && counts(&namespace::labels(rows, &name)?.unwrap_or_default())
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn check_labels(labels: &Labels) -> Result<(), Error> {
    spec::label::check_all(labels).map_err(|error| error.context("info.Labels"))
}

fn to_row(info: &Info) -> record::Blob {
    record::Blob {
        created: info.created_at.into(),
        updated: info.updated_at.into(),
        size: info.size,
        labels: info.labels.clone(),
    }
}

fn from_row(digest: &Digest, row: record::Blob) -> Info {
    Info {
        digest: digest.clone(),
        size: row.size,
        created_at: row.created.into(),
        updated_at: row.updated.into(),
        labels: row.labels,
    }
}
