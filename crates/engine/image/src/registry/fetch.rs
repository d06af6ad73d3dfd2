//! Content by digest: documents whole and verified, blobs as a stream that survives what happens to its connections.
//!
//! A blob's bytes come in order. They are read from one connection as long as that is not what everything waits for; a
//! large blob whose network proves slower than our disk is shared by several connections, a piece each.
//!
//! Invariant: no byte beyond the descriptor's size is handed on; a stream that ends well is exactly that long.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{ACCEPT, ACCEPT_ENCODING, RANGE};
use http::{Method, StatusCode};
use model::manifest::MAX_DOCUMENT;
use ring::digest;
use spec::{Algorithm, Descriptor, Digest, Error, Kind, media};
use tokio::sync::mpsc;
use tracing::debug;

use super::address::shown;
use super::answer::Answer;
use super::auth::Scope;
use super::exchange::{Call, Session};
use super::{Registry, RequestError};

/// After so many bytes of one connection it is judged whether more connections would help.
const SAMPLE: u64 = 4 << 20;

/// Why a connection's stream ended without failing.
enum End {
    Complete,
    Split,
}

impl Registry {
    /// Reads the whole of a manifest, an index or a config, and checks its size and digest.
    ///
    /// # Errors
    /// `NotFound` when no endpoint has it; otherwise the error of the endpoint that got furthest.
    pub async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RequestError> {
        let mut patience = self.patience(|can| can.pull);
        while let Some(session) = patience.next().await {
            match self.document_at(session, descriptor).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => patience.failed(error),
            }
        }
        Err(missing(patience.give_up("pull"), descriptor))
    }

    async fn document_at(&self, session: &Session, wanted: &Descriptor) -> Result<Vec<u8>, RequestError> {
        let answer = session.send(&self.content_call(wanted)).await?;
        let url = shown(&answer.url);
        if wanted.size > MAX_DOCUMENT {
            return Err(RequestError::Long { url, limit: MAX_DOCUMENT });
        }
        let bytes = answer.whole(wanted.size).await?;
        let (got, wanted_size) = (bytes.len() as u64, wanted.size);
        if got < wanted_size {
            return Err(RequestError::Short { url, got, wanted: wanted_size });
        }
        check(&bytes, &wanted.digest, &url)?;
        Ok(bytes)
    }

    /// Sends the bytes of a blob from offset `from` on to `to`, in order; gone connections are replaced, gone endpoints too.
    /// An `attempt` after bytes that proved wrong begins at another endpoint.
    ///
    /// # Errors
    /// As [`document`](Self::document); `Canceled` when nobody receives any more.
    pub async fn blob(
        &self,
        descriptor: &Descriptor,
        from: u64,
        attempt: usize,
        to: &mpsc::Sender<Bytes>,
    ) -> Result<(), RequestError> {
        let mut stream = Stream { registry: self, descriptor, at: from, to, may_split: true };
        let mut patience = self.patience(|can| can.pull);
        patience.begin_at(attempt);
        while stream.at < descriptor.size {
            let Some(session) = patience.next().await else {
                let error = missing(patience.give_up("pull"), descriptor);
                return stream.elsewhere(error).await;
            };
            let before = stream.at;
            match stream.run(session).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    if stream.at > before {
                        patience.renew();
                    }
                    patience.failed(error);
                }
            }
        }
        Ok(())
    }

    fn content_call(&self, descriptor: &Descriptor) -> Call {
        let kind = &descriptor.media_type;
        let is_manifest =
            media::is_manifest(kind) || media::is_index(kind) || kind == media::DOCKER_MANIFEST_V1;
        let place = if is_manifest { "manifests" } else { "blobs" };
        let target = format!("/{}/{place}/{}", self.reference.path(), descriptor.digest);
        let accept = if kind.is_empty() { "*/*".to_owned() } else { format!("{kind}, */*") };
        Call::new(Method::GET, target, Scope::pull(self.reference.path()))
            .header(ACCEPT, &accept)
            .header(ACCEPT_ENCODING, "identity")
    }
}

/// A blob on its way.
struct Stream<'a> {
    registry: &'a Registry,
    descriptor: &'a Descriptor,
    at: u64,
    to: &'a mpsc::Sender<Bytes>,
    may_split: bool,
}

