//! An open ingest, and how it becomes a blob.
//!
//! Invariant: `size` bytes, hashed, are on their way to the file or in `pending`; a write that fails takes back what it
//! wrote of itself.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::str::FromStr;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use api::containerd::events::ContentCreate;
use model::content::{Commit, Info, Ingest, Open, Status};
use model::mask;
use model::{Cx, Result};
use spec::digest::Algorithm;
use spec::{Digest, Error, Namespace};

use super::hash::Hasher;
use super::layout::IngestDir;
use super::open::Turn;
use super::{ContentError, Contents, FileError, SHAREABLE, check_labels, is_known, to_row};
use crate::core::Change;
use crate::db::{Rows, WriteTx};
use crate::{Sharing, lease, namespace, record, table};

/// How long an ingest without a lease is kept.
const LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Smaller pieces are joined to this before they are written.
const PIECE: usize = 256 * 1024;

/// Where the bytes are.
#[derive(Debug)]
enum Data {
    /// In a file of this ingest.
    Own { file: File, hasher: Box<Hasher>, pending: Vec<u8> },
    /// In the blob of another namespace.
    Shared(Digest),
    /// In a blob of this namespace: the ingest is over.
    Done,
}

/// What [`Contents::record_ingest`] found.
enum Found {
    /// The namespace has the blob.
    Exists(Digest),
    /// The ingest has this row.
    Row(record::Ingest),
}

/// An ingest that this process writes.
#[derive(Debug)]
struct OpenIngest {
    contents: Contents,
    namespace: Namespace,
    backend_ref: String,
    /// Nothing once it is a blob: the reference is free again.
    turn: Option<Turn>,
    status: Status,
    data: Data,
}

impl Contents {
    /// As [`model::content::Content::ingest`].
    pub(super) fn open_ingest(&self, cx: &Cx<'_>, open: &Open) -> Result<Box<dyn Ingest>> {
        let namespace = cx.namespace()?.clone();
        if open.reference.is_empty() {
            return Err(ContentError::Reference.into());
        }
        // That the blob exists is told even to whom the reference is locked.
        let turn = self.writers.take(namespace.as_str(), &open.reference);
        let (found, turn) = match turn {
            Ok(turn) => (self.record_ingest(cx, open)?, turn),
            Err(locked) => match &open.expected {
                Some(expected) if self.lease_existing(cx, expected)? => {
                    return Err(ContentError::Exists(expected.clone()).into());
                }
                _ => return Err(locked.into()),
            },
        };
        let row = match found {
            Found::Exists(digest) => return Err(ContentError::Exists(digest).into()),
            Found::Row(row) => row,
        };
        let algorithm = open.expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let (data, mut status) = match Digest::from_str(&row.expected) {
            Ok(expected) => self.open_shared(&expected, open)?,
            Err(_) => self.open_own(&row.backend_ref, algorithm, open)?,
        };
        status.reference.clone_from(&open.reference);
        status.expected.clone_from(&open.expected);
        turn.begin(status.clone());
        let backend_ref = row.backend_ref;
        let (contents, turn) = (self.clone(), Some(turn));
        Ok(Box::new(OpenIngest { contents, namespace, backend_ref, turn, status, data }))
    }

    /// Holds the blob by the request's lease if the namespace has it; whether it has.
    fn lease_existing(&self, cx: &Cx<'_>, digest: &Digest) -> Result<bool> {
        let key = table::key(&[cx.namespace()?.as_str(), digest.as_str()])?;
        let length = self.layout.blob_size(digest)?;
        self.core.write(Change::Adds, |tx| {
            let row: Option<record::Blob> = record::get(tx, table::BLOBS, &key)?;
            let exists = row.is_some_and(|row| length == Some(row.size));
            if exists {
                lease::hold(tx, cx, lease::CONTENT, digest.as_str())?;
            }
            Ok(exists)
        })
    }

