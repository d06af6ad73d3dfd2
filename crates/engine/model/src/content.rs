//! Content: immutable blobs by digest, and the ingests that become blobs.

use std::io;
use std::time::SystemTime;

use spec::{Digest, Labels, Result};

use crate::filter::{Fields, Filters};
use crate::{Cx, mask::Mask};

/// A blob as a namespace knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The hash of its bytes.
    pub digest: Digest,
    /// Its length, in bytes.
    pub size: u64,
    /// When the namespace got it.
    pub created_at: SystemTime,
    /// When its labels last changed.
    pub updated_at: SystemTime,
    /// Its labels in this namespace.
    pub labels: Labels,
}

/// An ingest: bytes on their way to become a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The client's name for it.
    pub reference: String,
    /// How many bytes it has.
    pub offset: u64,
    /// How many bytes it shall have, 0 when unknown.
    pub total: u64,
    /// The digest it shall have.
    pub expected: Option<Digest>,
    /// When it was opened first.
    pub started_at: SystemTime,
    /// When it was last written.
    pub updated_at: SystemTime,
}

impl Status {
    /// An ingest without a byte, of which no more is known than its reference.
    pub fn empty(reference: &str, at: SystemTime) -> Self {
        Self {
            reference: reference.to_owned(),
            offset: 0,
            total: 0,
            expected: None,
            started_at: at,
            updated_at: at,
        }
    }
}

/// How to open an ingest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// The client's name for it; not empty.
    pub reference: String,
    /// How many bytes it shall have, 0 when unknown.
    pub total: u64,
    /// The digest it shall have.
    pub expected: Option<Digest>,
}

/// How to turn an ingest into a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// The length it must have; `None` checks nothing.
    pub size: Option<u64>,
    /// The digest it must have; `None` checks nothing.
    pub expected: Option<Digest>,
    /// Labels of the new blob.
    pub labels: Labels,
}

/// A namespaced content store.
pub trait Content: Send + Sync {
    /// What the namespace knows of a blob. `NotFound` when it has none, or when its bytes are lost or have another length:
    /// such a blob can be written again.
    fn info(&self, cx: &Cx<'_>, digest: &Digest) -> Result<Info>;

    /// Replaces the labels that `mask` names (all of them when it is empty); only labels can change.
    fn update(&self, cx: &Cx<'_>, digest: &Digest, labels: &Labels, mask: &Mask) -> Result<Info>;

    /// Every blob that passes, by digest.
    fn list(&self, cx: &Cx<'_>, filters: &Filters) -> Result<Vec<Info>>;

    /// Forgets a blob in this namespace; its bytes go at the next garbage collection when no namespace has it.
    fn delete(&self, cx: &Cx<'_>, digest: &Digest) -> Result<()>;

    /// Compares a blob with its digest, and discards its bytes when they differ, in every namespace: it can be written
    /// again, and keeps its records. Whether its bytes were damaged or are missing.
    fn discard_damaged(&self, cx: &Cx<'_>, digest: &Digest) -> Result<bool>;

    /// Opens a blob for reading.
    fn open(&self, cx: &Cx<'_>, digest: &Digest) -> Result<Box<dyn Blob>>;

    /// Opens an ingest, new or left behind, for writing; `AlreadyExists` when the namespace has the expected digest,
    /// `Unavailable` while another writer holds the reference. When another namespace has the expected digest and
    /// contents are shared, the ingest is complete at once (offset equals the blob's size).
    fn ingest(&self, cx: &Cx<'_>, open: &Open) -> Result<Box<dyn Ingest>>;

    /// One ingest. `NotFound` when there is none.
    fn status(&self, cx: &Cx<'_>, reference: &str) -> Result<Status>;

    /// Every ingest that passes.
    fn statuses(&self, cx: &Cx<'_>, filters: &Filters) -> Result<Vec<Status>>;

    /// Drops an ingest with its bytes.
    fn abort(&self, cx: &Cx<'_>, reference: &str) -> Result<()>;
}

/// An open blob. It stays readable when its record goes.
pub trait Blob: Send + Sync {
    /// Its length, in bytes.
    fn size(&self) -> u64;

    /// Reads at `offset`; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// An open ingest. Dropping it keeps its bytes for a later writer.
pub trait Ingest: Send {
    /// Where it stands.
    fn status(&self) -> Status;

    /// The digest of the bytes that it has so far. `FailedPrecondition` once it is a blob.
    fn digest(&self) -> Result<Digest>;

    /// Appends.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Cuts it to `size` bytes (or starts again with 0), to write from there.
    fn truncate(&mut self, size: u64) -> Result<()>;

    /// Makes it a blob: durable, with its record, under the request's lease, in one step. `FailedPrecondition` when size
    /// or digest differ, `AlreadyExists` (with the ingest gone, the lease holding the blob) when the namespace has it.
    fn commit(&mut self, cx: &Cx<'_>, commit: &Commit) -> Result<Digest>;
}

/// A [`Blob`] read from its start, for code that wants [`io::Read`].
#[derive(Debug)]
pub struct BlobReader<B> {
    blob: B,
    offset: u64,
}

impl<B: AsRef<dyn Blob>> BlobReader<B> {
    /// Reads `blob` from its first byte.
    pub fn new(blob: B) -> Self {
        Self { blob, offset: 0 }
    }
}

impl<B: AsRef<dyn Blob>> io::Read for BlobReader<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.blob.as_ref().read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Reads a whole blob that must not be larger than `limit`, such as a manifest.
///
/// # Errors
/// `NotFound` as [`Content::info`]; `OutOfRange` when it is larger.
pub fn read_blob(content: &dyn Content, cx: &Cx<'_>, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
    let blob = content.open(cx, digest)?;
    if blob.size() > limit {
        let text = format!("{digest} has {} bytes, more than the {limit} allowed", blob.size());
        return Err(spec::Error::new(spec::Kind::OutOfRange, text));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(blob.size()).unwrap_or(0));
    io::Read::read_to_end(&mut BlobReader::new(blob), &mut bytes)
        .map_err(|error| spec::Error::internal(format!("cannot read {digest}: {error}")))?;
    Ok(bytes)
}

impl Fields for Info {
    fn field(&self, path: &[&str]) -> Option<&str> {
        match path {
            ["digest"] => Some(self.digest.as_str()),
            ["labels", key @ ..] => crate::filter::label(&self.labels, key),
            _ => None,
        }
    }
}

impl Fields for Status {
    fn field(&self, path: &[&str]) -> Option<&str> {
        match path {
            ["ref"] => Some(&self.reference),
            _ => None,
        }
    }
}
