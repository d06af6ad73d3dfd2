//! Content into the store: documents with the labels that keep what they name, blobs through an ingest.
//!
//! A blob passes three stages at once: the network sends (async), a disk thread hashes and writes, and, when a layer is
//! unpacked, a third thread inflates and applies what the second has just written.
//!
//! Invariant: content that exists is put under the transfer's lease before anything else is fetched or skipped.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use model::content::{Commit, Ingest, Open, read_blob};
use model::manifest::{self, MAX_DOCUMENT, gc_labels, ref_key};
use model::{Cx, Labels, Lane};
use spec::{Descriptor, Error, Kind, Result, media};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use crate::labels::{self, Source};
use crate::progress::Node;
use crate::registry::Registry;
use crate::transfer::Scope;

/// How many pieces wait between two stages; a piece is at most what one read of a socket gives.
const QUEUE: usize = 8;
/// How long another writer of the same content may make no progress before we give up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many blobs the whole daemon downloads at once: half of the lane that their writers wait in, so that registries that
/// stall leave room for everything else.
static DOWNLOADS: Semaphore = Semaphore::const_new(32);
/// How often wrong bytes are fetched again.
const ATTEMPTS: usize = 3;

/// Where content comes from, and what is told and noted about it.
#[derive(Clone)]
pub(crate) struct Fetch {
    pub scope: Arc<Scope>,
    /// `None` when everything must be in the store already.
    pub registry: Option<Arc<Registry>>,
    pub source: Option<Source>,
    /// Whether a manifest keeps no layers: once they are unpacked they may go.
    pub discard_layers: bool,
}

/// A document of an image with what it names.
pub(crate) struct Document {
    pub bytes: Vec<u8>,
    pub children: Vec<Descriptor>,
}

/// What a download took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Took {
    /// The first bytes were right.
    OneTry,
    /// Wrong bytes were thrown away first.
    SeveralTries,
}

/// How content is opened.
pub(crate) enum Opened {
    /// It is in the store, under the lease.
    Exists,
    /// It is to be written; we are its only writer.
    Ours(Box<dyn Ingest>),
}

impl Fetch {
    /// Brings a manifest, an index or a config into the store, and reads it. `known` are its bytes, if somebody has them.
    pub async fn document(
        &self,
        descriptor: &Descriptor,
        node: &Arc<Node>,
        known: Option<Vec<u8>>,
    ) -> Result<Document> {
        if descriptor.size > MAX_DOCUMENT {
            let text = format!("rejecting {} byte document {}", descriptor.size, descriptor.digest);
            return Err(Error::invalid(text));
        }
        let mut opened = self.open(descriptor).await?;
        let mut stored = None;
        if matches!(opened, Opened::Exists) {
            stored = self.read_whole(descriptor).await?;
            if stored.is_none() {
                self.remote(descriptor)?;
                opened = self.open(descriptor).await?;
            }
        }
        let (bytes, ingest) = match (opened, stored) {
            (Opened::Exists, Some(bytes)) => {
                node.exists();
                (bytes, None)
            }
            // Somebody else has fetched it again.
            (Opened::Exists, None) => (self.read(descriptor).await?, None),
            // Held while the bytes come, so that other transfers wait for them instead of fetching them too.
            (Opened::Ours(ingest), _) => {
                let bytes = match known {
                    Some(bytes) => bytes,
                    None => self.remote(descriptor)?.document(descriptor).await?,
                };
                (bytes, Some(ingest))
            }
        };
        let children = manifest::children(descriptor, &bytes)?;
        let kept: Vec<Descriptor> = children
            .iter()
            .filter(|child| !self.discard_layers || !media::is_layer(&child.media_type))
            .cloned()
            .collect();
        let labels = gc_labels(&kept);
        let bytes = match ingest {
            Some(ingest) => self.keep(descriptor, bytes, labels, ingest).await?,
            None => self.label(descriptor, bytes, labels).await?,
        };
        node.moved_to(descriptor.size);
        node.complete();
        Ok(Document { bytes, children })
    }

