//! A layer's bytes, inflated and hashed beside the thread that applies them.
//!
//! ```text
//! layer -> [inflate thread] -+-> queue -> the caller's thread: tar entries written to disk
//!                            +-> queue -> [hash thread]: diff id
//! ```
//!
//! Invariant: both queues are bounded, so a slow disk stops the inflating, and through it the sender.
//! Invariant: the diff id covers every byte of the stream, also those behind the archive's end.

use std::cell::Cell;
use std::io::{self, BufRead, Cursor, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use ring::digest::{Context, SHA256};
use spec::Digest;
use spec::digest::Algorithm;

use super::Limits;

/// Bytes handed over at once.
const CHUNK: usize = 256 << 10;
/// Chunks a queue holds.
const DEPTH: usize = 8;

/// Why a layer could not be inflated.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum InflateError {
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
    #[error("the layer is not valid {0} data, or is cut short")]
    Damaged(&'static str, #[source] io::Error),
    #[error("the layer grows from {compressed} to over {inflated} bytes: refused as a decompression bomb")]
    Bomb { compressed: u64, inflated: u64 },
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("a thread that read the layer panicked")]
    Panic,
}

/// What came through.
#[derive(Debug)]
pub(super) struct Passed {
    pub diff_id: Digest,
    pub size: u64,
}

/// Why [`inflate`] failed: the stream, or the work on it.
pub(super) enum Failed<E> {
    Stream(InflateError),
    Work(E),
}

/// Inflates `layer`, hands its bytes to `work`, and reads on to its end when `work` has had enough.
pub(super) fn inflate<T, E>(
    layer: &mut (dyn Read + Send),
    limits: Limits,
    work: impl FnOnce(&mut Chunks) -> Result<T, E>,
) -> Result<(T, Passed), Failed<E>> {
    let (to_work, chunks) = sync_channel(DEPTH);
    let (to_hash, hashed) = sync_channel(DEPTH);
    let (spent, fresh) = sync_channel(2 * DEPTH);
    thread::scope(|scope| {
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let hash_spent = spent.clone();
        let hasher = named("layer-hash")
            .spawn_scoped(scope, move || hash(&hashed, &hash_spent))
            .map_err(|error| Failed::Stream(InflateError::Thread(error)))?;
        let source = Source { to_work, to_hash, fresh, limits };
        let inflater = named("layer-inflate")
            .spawn_scoped(scope, move || source.run(layer))
            .map_err(|error| Failed::Stream(InflateError::Thread(error)))?;
        let mut chunks = Chunks { from: chunks, current: None, at: 0, spent };
        let worked = work(&mut chunks);
        if worked.is_ok() {
            chunks.drain();
        }
        // With the receiver gone a failed work stops the inflating at its next chunk.
        drop(chunks);
        let inflated = inflater.join().map_err(|_| Failed::Stream(InflateError::Panic))?;
        let hash = hasher.join().map_err(|_| Failed::Stream(InflateError::Panic))?;
        // A damaged stream is why the work saw a wrong end, not the other way round.
        let size = inflated.map_err(Failed::Stream)?;
        let value = worked.map_err(Failed::Work)?;
        let diff_id = hash.ok_or(Failed::Stream(InflateError::Panic))?;
        Ok((value, Passed { diff_id, size }))
    })
}

fn hash(chunks: &Receiver<Arc<Vec<u8>>>, spent: &SyncSender<Vec<u8>>) -> Option<Digest> {
    let mut context = Context::new(&SHA256);
    for chunk in chunks {
        context.update(&chunk);
        recycle(chunk, spent);
    }
    Digest::from_bytes(Algorithm::Sha256, context.finish().as_ref()).ok()
}

/// Gives a buffer back when nobody else reads it; a full queue drops it.
fn recycle(chunk: Arc<Vec<u8>>, spent: &SyncSender<Vec<u8>>) {
    if let Some(buffer) = Arc::into_inner(chunk) {
        let _ = spent.try_send(buffer);
    }
}

/// The inflating side.
struct Source {
    to_work: SyncSender<Arc<Vec<u8>>>,
    to_hash: SyncSender<Arc<Vec<u8>>>,
    fresh: Receiver<Vec<u8>>,
    limits: Limits,
}

impl Source {
    fn run(self, layer: &mut (dyn Read + Send)) -> Result<u64, InflateError> {
        let read = Cell::new(0);
        let (name, mut inflated) = open(Counted { from: layer, count: &read }).map_err(InflateError::Read)?;
        let mut size = 0_u64;
        loop {
            let mut buffer = self.fresh.try_recv().unwrap_or_default();
            buffer.resize(CHUNK, 0);
            let count = read_full(&mut inflated, &mut buffer).map_err(|error| match name {
                None => InflateError::Read(error),
                Some(name) => InflateError::Damaged(name, error),
            })?;
            if count == 0 {
                return Ok(size);
            }
            size += count as u64;
            if size > self.most(read.get()) {
                return Err(InflateError::Bomb { compressed: read.get(), inflated: size });
            }
            buffer.truncate(count);
            let chunk = Arc::new(buffer);
            // A closed queue means that the other side has given up, for a reason of its own.
            if self.to_work.send(chunk.clone()).is_err() || self.to_hash.send(chunk).is_err() {
                return Ok(size);
            }
        }
    }