impl Stream<'_> {
    async fn run(&mut self, session: &Session) -> Result<(), RequestError> {
        if self.may_split && self.registry.limits.split_always && self.is_large() {
            return self.split(session).await;
        }
        let answer = self.open(session, &self.registry.content_call(self.descriptor)).await?;
        match self.read(answer).await? {
            End::Complete => Ok(()),
            End::Split => self.split(session).await,
        }
    }

    /// Opens the blob at the offset where we are.
    async fn open(&mut self, session: &Session, call: &Call) -> Result<Answer, RequestError> {
        if self.at == 0 {
            return session.send(call).await;
        }
        let ranged = Call::new(call.method.clone(), call.target.clone(), call.scope.clone());
        let mut ranged = Call { headers: call.headers.clone(), absolute: call.absolute, ..ranged };
        ranged = ranged.header(RANGE, &format!("bytes={}-", self.at));
        let mut answer = session.ask(&ranged).await?;
        if answer.status == StatusCode::PARTIAL_CONTENT {
            check_range(&answer, self.at)?;
            return Ok(answer);
        }
        if refuses_range(answer.status) {
            answer.discard().await;
            answer = session.send(call).await?;
        } else if !answer.status.is_success() {
            return Err(answer.complaint().await);
        }
        // Ranges are not known here: what we have is read again and dropped.
        self.may_split = false;
        let mut left = self.at;
        while left > 0 {
            let short = || RequestError::Short {
                url: shown(&answer.url),
                got: self.at - left,
                wanted: self.descriptor.size,
            };
            let short_error = short();
            let Some(piece) = answer.piece().await? else { return Err(short_error) };
            let len = piece.len() as u64;
            if len > left {
                let rest = piece.slice(usize::try_from(left).unwrap_or(piece.len())..);
                self.give(&answer, rest).await?;
                return Ok(answer);
            }
            left -= len;
        }
        Ok(answer)
    }

    /// Hands on what comes until the end, or until more connections would help.
    async fn read(&mut self, mut answer: Answer) -> Result<End, RequestError> {
        let (mut waited, mut gave, mut sampled) = (Duration::ZERO, Duration::ZERO, 0);
        loop {
            let asked = Instant::now();
            let Some(piece) = answer.piece().await? else { break };
            let got = Instant::now();
            sampled += piece.len() as u64;
            self.give(&answer, piece).await?;
            waited += got - asked;
            gave += got.elapsed();
            if sampled >= SAMPLE {
                if self.may_split && waited > gave * 3 && self.is_large() {
                    debug!(digest = %self.descriptor.digest, "the network is what we wait for: more connections");
                    return Ok(End::Split);
                }
                (waited, gave, sampled) = (Duration::ZERO, Duration::ZERO, 0);
            }
        }
        if self.at < self.descriptor.size {
            let (got, wanted) = (self.at, self.descriptor.size);
            return Err(RequestError::Short { url: shown(&answer.url), got, wanted });
        }
        Ok(End::Complete)
    }

    /// Fetches the rest over several connections, a piece each, and hands the pieces on in order.
    async fn split(&mut self, session: &Session) -> Result<(), RequestError> {
        let (limits, size) = (&self.registry.limits, self.descriptor.size);
        let piece = limits.piece.max(64 << 10);
        let call = self.registry.content_call(self.descriptor);
        let ranges = (self.at..size).step_by(usize::try_from(piece).unwrap_or(usize::MAX));
        let ranges: Vec<_> = ranges.map(|first| (first, (first + piece).min(size))).collect();
        let fetches = ranges.into_iter().map(|(first, end)| piece_at(session, &call, first, end));
        let mut pieces = std::pin::pin!(stream::iter(fetches).buffered(limits.connections.max(1)));
        let mut at = self.at;
        let mut outcome = Ok(());
        while let Some(chunks) = pieces.next().await {
            match chunks {
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
                Ok(chunks) => {
                    for chunk in chunks {
                        at += chunk.len() as u64;
                        self.to.send(chunk).await.map_err(|_| gone())?;
                    }
                }
            }
        }
        self.at = at;
        if let Err(RequestError::Answer { .. }) = &outcome {
            self.may_split = false;
        }
        outcome
    }

    /// The last resort for layers that may not be redistributed: the addresses in their descriptor.
    async fn elsewhere(&mut self, error: RequestError) -> Result<(), RequestError> {
        let may = media::is_non_distributable(&self.descriptor.media_type);
        for address in self.descriptor.urls.iter().filter(|_| may).take(8) {
            if !address.starts_with("https://") && !address.starts_with("http://") {
                continue;
            }
            let session = &self.registry.stranger;
            let call = Call::new(Method::GET, address.clone(), Scope::none()).absolutely();
            if let Ok(answer) = self.open(session, &call).await
                && let Ok(End::Complete) = self.read(answer).await
            {
                return Ok(());
            }
        }
        Err(error)
    }

    fn is_large(&self) -> bool {
        self.registry.limits.connections > 1
            && self.descriptor.size - self.at >= self.registry.limits.split_from.max(1)
    }

    async fn give(&mut self, answer: &Answer, piece: Bytes) -> Result<(), RequestError> {
        let (len, size) = (piece.len() as u64, self.descriptor.size);
        if len > size - self.at {
            return Err(RequestError::Long { url: shown(&answer.url), limit: size });
        }
        self.to.send(piece).await.map_err(|_| gone())?;
        self.at += len;
        Ok(())
    }
}