    fn remote(&self, descriptor: &Descriptor) -> Result<&Arc<Registry>> {
        self.registry
            .as_ref()
            .ok_or_else(|| Error::not_found(format!("content digest {}", descriptor.digest)))
    }

    /// Whether the store has it.
    pub async fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        let (content, digest) = (self.scope.services.content.clone(), descriptor.digest.clone());
        self.scope
            .blocking(Lane::Disk, move |cx| match content.info(cx, &digest) {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == Kind::NotFound => Ok(false),
                Err(error) => Err(error),
            })
            .await
    }

    /// Reads a document of the store; `None` when its bytes were damaged: they are discarded then.
    async fn read_whole(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>> {
        let (content, digest) = (self.scope.services.content.clone(), descriptor.digest.clone());
        self.scope
            .blocking(Lane::Disk, move |cx| {
                let bytes = read_blob(&*content, cx, &digest, MAX_DOCUMENT)?;
                let is_whole = manifest::sha256(&bytes) == digest || !content.discard_damaged(cx, &digest)?;
                Ok(is_whole.then_some(bytes))
            })
            .await
    }

    /// Fetches a blob of the store again if its bytes are damaged; whether they were.
    pub async fn repair(&self, descriptor: &Descriptor, node: &Arc<Node>) -> Result<bool> {
        let (content, digest) = (self.scope.services.content.clone(), descriptor.digest.clone());
        let discard = move |cx: &Cx<'_>| content.discard_damaged(cx, &digest);
        if !self.scope.blocking(Lane::Disk, discard).await? {
            return Ok(false);
        }
        if self.registry.is_none() {
            let text = format!("the bytes of {} are damaged: pull the image again", descriptor.digest);
            return Err(Error::new(Kind::DataLoss, text));
        }
        info!(digest = %descriptor.digest, "fetching damaged content again");
        self.blob(descriptor, node).await?;
        Ok(true)
    }

    async fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let (content, digest) = (self.scope.services.content.clone(), descriptor.digest.clone());
        self.scope.blocking(Lane::Disk, move |cx| read_blob(&*content, cx, &digest, MAX_DOCUMENT)).await
    }

    /// Stores a document with its labels.
    async fn keep(
        &self,
        descriptor: &Descriptor,
        bytes: Vec<u8>,
        mut labels: Labels,
        mut ingest: Box<dyn Ingest>,
    ) -> Result<Vec<u8>> {
        if let Some(source) = &self.source {
            source.add_to(&mut labels, None);
        }
        let commit =
            Commit { size: Some(descriptor.size), expected: Some(descriptor.digest.clone()), labels };
        self.scope
            .blocking(Lane::Disk, move |cx| {
                ingest.truncate(0)?;
                ingest.write(&bytes)?;
                committed(ingest.commit(cx, &commit))?;
                Ok(bytes)
            })
            .await
    }

    /// Gives a document that exists the labels that it lacks.
    async fn label(&self, descriptor: &Descriptor, bytes: Vec<u8>, labels: Labels) -> Result<Vec<u8>> {
        let (content, digest) = (self.scope.services.content.clone(), descriptor.digest.clone());
        let source = self.source.clone();
        self.scope
            .blocking(Lane::Disk, move |cx| {
                labels::ensure(cx, &*content, &digest, &labels, source.as_ref())?;
                Ok(bytes)
            })
            .await
    }

    /// Opens content for writing, or finds that it exists; waits while somebody else writes it.
    pub async fn open(&self, descriptor: &Descriptor) -> Result<Opened> {
        let reference = ref_key(descriptor);
        let open = Open {
            reference: reference.clone(),
            total: descriptor.size,
            expected: Some(descriptor.digest.clone()),
        };
        let (mut pause, mut seen, mut since) = (Duration::from_millis(20), None, Instant::now());
        loop {
            let (content, open) = (self.scope.services.content.clone(), open.clone());
            match self.scope.blocking(Lane::Disk, move |cx| content.ingest(cx, &open)).await {
                Ok(ingest) => return Ok(Opened::Ours(ingest)),
                Err(error) if error.kind() == Kind::AlreadyExists => return Ok(Opened::Exists),
                Err(error) if error.kind() != Kind::Unavailable => return Err(error),
                Err(error) => {
                    let offset = self.offset_of(&reference).await;
                    if offset != seen {
                        (seen, since) = (offset, Instant::now());
                    }
                    if since.elapsed() > PATIENCE {
                        return Err(error);
                    }
                    debug!(reference, "somebody else fetches it: waiting");
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(500));
                }
            }
        }
    }

    async fn offset_of(&self, reference: &str) -> Option<u64> {
        let (content, reference) = (self.scope.services.content.clone(), reference.to_owned());
        let status = self.scope.blocking(Lane::Disk, move |cx| content.status(cx, &reference)).await;
        status.ok().map(|status| status.offset)
    }

    /// Brings a blob into the store.
    pub async fn blob(&self, descriptor: &Descriptor, node: &Arc<Node>) -> Result<()> {
        match self.open(descriptor).await? {
            Opened::Exists => self.found(descriptor, node).await,
            Opened::Ours(ingest) => self.download(descriptor, node, ingest, None).await.map(|_| ()),
        }
    }

    /// Notes that a blob was there.
    pub async fn found(&self, descriptor: &Descriptor, node: &Arc<Node>) -> Result<()> {
        node.exists();
        let Some(source) = self.source.clone() else { return Ok(()) };
        let (content, digest) = (self.scope.services.content.clone(), descriptor.digest.clone());
        let ensure = move |cx: &Cx<'_>| labels::ensure(cx, &*content, &digest, &Labels::new(), Some(&source));
        self.scope.blocking(Lane::Disk, ensure).await
    }

    /// Fetches what `ingest` lacks and commits it; every byte also goes into `tee`. Bytes that prove wrong are fetched
    /// again, from another endpoint if there is one, but no more into `tee`: then it ends early.
    pub async fn download(
        &self,
        descriptor: &Descriptor,
        node: &Arc<Node>,
        ingest: Box<dyn Ingest>,
        tee: Option<Tee>,
    ) -> Result<Took> {
        let mut wrong = match self.attempt(descriptor, node, ingest, tee, 0).await {
            Ok(()) => return Ok(Took::OneTry),
            Err(error) => error,
        };
        for attempt in 1..ATTEMPTS {
            if wrong.kind() != Kind::FailedPrecondition {
                break;
            }
            info!(digest = %descriptor.digest, "fetching wrong content again: {wrong}");
            let Opened::Ours(ingest) = self.open(descriptor).await? else { return Ok(Took::SeveralTries) };
            match self.attempt(descriptor, node, ingest, None, attempt).await {
                Ok(()) => return Ok(Took::SeveralTries),
                Err(error) => wrong = error,
            }
        }
        Err(wrong)
    }

    async fn attempt(
        &self,
        descriptor: &Descriptor,
        node: &Arc<Node>,
        ingest: Box<dyn Ingest>,
        tee: Option<Tee>,
        attempt: usize,
    ) -> Result<()> {
        let _room = DOWNLOADS.acquire().await.map_err(|_| Error::internal("downloads are closed"))?;
        let offset = ingest.status().offset;
        // More bytes than the blob has cannot be a part of it.
        let (from, stale) = if offset > descriptor.size { (0, true) } else { (offset, false) };
        let (to, pieces) = mpsc::channel(QUEUE);
        let writer = Writer {
            ingest,
            pieces,
            tee,
            node: node.clone(),
            stale,
            at: from,
            descriptor: descriptor.clone(),
            labels: self.first_labels(),
        };
        node.moved_to(from);
        let content = self.scope.services.content.clone();
        // It waits for the network, so it must not take the place of short disk work.
        let write = self.scope.blocking(Lane::Stream, move |cx| writer.run(cx, &*content));
        let download = async {
            // Owned here, so that the writer sees the end however this ends.
            let to = to;
            if from == descriptor.size {
                return Ok(());
            }
            self.remote(descriptor)?.blob(descriptor, from, attempt, &to).await.map_err(Error::from)
        };
        let (written, downloaded) = tokio::join!(write, download);
        match (written, downloaded) {
            (Ok(()), Ok(())) => {
                node.complete();
                Ok(())
            }
            // The download fails for want of a reader when the writer has failed, and the writer is then right.
            (Err(error), Err(other)) if other.kind() == Kind::Canceled => Err(error),
            (_, Err(error)) | (Err(error), Ok(())) => Err(error),
        }
    }

    fn first_labels(&self) -> Labels {
        let mut labels = Labels::new();
        if let Some(source) = &self.source {
            source.add_to(&mut labels, None);
        }
        labels
    }
}