    /// Makes or finds the ingest's row, and holds what is there by the request's lease.
    fn record_ingest(&self, cx: &Cx<'_>, open: &Open) -> Result<Found> {
        let namespace = cx.namespace()?;
        let key = table::key(&[namespace.as_str(), &open.reference])?;
        let new_ref = self.core.unique_key(namespace.as_str(), &open.reference)?;
        let length =
            open.expected.as_ref().map(|digest| self.layout.blob_size(digest)).transpose()?.flatten();
        self.core.write(Change::Adds, |tx| {
            let mut expected = String::new();
            if let Some(digest) = &open.expected {
                let blob = table::key(&[namespace.as_str(), digest.as_str()])?;
                let row: Option<record::Blob> = record::get(tx, table::BLOBS, &blob)?;
                // A record whose bytes are lost keeps nobody from writing them again.
                if row.is_some_and(|row| length == Some(row.size)) {
                    lease::hold(tx, cx, lease::CONTENT, digest.as_str())?;
                    return Ok(Found::Exists(digest.clone()));
                }
                let length = length.filter(|length| open.total == 0 || *length == open.total);
                if let Some(length) = length
                    && self.is_shareable(tx, digest, length)?
                {
                    expected = digest.to_string();
                }
            }
            namespace::ensure(tx, namespace)?;
            let mut row = match record::get::<record::Ingest>(tx, table::INGESTS, &key)? {
                Some(row) => row,
                None => record::Ingest { backend_ref: new_ref, ..record::Ingest::default() },
            };
            if !lease::hold(tx, cx, lease::INGESTS, &open.reference)? {
                row.expires_at = Some((SystemTime::now() + LIFE).into());
            }
            row.expected = expected;
            record::put(tx, table::INGESTS, &key, &row)?;
            Ok(Found::Row(row))
        })
    }

    /// Whether the blob of another namespace, whose file has `length` bytes, may stand for what is asked.
    fn is_shareable(&self, rows: &dyn Rows, digest: &Digest, length: u64) -> Result<bool> {
        is_known(rows, digest, length, |labels| match self.sharing {
            Sharing::Shared => true,
            Sharing::Isolated => labels.get(SHAREABLE).is_some_and(|value| value == "true"),
        })
    }

    fn open_shared(&self, digest: &Digest, open: &Open) -> Result<(Data, Status)> {
        let size = self.layout.blob_size(digest)?.ok_or_else(|| ContentError::NoBlob(digest.clone()))?;
        let now = SystemTime::now();
        let status = Status {
            reference: open.reference.clone(),
            offset: size,
            total: size,
            expected: Some(digest.clone()),
            started_at: now,
            updated_at: now,
        };
        Ok((Data::Shared(digest.clone()), status))
    }

    /// Finds what an earlier writer left, hashing it again, or begins anew.
    fn open_own(&self, backend_ref: &str, algorithm: Algorithm, open: &Open) -> Result<(Data, Status)> {
        let dir = self.layout.ingest(backend_ref);
        let left = dir.status()?.filter(|status| {
            status.reference == backend_ref
                && (open.total == 0 || status.total == 0 || status.total == open.total)
        });
        let mut hasher = Box::new(Hasher::new(algorithm));
        if let Some(mut status) = left {
            let file = dir.open_data(false)?;
            status.offset = hasher
                .read(&file, status.offset)
                .map_err(|source| FileError::new("read", &dir.data(), source))?;
            status.total = status.total.max(open.total);
            return Ok((Data::Own { file, hasher, pending: Vec::new() }, status));
        }
        let (file, now) = dir.create(backend_ref, open.total)?;
        let status = Status {
            reference: open.reference.clone(),
            offset: 0,
            total: open.total,
            expected: None,
            started_at: now,
            updated_at: now,
        };
        Ok((Data::Own { file, hasher, pending: Vec::new() }, status))
    }
}