/// Reads the bytes from `first` to `end` of a blob, all of them.
async fn piece_at(session: &Session, call: &Call, first: u64, end: u64) -> Result<Vec<Bytes>, RequestError> {
    let ranged = Call::new(call.method.clone(), call.target.clone(), call.scope.clone());
    let ranged = Call { headers: call.headers.clone(), ..ranged };
    let ranged = ranged.header(RANGE, &format!("bytes={first}-{}", end - 1));
    let mut answer = session.ask(&ranged).await?;
    if !answer.status.is_success() && !refuses_range(answer.status) {
        return Err(answer.complaint().await);
    }
    if answer.status != StatusCode::PARTIAL_CONTENT {
        return Err(RequestError::Answer { url: shown(&answer.url), what: "it knows no ranges".into() });
    }
    check_range(&answer, first)?;
    let (mut chunks, mut got) = (Vec::new(), 0);
    while let Some(chunk) = answer.piece().await? {
        got += chunk.len() as u64;
        if got > end - first {
            return Err(RequestError::Long { url: shown(&answer.url), limit: end - first });
        }
        chunks.push(chunk);
    }
    if got < end - first {
        return Err(RequestError::Short { url: shown(&answer.url), got, wanted: end - first });
    }
    Ok(chunks)
}

/// Whether `status` refuses the range of a request rather than the request: without a range it may still be served.
fn refuses_range(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED
    )
}

/// A partial answer must begin where it was asked to; one that does not say where is taken at its word, and the digest
/// tells.
fn check_range(answer: &Answer, first: u64) -> Result<(), RequestError> {
    let Some(field) = answer.field("content-range") else { return Ok(()) };
    let begins = field.strip_prefix("bytes ").and_then(|text| text.split_once('-')?.0.parse().ok());
    if begins == Some(first) {
        return Ok(());
    }
    let what = format!("asked for bytes from {first}, it gives {field:?}");
    Err(RequestError::Answer { url: shown(&answer.url), what })
}

/// Checks `bytes` against `wanted`.
pub(super) fn check(bytes: &[u8], wanted: &Digest, url: &str) -> Result<(), RequestError> {
    let hash = match wanted.algorithm() {
        Algorithm::Sha256 => digest::digest(&digest::SHA256, bytes),
        Algorithm::Sha384 => digest::digest(&digest::SHA384, bytes),
        Algorithm::Sha512 => digest::digest(&digest::SHA512, bytes),
    };
    match Digest::from_bytes(wanted.algorithm(), hash.as_ref()) {
        Ok(found) if found == *wanted => Ok(()),
        found => Err(RequestError::Digest {
            url: url.into(),
            found: found.map(|found| found.to_string()).unwrap_or_default(),
            wanted: wanted.to_string(),
        }),
    }
}

fn gone() -> RequestError {
    RequestError::Local(Error::new(Kind::Canceled, "nobody receives the content any more"))
}

fn missing(error: RequestError, descriptor: &Descriptor) -> RequestError {
    match error {
        RequestError::Status { status: StatusCode::NOT_FOUND, .. } => RequestError::NotFound(format!(
            "could not fetch content descriptor {} ({}) from remote",
            descriptor.digest, descriptor.media_type
        )),
        error => error,
    }
}
