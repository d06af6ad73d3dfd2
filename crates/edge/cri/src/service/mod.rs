//! The two gRPC services: decode, call the verb, encode.
//!
//! Invariant: no decision is made here but one: nothing is answered before what an earlier daemon left is taken up.

mod image;
mod runtime;

use std::pin::Pin;

use ::spec::Kind;
use grpc::status::to_status;
use model::Result;
use tokio_stream::Stream;
use tonic::{Response, Status};

pub use image::ImageStore;
pub use runtime::Runtime;

/// A stream of answers.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// How many items of a list go into one message of its stream.
const BATCH: usize = 100;

/// Turns a verb's result into an answer.
fn answer<T>(result: Result<T>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| fail(&error))
}

/// The status of an error; what is ours to mend is logged, since here it leaves the daemon.
fn fail(error: &::spec::Error) -> Status {
    match error.kind() {
        Kind::Internal | Kind::DataLoss | Kind::Unknown => tracing::error!(%error, "request failed"),
        _ => tracing::debug!(%error, "request failed"),
    }
    to_status(error)
}

/// Gives a list as a stream, some at a time.
fn stream<T: Send + 'static, M: Send + 'static>(
    items: Result<Vec<T>>,
    message: impl Fn(Vec<T>) -> M + Send + 'static,
) -> Result<Response<Answers<M>>, Status> {
    let mut items = items.map_err(|error| fail(&error))?.into_iter();
    let batches = std::iter::from_fn(move || {
        let batch: Vec<T> = items.by_ref().take(BATCH).collect();
        (!batch.is_empty()).then(|| Ok(message(batch)))
    });
    Ok(Response::new(Box::pin(tokio_stream::iter(batches))))
}