impl OpenIngest {
    fn dir(&self) -> IngestDir<'_> {
        self.contents.layout.ingest(&self.backend_ref)
    }

    fn closed(&self) -> ContentError {
        ContentError::Closed(self.status.reference.clone())
    }

    fn moved_to(&mut self, offset: u64) {
        self.status.offset = offset;
        self.status.updated_at = SystemTime::now();
        if let Some(turn) = &self.turn {
            turn.advance(offset, self.status.updated_at);
        }
    }

    /// Gives an ingest that stands for another namespace's blob a file with the first `size` bytes of it.
    fn unshare(&mut self, size: u64) -> Result<()> {
        let Data::Shared(digest) = &self.data else { return Ok(()) };
        let digest = digest.clone();
        let (blob, _) =
            self.contents.layout.open_blob(&digest)?.ok_or_else(|| ContentError::NoBlob(digest.clone()))?;
        let (file, _) = self.dir().create(&self.backend_ref, 0)?;
        let hasher = Box::new(Hasher::new(digest.algorithm()));
        self.data = Data::Own { file, hasher, pending: Vec::new() };
        self.moved_to(0);
        let mut buffer = vec![0; PIECE];
        let mut offset = 0;
        while offset < size {
            let wanted = usize::try_from(size - offset).map_or(PIECE, |left| left.min(PIECE));
            let path = || self.contents.layout.blob(&digest);
            let count = blob
                .read_at(&mut buffer[..wanted], offset)
                .map_err(|source| FileError::new("read", &path(), source))?;
            if count == 0 {
                break;
            }
            self.write(&buffer[..count])?;
            offset += count as u64;
        }
        // From here on the row must not claim the shared blob: what follows may be something else.
        let key = table::key(&[self.namespace.as_str(), &self.status.reference])?;
        self.contents.core.write(Change::Adds, |tx| {
            if let Some(mut row) = record::get::<record::Ingest>(tx, table::INGESTS, &key)? {
                row.expected.clear();
                record::put(tx, table::INGESTS, &key, &row)?;
            }
            Ok(())
        })
    }

    /// Writes what is pending.
    fn flush(&mut self) -> Result<()> {
        let end = self.status.offset;
        if let Data::Own { file, pending, .. } = &mut self.data
            && !pending.is_empty()
        {
            let start = end - pending.len() as u64;
            let bytes = std::mem::take(pending);
            if let Err(source) = file.write_all_at(&bytes, start) {
                return Err(self.take_back(start, source));
            }
        }
        Ok(())
    }

    /// A write failed: the file ends again where it was good, and the hash with it.
    fn take_back(&mut self, good: u64, source: std::io::Error) -> Error {
        let path = self.dir().data();
        let error = FileError::new("write", &path, source);
        if let Err(worse) = self.truncate(good) {
            tracing::warn!(path = %path.display(), %worse, "cannot cut an ingest back");
            self.data = Data::Done;
        }
        error.into()
    }

    /// The digest of what is written, by the algorithm of `expected`.
    fn digest_as(&self, expected: Option<&Digest>) -> Result<Digest> {
        let Data::Own { file, hasher, .. } = &self.data else {
            return match &self.data {
                Data::Shared(digest) => Ok(digest.clone()),
                _ => Err(self.closed().into()),
            };
        };
        match expected.map(Digest::algorithm) {
            Some(algorithm) if algorithm != hasher.algorithm() => {
                let mut hasher = Hasher::new(algorithm);
                hasher
                    .read(file, self.status.offset)
                    .map_err(|source| FileError::new("read", &self.dir().data(), source))?;
                Ok(hasher.digest()?)
            }
            _ => Ok(hasher.digest()?),
        }
    }

    /// Flushes the data and makes it read-only.
    fn settle(&self) -> Result<()> {
        let Data::Own { file, .. } = &self.data else { return Ok(()) };
        let path = self.dir().data();
        file.set_permissions(Permissions::from_mode(0o444))
            .map_err(|source| FileError::new("chmod", &path, source))?;
        file.sync_all().map_err(|source| FileError::new("fsync", &path, source))?;
        Ok(())
    }

    /// Puts the data where the blob belongs, durably; whether a file of ours went there that no record knows.
    fn place(&self, digest: &Digest) -> Result<bool> {
        let layout = &self.contents.layout;
        let offset = self.status.offset;
        if matches!(self.data, Data::Shared(_)) {
            // The ingest's own record has kept the file since a record of it was seen.
            let there = layout.blob_size(digest)? == Some(offset);
            return if there { Ok(false) } else { Err(ContentError::NoBlob(digest.clone()).into()) };
        }
        let known = self.contents.core.read(|rows| is_known(rows, digest, offset, |_| true))?;
        // A file that is there may be damaged, whoever knows it; ours has just been verified and takes its place.
        layout.make_algorithm(digest.algorithm())?;
        let (from, to) = (self.dir().data(), layout.blob(digest));
        fs::rename(&from, &to).map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                // Aborted under its writer.
                return Error::from(ContentError::NoIngest(self.status.reference.clone()));
            }
            FileError::new("rename", &from, source).into()
        })?;
        layout.sync_blobs(digest)?;
        Ok(!known)
    }

    /// The transaction: the blob's record in, the ingest's out; whether the blob's is new. One whose bytes were lost is as
    /// good as new, and keeps its labels.
    fn record(&self, tx: &WriteTx<'_>, cx: &Cx<'_>, info: &Info, was_lost: bool) -> Result<bool> {
        let (namespace, reference) = (self.namespace.as_str(), &self.status.reference);
        let key = table::key(&[namespace, info.digest.as_str()])?;
        let row: Option<record::Blob> = record::get(tx, table::BLOBS, &key)?;
        let is_new = row.is_none() || was_lost;
        if is_new {
            namespace::ensure(tx, &self.namespace)?;
            let mut labels = row.map(|row| row.labels).unwrap_or_default();
            labels.extend(info.labels.clone());
            record::put(tx, table::BLOBS, &key, &record::Blob { labels, ..to_row(info) })?;
        }
        tx.remove(table::INGESTS, &table::key(&[namespace, reference])?)?;
        lease::release(tx, cx, lease::INGESTS, reference)?;
        lease::hold(tx, cx, lease::CONTENT, info.digest.as_str())?;
        Ok(is_new)
    }

    /// Places and records the blob; whether the namespace did not have it.
    fn publish(&self, cx: &Cx<'_>, info: &Info) -> Result<bool> {
        let contents = &self.contents;
        let digest = &info.digest;
        let _one_at_a_time = contents.digests.take(cx, vec![digest.to_string()])?;
        let _no_sweep = contents.placing.read().unwrap_or_else(PoisonError::into_inner);
        contents.core.read(|rows| lease::check(rows, cx))?;
        let was_lost = contents.layout.blob_size(digest)? != Some(info.size);
        let placed = self.place(digest)?;
        let recorded = contents.core.write(Change::Adds, |tx| self.record(tx, cx, info, was_lost));
        if recorded.is_err() && placed {
            // The data goes back to where a later commit looks for it.
            let (from, to) = (contents.layout.blob(digest), self.dir().data());
            if let Err(error) = fs::rename(&from, &to) {
                tracing::warn!(from = %from.display(), %error, "cannot take a blob back that was not recorded");
            }
        }
        recorded
    }
}

