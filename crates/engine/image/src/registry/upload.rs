//! Content to a registry: blobs that it lacks, then the manifests that name them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Frame, SizeHint};
use model::content::Content;
use model::{Ctx, Lane};
use spec::{Descriptor, Error};
use tokio::sync::mpsc;

use super::address::{encoded, join};
use super::auth::Scope;
use super::connect::Body;
use super::exchange::{Call, Session};
use super::resolve::ACCEPTED;
use super::{Limits, Registry, RequestError};

/// What is read of a blob at a time.
const PIECE: usize = 256 << 10;
/// The slowest upload that is waited for, in bytes a second.
const SLOWEST: u64 = 16 << 10;

/// How a blob came to be at the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was there.
    Exists,
    /// The registry shared it from another repository.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// The body of a request, which can be made again for every try.
#[derive(Clone)]
pub(super) enum Payload {
    Empty,
    Bytes(Bytes),
    Blob(Arc<BlobPayload>),
}

/// A blob of the content store as a body.
#[derive(Clone)]
pub(super) struct BlobPayload {
    ctx: Ctx,
    content: Arc<dyn Content>,
    descriptor: Descriptor,
    count: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Payload {
    /// The body, from its start.
    pub fn body(&self) -> Body {
        match self {
            Self::Empty => Empty::new().map_err(|never| match never {}).boxed_unsync(),
            Self::Bytes(bytes) => Full::new(bytes.clone()).map_err(|never| match never {}).boxed_unsync(),
            Self::Blob(blob) => blob.body().boxed_unsync(),
        }
    }

    /// How long an answer may take: it comes when the body has gone.
    pub fn patience(&self, limits: &Limits) -> Duration {
        match self {
            Self::Empty | Self::Bytes(_) => limits.answer,
            Self::Blob(blob) => {
                limits.answer.saturating_add(Duration::from_secs(blob.descriptor.size / SLOWEST))
            }
        }
    }
}

impl BlobPayload {
    fn body(&self) -> BlobBody {
        let (to, from) = mpsc::channel(4);
        let blob = self.clone();
        tokio::spawn(async move {
            let failed = to.clone();
            let (ctx, count) = (blob.ctx.clone(), blob.count.clone());
            let sent = ctx
                .blocking(Lane::Stream, move |cx| {
                    let open = blob.content.open(cx, &blob.descriptor.digest)?;
                    let mut at = 0;
                    loop {
                        cx.check()?;
                        let mut piece = vec![0; PIECE];
                        let read = open
                            .read_at(&mut piece, at)
                            .map_err(|error| Error::internal(format!("cannot read: {error}")))?;
                        piece.truncate(read);
                        at += read as u64;
                        // A gone receiver means that the request ended early, which it reports itself.
                        if read == 0 || to.blocking_send(Ok(Bytes::from(piece))).is_err() {
                            return Ok(());
                        }
                        count(at);
                    }
                })
                .await;
            if let Err(error) = sent {
                let _ = failed.send(Err(io::Error::other(error.to_string()))).await;
            }
        });
        BlobBody { from, left: self.descriptor.size }
    }
}

/// The stream of a blob whose length is known.
struct BlobBody {
    from: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl hyper::body::Body for BlobBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.from.poll_recv(cx).map(|piece| match piece {
            Some(Ok(piece)) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                Some(Ok(Frame::data(piece)))
            }
            Some(Err(error)) => Some(Err(error)),
            None => None,
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Registry {
    /// Makes sure that the registry has a blob; `sources` are repositories of the same host that may have it, `count` is told
    /// how many bytes have gone.
    ///
    /// # Errors
    /// What the registry answered, or that nobody may be pushed to.
    pub async fn push_blob(
        &self,
        ctx: &Ctx,
        content: &Arc<dyn Content>,
        descriptor: &Descriptor,
        sources: &[String],
        count: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> Result<Outcome, RequestError> {
        let blob = Arc::new(BlobPayload {
            ctx: ctx.clone(),
            content: content.clone(),
            descriptor: descriptor.clone(),
            count,
        });
        let mut patience = self.patience(|can| can.push);
        while let Some(session) = patience.next().await {
            match self.push_blob_to(session, &blob, sources).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => patience.failed(error),
            }
        }
        Err(patience.give_up("push"))
    }

    async fn push_blob_to(
        &self,
        session: &Session,
        blob: &Arc<BlobPayload>,
        sources: &[String],
    ) -> Result<Outcome, RequestError> {
        let (path, digest) = (self.reference.path(), &blob.descriptor.digest);
        let scope = Scope::push(path);
        let head = Call::new(Method::HEAD, format!("/{path}/blobs/{digest}"), scope.clone());
        let answer = session.ask(&head).await?;
        if answer.status == StatusCode::OK {
            return Ok(Outcome::Exists);
        }
        if answer.status != StatusCode::NOT_FOUND {
            return Err(answer.complaint().await);
        }
        answer.discard().await;
        let mut started = None;
        for source in sources.iter().filter(|source| *source != path).take(3) {
            let query = format!("mount={}&from={}", encoded(digest.as_str()), encoded(source));
            let target = format!("/{path}/blobs/uploads/?{query}");
            let answer = session.ask(&Call::new(Method::POST, target, Scope::mount(path, source))).await?;
            match answer.status {
                StatusCode::CREATED => return Ok(Outcome::Mounted),
                StatusCode::ACCEPTED => {
                    started = Some(answer);
                    break;
                }
                _ => answer.discard().await,
            }
        }
        let started = match started {
            Some(answer) => answer,
            None => session.send(&Call::new(Method::POST, format!("/{path}/blobs/uploads/"), scope)).await?,
        };
        let location = started.field("location").ok_or_else(|| RequestError::Answer {
            url: started.url.to_string(),
            what: "no location for an upload".into(),
        })?;
        let location = join(&started.url, location)?.to_string();
        started.discard().await;
        let mark = if location.contains('?') { '&' } else { '?' };
        let target = format!("{location}{mark}digest={}", encoded(digest.as_str()));
        let put = Call::new(Method::PUT, target, Scope::push(path))
            .absolutely()
            .header(CONTENT_TYPE, "application/octet-stream")
            .payload(Payload::Blob(blob.clone()));
        session.send(&put).await?.discard().await;
        Ok(Outcome::Uploaded)
    }

    /// Makes sure that the registry has a manifest or an index, under `tag` or else under its digest.
    ///
    /// # Errors
    /// What the registry answered, or that nobody may be pushed to.
    pub async fn push_manifest(
        &self,
        descriptor: &Descriptor,
        bytes: Bytes,
        tag: Option<&str>,
    ) -> Result<Outcome, RequestError> {
        let mut patience = self.patience(|can| can.push);
        while let Some(session) = patience.next().await {
            match self.push_manifest_to(session, descriptor, bytes.clone(), tag).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => patience.failed(error),
            }
        }
        Err(patience.give_up("push"))
    }

    async fn push_manifest_to(
        &self,
        session: &Session,
        descriptor: &Descriptor,
        bytes: Bytes,
        tag: Option<&str>,
    ) -> Result<Outcome, RequestError> {
        let object = tag.unwrap_or(descriptor.digest.as_str());
        let target = format!("/{}/manifests/{object}", self.reference.path());
        let scope = Scope::push(self.reference.path());
        let head = Call::new(Method::HEAD, target.clone(), scope.clone()).header(ACCEPT, ACCEPTED);
        let answer = session.ask(&head).await?;
        let there = answer.field("docker-content-digest") == Some(descriptor.digest.as_str());
        if answer.status == StatusCode::OK && there {
            return Ok(Outcome::Exists);
        }
        answer.discard().await;
        let put = Call::new(Method::PUT, target, scope)
            .header(CONTENT_TYPE, &descriptor.media_type)
            .payload(Payload::Bytes(bytes));
        session.send(&put).await?.discard().await;
        Ok(Outcome::Uploaded)
    }
}