    /// How long the stream may be after `read` compressed bytes.
    fn most(&self, read: u64) -> u64 {
        let Limits { free_bytes, ratio, most_bytes, .. } = self.limits;
        read.saturating_mul(ratio).max(free_bytes).min(most_bytes)
    }
}

fn read_full(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match from.read(&mut buffer[have..]) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

/// Counts what is read.
struct Counted<'a> {
    from: &'a mut (dyn Read + Send),
    count: &'a Cell<u64>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

/// Chooses how to inflate by the first bytes: media types lie, magic numbers do not.
fn open<'a>(mut from: Counted<'a>) -> io::Result<(Option<&'static str>, Box<dyn Read + 'a>)> {
    let mut head = vec![0; 4];
    let have = read_full(&mut from, &mut head)?;
    head.truncate(have);
    let kind = Compression::of(&head);
    let whole = io::BufReader::with_capacity(128 << 10, Cursor::new(head).chain(from));
    Ok(match kind {
        Compression::Gzip => (Some("gzip"), Box::new(flate2::bufread::MultiGzDecoder::new(whole))),
        Compression::Zstd => (Some("zstd"), Box::new(zstd::stream::read::Decoder::with_buffer(whole)?)),
        Compression::None => (None, Box::new(whole)),
    })
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
    None,
}

impl Compression {
    /// What the first bytes of a stream say.
    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A zstd stream may begin with a frame to skip (seekable formats put their tables there).
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// The inflated bytes, in the order they came.
pub(super) struct Chunks {
    from: Receiver<Arc<Vec<u8>>>,
    current: Option<Arc<Vec<u8>>>,
    at: usize,
    spent: SyncSender<Vec<u8>>,
}

impl Chunks {
    /// Lets the rest pass, for the hash's sake.
    fn drain(&mut self) {
        for chunk in &self.from {
            recycle(chunk, &self.spent);
        }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let is_spent = self.current.as_ref().is_none_or(|chunk| self.at >= chunk.len());
        if is_spent {
            if let Some(chunk) = self.current.take() {
                recycle(chunk, &self.spent);
            }
            // A closed queue is the end; if the stream broke, the inflating thread says so.
            self.current = self.from.recv().ok();
            self.at = 0;
        }
        Ok(self.current.as_ref().map(|chunk| &chunk[self.at..]).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn pass(bytes: &[u8], limits: Limits) -> Result<(Vec<u8>, Passed), InflateError> {
        let done = inflate(&mut Cursor::new(bytes.to_vec()), limits, |chunks| {
            let mut out = Vec::new();
            chunks.read_to_end(&mut out).map(|_| out)
        });
        done.map_err(|failed| match failed {
            Failed::Stream(error) => error,
            Failed::Work(error) => InflateError::Read(error),
        })
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn digest(bytes: &[u8]) -> Digest {
        Digest::from_bytes(Algorithm::Sha256, ring::digest::digest(&SHA256, bytes).as_ref()).unwrap()
    }

    #[test]
    fn every_compression_gives_the_same_bytes_and_hash() {
        let plain: Vec<u8> = (0..3_000_000_u32).map(|number| (number / 7) as u8).collect();
        let members = [gzip(&plain[..1000]), gzip(&plain[1000..])].concat();
        let frames =
            [zstd::encode_all(&plain[..5000], 1).unwrap(), zstd::encode_all(&plain[5000..], 1).unwrap()]
                .concat();
        for stream in [plain.clone(), gzip(&plain), members, frames] {
            let (out, passed) = pass(&stream, Limits::default()).unwrap();
            assert!(out == plain);
            assert_eq!(passed.size, plain.len() as u64);
            assert_eq!(passed.diff_id, digest(&plain));
        }
    }

    #[test]
    fn a_cut_or_damaged_stream_is_an_error() {
        let plain = vec![7; 100_000];
        for whole in [gzip(&plain), zstd::encode_all(&plain[..], 1).unwrap()] {
            let cut = &whole[..whole.len() - 5];
            assert!(matches!(pass(cut, Limits::default()), Err(InflateError::Damaged(..))));
        }
        let mut garbage = gzip(&plain);
        garbage.extend_from_slice(b"garbage");
        assert!(matches!(pass(&garbage, Limits::default()), Err(InflateError::Damaged(..))));
    }

    #[test]
    fn a_bomb_is_stopped() {
        let bomb = gzip(&vec![0; 20 << 20]);
        let limits = Limits { free_bytes: 1 << 20, ratio: 100, ..Limits::default() };
        assert!(matches!(pass(&bomb, limits), Err(InflateError::Bomb { .. })));
        let limits = Limits { most_bytes: 10 << 20, ..Limits::default() };
        assert!(matches!(pass(&bomb, limits), Err(InflateError::Bomb { .. })));
        assert!(pass(&bomb, Limits::default()).is_ok());
    }

    #[test]
    fn work_that_stops_early_still_gets_the_whole_hash() {
        let plain = vec![9; 5 << 20];
        let done = inflate(&mut Cursor::new(plain.clone()), Limits::default(), |_| Ok::<_, ()>(()));
        let Ok(((), passed)) = done else { panic!("failed") };
        assert_eq!(passed.diff_id, digest(&plain));
    }

    #[test]
    fn work_that_fails_stops_the_stream() {
        let mut endless = io::repeat(1);
        let done = inflate(&mut endless, Limits::default(), |_| Err::<(), _>("no"));
        assert!(matches!(done, Err(Failed::Work("no"))));
    }
}
