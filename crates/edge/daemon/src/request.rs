//! What every handler begins and ends with: the request's context, and the one way an error leaves.

use std::pin::Pin;

use grpc::status::to_status;
use grpc::{channel, deadline};
use model::{Ctx, Result};
use spec::Kind;
use tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// A stream of answers.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The context and the message of a request that must name a namespace.
///
/// # Errors
/// `FailedPrecondition` when it names none.
pub fn open<T>(request: Request<T>) -> Result<(Ctx, T)> {
    let (ctx, message) = open_anywhere(request)?;
    ctx.namespace()?;
    Ok((ctx, message))
}

/// The context and the message of a request that need not name a namespace.
///
/// # Errors
/// A header is no identifier.
pub fn open_anywhere<T>(request: Request<T>) -> Result<(Ctx, T)> {
    let (metadata, _, message) = request.into_parts();
    Ok((context(&metadata)?, message))
}

fn context(metadata: &MetadataMap) -> Result<Ctx> {
    let mut ctx = match channel::namespace(metadata)? {
        Some(namespace) => Ctx::in_namespace(namespace),
        None => Ctx::background(),
    };
    if let Some(lease) = channel::lease(metadata)? {
        ctx = ctx.with_lease(lease);
    }
    let timeout = metadata.get("grpc-timeout").and_then(|text| text.to_str().ok());
    if let Some(left) = timeout.and_then(deadline::left) {
        ctx = ctx.with_deadline(spec::time::deadline(left));
    }
    Ok(ctx)
}

/// Turns a handler's result into an answer.
pub fn answer<T>(result: Result<T>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| fail(&error))
}

/// The status of an error; what is ours to mend is logged, since here it leaves the daemon.
pub fn fail(error: &spec::Error) -> Status {
    match error.kind() {
        Kind::Internal | Kind::DataLoss | Kind::Unknown => tracing::error!(%error, "request failed"),
        _ => tracing::debug!(%error, "request failed"),
    }
    to_status(error)
}

/// Gives `items` as a stream, some at a time.
pub fn batches<T: Send + 'static, M: Send + 'static>(
    items: Vec<T>,
    size: usize,
    message: impl Fn(Vec<T>) -> M + Send + 'static,
) -> Answers<M> {
    let mut items = items.into_iter();
    let batches = std::iter::from_fn(move || {
        let batch: Vec<T> = items.by_ref().take(size).collect();
        (!batch.is_empty()).then(|| Ok(message(batch)))
    });
    Box::pin(tokio_stream::iter(batches))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_a_namespace_is_refused_in_containerds_words() {
        let error = open(Request::new(())).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert_eq!(error.text(), "namespace is required: failed precondition");
    }
}