/// That content exists already is success.
fn committed<T>(done: Result<T>) -> Result<()> {
    match done {
        Err(error) if error.kind() == Kind::AlreadyExists => Ok(()),
        done => done.map(|_| ()),
    }
}

/// The stage that hashes and writes.
struct Writer {
    ingest: Box<dyn Ingest>,
    pieces: mpsc::Receiver<Bytes>,
    tee: Option<Tee>,
    node: Arc<Node>,
    stale: bool,
    at: u64,
    descriptor: Descriptor,
    labels: Labels,
}

impl Writer {
    fn run(mut self, cx: &Cx<'_>, content: &dyn model::content::Content) -> Result<()> {
        if self.stale {
            self.ingest.truncate(0)?;
        }
        while let Some(piece) = self.pieces.blocking_recv() {
            cx.check()?;
            self.ingest.write(&piece)?;
            self.at += piece.len() as u64;
            self.node.moved(piece.len() as u64);
            // A reader that has failed takes nothing more; whether the bytes or the layer are bad is the digest's to say.
            self.tee = self.tee.filter(|tee| tee.0.send(piece).is_ok());
        }
        if self.at < self.descriptor.size {
            // The download says why; what has come so far stays for the next pull.
            return Err(Error::new(Kind::Canceled, "the download ended early"));
        }
        // The reader's end of the tee is its sign that all has come.
        self.tee = None;
        let expected = Some(self.descriptor.digest.clone());
        let commit = Commit { size: Some(self.descriptor.size), expected, labels: self.labels };
        let done = committed(self.ingest.commit(cx, &commit));
        if let Err(error) = &done
            && error.kind() == Kind::FailedPrecondition
        {
            // Wrong bytes must not be what a later pull goes on from.
            drop(self.ingest);
            let _ = content.abort(cx, &ref_key(&self.descriptor));
        }
        done
    }
}

/// The way from the writing stage to the applying one.
pub(crate) struct Tee(SyncSender<Bytes>);

/// The applying stage's end: the bytes of a layer while they come.
pub(crate) struct TeeReader {
    from: Receiver<Bytes>,
    piece: Bytes,
    at: u64,
    size: u64,
    node: Arc<Node>,
}

/// A tee for a blob of `size` bytes.
pub(crate) fn tee(size: u64, node: &Arc<Node>) -> (Tee, TeeReader) {
    let (to, from) = sync_channel(QUEUE);
    (Tee(to), TeeReader { from, piece: Bytes::new(), at: 0, size, node: node.clone() })
}

impl io::Read for TeeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && self.at < self.size {
            let ended = |_| io::Error::new(io::ErrorKind::UnexpectedEof, "the download ended early");
            self.piece = self.from.recv().map_err(ended)?;
        }
        let count = self.piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        self.at += count as u64;
        self.node.extracted_to(self.at);
        Ok(count)
    }
}