impl Ingest for OpenIngest {
    fn status(&self) -> Status {
        self.status.clone()
    }

    fn digest(&self) -> Result<Digest> {
        self.digest_as(None)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if matches!(self.data, Data::Shared(_)) {
            self.unshare(self.status.offset)?;
        }
        let offset = self.status.offset;
        let Data::Own { file, hasher, pending } = &mut self.data else { return Err(self.closed().into()) };
        if pending.len() + bytes.len() <= PIECE {
            pending.extend_from_slice(bytes);
        } else {
            let start = offset - pending.len() as u64;
            let joined = std::mem::take(pending);
            let written = file.write_all_at(&joined, start).and_then(|()| file.write_all_at(bytes, offset));
            if let Err(source) = written {
                return Err(self.take_back(start, source));
            }
        }
        hasher.update(bytes);
        self.moved_to(offset + bytes.len() as u64);
        Ok(())
    }

    fn truncate(&mut self, size: u64) -> Result<()> {
        let offset = self.status.offset;
        if size > offset {
            let reference = self.status.reference.clone();
            return Err(ContentError::Cut { reference, size, offset }.into());
        }
        if matches!(self.data, Data::Shared(_)) {
            return self.unshare(size);
        }
        self.flush()?;
        let path = self.dir().data();
        let Data::Own { file, hasher, .. } = &mut self.data else { return Err(self.closed().into()) };
        file.set_len(size).map_err(|source| FileError::new("truncate", &path, source))?;
        let mut again = Hasher::new(hasher.algorithm());
        again.read(file, size).map_err(|source| FileError::new("read", &path, source))?;
        **hasher = again;
        self.moved_to(size);
        Ok(())
    }

    fn commit(&mut self, cx: &Cx<'_>, commit: &Commit) -> Result<Digest> {
        check_labels(&commit.labels)?;
        self.flush()?;
        let (reference, found) = (self.status.reference.clone(), self.status.offset);
        if let Some(wanted) = commit.size.filter(|wanted| *wanted != found) {
            return Err(ContentError::Size { reference, found, wanted }.into());
        }
        let digest = self.digest_as(commit.expected.as_ref())?;
        if let Some(wanted) = commit.expected.as_ref().filter(|wanted| **wanted != digest) {
            return Err(ContentError::Digest { found: digest, wanted: wanted.clone() }.into());
        }
        self.settle()?;
        let now = SystemTime::now();
        let labels = mask::without_empty(&commit.labels);
        let info = Info { digest: digest.clone(), size: found, created_at: now, updated_at: now, labels };
        let is_new = self.publish(cx, &info)?;
        self.data = Data::Done;
        self.dir().discard()?;
        self.turn = None;
        if !is_new {
            return Err(ContentError::Exists(digest).into());
        }
        let size = i64::try_from(found).unwrap_or(i64::MAX);
        let event = ContentCreate { digest: digest.to_string(), size };
        self.contents.core.publish(&self.namespace, "/content/create", &event);
        Ok(digest)
    }
}

impl Drop for OpenIngest {
    /// Keeps what was written for a later writer; what cannot be kept is sent again.
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::debug!(reference = %self.status.reference, %error, "the end of an ingest is lost");
        }
        if matches!(self.data, Data::Own { .. })
            && let Err(error) = self.dir().touch(self.status.updated_at)
        {
            tracing::debug!(reference = %self.status.reference, %error, "cannot note when an ingest was written");
        }
    }
}
