//! Where a layer's archive goes: compressed, hashed on both sides of the compression, into an ingest.

use std::io::{self, BufWriter, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use model::Cx;
use model::content::{Commit, Content, Ingest, Open};
use model::diff::Compare;
use model::mask::Mask;
use ring::digest::{Context, SHA256};
use spec::{Algorithm, Digest, Kind, label};

use super::CompareError;

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
    Zstd,
}

/// An ingest being filled.
pub(super) struct Sink {
    ingest: Box<dyn Ingest>,
    reference: String,
    /// Whether the reference is of our making, so that nobody else will go on with it.
    is_ours: bool,
    hash: Context,
    size: u64,
    /// What the store said, while the compressors only know that a write failed.
    failure: Option<spec::Error>,
}

impl Sink {
    pub fn open(cx: &Cx<'_>, content: &dyn Content, compare: &Compare) -> Result<Self, CompareError> {
        let is_ours = compare.reference.is_empty();
        let reference = if is_ours { unique_reference() } else { compare.reference.clone() };
        let open = Open { reference: reference.clone(), ..Open::default() };
        let mut ingest = content.ingest(cx, &open).map_err(CompareError::Content)?;
        if !is_ours {
            ingest.truncate(0).map_err(CompareError::Content)?;
        }
        Ok(Self { ingest, reference, is_ours, hash: Context::new(&SHA256), size: 0, failure: None })
    }

    /// The compressing end.
    pub fn packer(&mut self, packing: Packing) -> Result<Packer<'_>, CompareError> {
        let out = BufWriter::with_capacity(256 << 10, self);
        let encoder = match packing {
            Packing::None => Encoder::None(out),
            Packing::Gzip => {
                Encoder::Gzip(flate2::write::GzEncoder::new(out, flate2::Compression::default()))
            }
            Packing::Zstd => {
                Encoder::Zstd(zstd::stream::write::Encoder::new(out, 3).map_err(CompareError::Write)?)
            }
        };
        Ok(Packer { encoder, hash: Context::new(&SHA256) })
    }

    /// Makes the ingest a blob, labelled with its diff id, and tells its digest and size.
    pub fn commit(
        &mut self,
        cx: &Cx<'_>,
        content: &dyn Content,
        compare: &Compare,
        packing: Packing,
        diff_id: &Digest,
    ) -> Result<(Digest, u64), CompareError> {
        let mut labels = compare.labels.clone();
        if packing != Packing::None {
            labels.insert(label::UNCOMPRESSED.to_owned(), diff_id.to_string());
        }
        let digest = finish(std::mem::replace(&mut self.hash, Context::new(&SHA256)))?;
        let commit = Commit { size: Some(self.size), expected: Some(digest.clone()), labels: labels.clone() };
        match self.ingest.commit(cx, &commit) {
            Ok(_) => {}
            Err(error) if error.kind() == Kind::AlreadyExists => add_label(cx, content, &digest, &labels)?,
            Err(error) => return Err(CompareError::Content(error)),
        }
        Ok((digest, self.size))
    }

    /// Drops the ingest when nobody else knows its reference. The error that led here comes back, with its real cause.
    pub fn abandon(mut self, cx: &Cx<'_>, content: &dyn Content, error: CompareError) -> CompareError {
        let failure = self.failure.take();
        let (is_ours, reference) = (self.is_ours, self.reference.clone());
        drop(self);
        if is_ours {
            // The first error is the one to tell; an ingest that stays is garbage collection's.
            let _ = content.abort(cx, &reference);
        }
        match (failure, error) {
            (Some(failure), CompareError::Write(_)) => CompareError::Content(failure),
            (_, error) => error,
        }
    }
}

/// A blob that was there already may not have its diff id yet.
fn add_label(
    cx: &Cx<'_>,
    content: &dyn Content,
    digest: &Digest,
    labels: &spec::Labels,
) -> Result<(), CompareError> {
    let known = content.info(cx, digest).map_err(CompareError::Content)?;
    if known.labels.contains_key(label::UNCOMPRESSED) || !labels.contains_key(label::UNCOMPRESSED) {
        return Ok(());
    }
    let mask = Mask::new([format!("labels.{}", label::UNCOMPRESSED)]);
    content.update(cx, digest, labels, &mask).map(drop).map_err(CompareError::Content)
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.ingest.write(bytes) {
            self.failure = Some(error);
            return Err(io::Error::other("the content store failed"));
        }
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Encoder<'a> {
    None(BufWriter<&'a mut Sink>),
    Gzip(flate2::write::GzEncoder<BufWriter<&'a mut Sink>>),
    Zstd(zstd::stream::write::Encoder<'static, BufWriter<&'a mut Sink>>),
}

/// Compresses what is written to it, and hashes it before.
pub(super) struct Packer<'a> {
    encoder: Encoder<'a>,
    hash: Context,
}

impl Packer<'_> {
    /// Ends the compressed stream; the digest of what went in.
    pub fn finish(self) -> Result<Digest, CompareError> {
        let mut out = match self.encoder {
            Encoder::None(out) => out,
            Encoder::Gzip(encoder) => encoder.finish().map_err(CompareError::Write)?,
            Encoder::Zstd(encoder) => encoder.finish().map_err(CompareError::Write)?,
        };
        out.flush().map_err(CompareError::Write)?;
        finish(self.hash)
    }
}

impl Write for Packer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.encoder {
            Encoder::None(out) => out.write_all(bytes)?,
            Encoder::Gzip(encoder) => encoder.write_all(bytes)?,
            Encoder::Zstd(encoder) => encoder.write_all(bytes)?,
        }
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn finish(hash: Context) -> Result<Digest, CompareError> {
    Digest::from_bytes(Algorithm::Sha256, hash.finish().as_ref())
        .map_err(|error| CompareError::Content(error.into()))
}

fn unique_reference() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("diff-{nanos}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}
