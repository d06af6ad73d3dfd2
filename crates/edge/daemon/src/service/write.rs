//! `Content.Write`: one ingest, driven by the messages of one stream.
//!
//! The first message names the ingest, which stays locked while the stream lives. `STAT` reports, `WRITE` appends,
//! `COMMIT` appends and makes a blob. Every message is answered, with the digest of the bytes so far; an error ends the
//! stream.

use std::sync::Arc;

use api::containerd::services::content::v1::{WriteAction, WriteContentRequest, WriteContentResponse};
use api::timestamp;
use grpc::convert::{optional_digest, signed, unsigned};
use model::content::{Commit, Ingest, Open, Status as Progress};
use model::{Ctx, Error, Kind, Labels, Lane, Result};
use spec::Digest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::engine::Engine;
use crate::request::{Answers, fail};

/// Answers the messages of a stream until it ends.
pub fn start(
    engine: Arc<Engine>,
    ctx: Ctx,
    mut messages: Streaming<WriteContentRequest>,
) -> Answers<WriteContentResponse> {
    let (send, answers) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut session = None;
        loop {
            let message = match messages.message().await {
                Ok(Some(message)) => message,
                // A client that hangs up leaves its bytes for a later stream.
                Ok(None) | Err(_) => return,
            };
            let commit = message.action() == WriteAction::Commit;
            let answer = step(&engine, &ctx, &mut session, message).await;
            let last = commit || answer.is_err();
            if send.send(answer.map_err(|error| fail(&error))).await.is_err() || last {
                return;
            }
        }
    });
    Box::pin(ReceiverStream::new(answers))
}

/// What a stream has said so far.
struct Session {
    ingest: Box<dyn Ingest>,
    reference: String,
    total: u64,
    expected: Option<Digest>,
}

async fn step(
    engine: &Arc<Engine>,
    ctx: &Ctx,
    session: &mut Option<Session>,
    message: WriteContentRequest,
) -> Result<WriteContentResponse> {
    let total = unsigned(message.total, "total")?;
    let expected = optional_digest(&message.expected)?;
    let mut open = match session.take() {
        Some(session) => session,
        None => begin(engine, ctx, &message, total, expected.clone()).await?,
    };
    agree(engine, ctx, &mut open, total, expected).await?;
    let (open, answer) = ctx
        .blocking(Lane::Disk, move |cx| {
            let answer = act(cx, &mut open, message);
            Ok((open, answer))
        })
        .await?;
    *session = Some(open);
    answer
}

async fn begin(
    engine: &Arc<Engine>,
    ctx: &Ctx,
    message: &WriteContentRequest,
    total: u64,
    expected: Option<Digest>,
) -> Result<Session> {
    if message.r#ref.is_empty() {
        return Err(Error::new(Kind::InvalidArgument, "first message must have a reference"));
    }
    let reference = message.r#ref.clone();
    let open = Open { reference: reference.clone(), total, expected: expected.clone() };
    let engine = Arc::clone(engine);
    let ingest = ctx.blocking(Lane::Disk, move |cx| engine.store.content().ingest(cx, &open)).await?;
    Ok(Session { ingest, reference, total, expected })
}

/// Takes in the total and the digest that a message says; each can be said once.
async fn agree(
    engine: &Arc<Engine>,
    ctx: &Ctx,
    open: &mut Session,
    total: u64,
    expected: Option<Digest>,
) -> Result<()> {
    if let Some(wanted) = expected
        && open.expected.as_ref() != Some(&wanted)
    {
        if let Some(before) = &open.expected {
            let text = format!("commit digest {wanted}, expected {before}");
            return Err(Error::new(Kind::InvalidArgument, text));
        }
        if has(engine, ctx, &wanted).await? {
            abort(engine, ctx, &open.reference).await;
            let text = format!("blob with expected digest {wanted} exists");
            return Err(Error::new(Kind::AlreadyExists, text));
        }
        open.expected = Some(wanted);
    }
    if total > 0 {
        if open.total > 0 && open.total != total {
            let text = format!("commit size {total}, expected {} for {}", open.total, open.reference);
            return Err(Error::new(Kind::InvalidArgument, text));
        }
        open.total = total;
    }
    Ok(())
}

/// Whether the namespace has the blob already.
async fn has(engine: &Arc<Engine>, ctx: &Ctx, digest: &Digest) -> Result<bool> {
    let (engine, wanted) = (Arc::clone(engine), digest.clone());
    let found = ctx.blocking(Lane::Disk, move |cx| engine.store.content().info(cx, &wanted)).await;
    match found {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == Kind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Drops the ingest of bytes that are not needed: the next writer of the reference must not append to them.
async fn abort(engine: &Arc<Engine>, ctx: &Ctx, reference: &str) {
    let (engine, name) = (Arc::clone(engine), reference.to_owned());
    let aborted = ctx.blocking(Lane::Disk, move |cx| engine.store.content().abort(cx, &name)).await;
    if let Err(error) = aborted {
        tracing::error!(reference, %error, "cannot abort an ingest whose blob exists");
    }
}

fn act(cx: &model::Cx<'_>, open: &mut Session, message: WriteContentRequest) -> Result<WriteContentResponse> {
    let action = WriteAction::try_from(message.action)
        .map_err(|_| Error::invalid(format_args!("unknown write action {}", message.action)))?;
    match action {
        WriteAction::Stat => Ok(answer(action, &open.ingest.status(), open, &open.ingest.digest()?)),
        WriteAction::Write => {
            append(open.ingest.as_mut(), message.offset, &message.data)?;
            Ok(answer(action, &open.ingest.status(), open, &open.ingest.digest()?))
        }
        WriteAction::Commit => {
            append(open.ingest.as_mut(), message.offset, &message.data)?;
            let before = open.ingest.status();
            let digest = commit(cx, open, message.labels)?;
            Ok(answer(action, &before, open, &digest))
        }
    }
}

fn append(ingest: &mut dyn Ingest, offset: i64, data: &[u8]) -> Result<()> {
    let at = ingest.status().offset;
    let offset = unsigned(offset, "offset")?;
    if offset > 0 && offset != at {
        let text = format!("write @{offset} must occur at current offset {at}");
        return Err(Error::new(Kind::OutOfRange, text));
    }
    if offset == 0 && at > 0 {
        ingest.truncate(0)?;
    }
    if data.is_empty() { Ok(()) } else { ingest.write(data) }
}

fn commit(cx: &model::Cx<'_>, open: &mut Session, labels: Labels) -> Result<Digest> {
    let size = (open.total > 0).then_some(open.total);
    open.ingest.commit(cx, &Commit { size, expected: open.expected.clone(), labels })
}

fn answer(action: WriteAction, at: &Progress, open: &Session, digest: &Digest) -> WriteContentResponse {
    WriteContentResponse {
        action: action.into(),
        started_at: Some(timestamp(at.started_at)),
        updated_at: Some(timestamp(at.updated_at)),
        offset: signed(at.offset),
        total: signed(open.total.max(at.total)),
        digest: digest.as_str().into(),
    }
}
