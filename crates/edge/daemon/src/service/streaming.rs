//! Streams that clients open for other services to use, by name.

use std::time::Duration;

use api::Any;
use api::containerd::services::streaming::v1::StreamInit;
use grpc::containerd::services::streaming::v1::streaming_server;
use model::{Error, Kind, Result};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming as Messages};

use super::Streaming;
use crate::request::{Answers, answer, open};
use crate::stream::UNCLAIMED;

/// How long a client may take to name its stream.
const FIRST: Duration = Duration::from_secs(30);

#[tonic::async_trait]
impl streaming_server::Streaming for Streaming {
    type StreamStream = Answers<Any>;

    async fn stream(&self, request: Request<Messages<Any>>) -> Result<Response<Self::StreamStream>, Status> {
        answer(self.register(request).await)
    }
}

impl Streaming {
    async fn register(&self, request: Request<Messages<Any>>) -> Result<Answers<Any>> {
        let (ctx, mut messages) = open(request)?;
        let namespace = ctx.namespace()?.clone();
        let first = tokio::time::timeout(FIRST, messages.message()).await;
        let first = first
            .map_err(|_| Error::new(Kind::DeadlineExceeded, "stream did not begin in time"))?
            .map_err(|status| grpc::status::from_status(&status))?;
        let first = first.ok_or_else(|| Error::invalid("stream ended before it began"))?;
        let init: StreamInit = api::decode_any(&first)
            .ok()
            .flatten()
            .ok_or_else(|| Error::invalid("the first message of a stream must be a StreamInit"))?;
        let (answers, ticket) = self.0.streams.add(&namespace, &init.id, messages)?;
        // An empty answer says that the stream can be used from now on.
        let ready = tokio_stream::once(Ok(Any::default()));
        let streams = self.0.streams.clone();
        tokio::spawn(async move {
            tokio::time::sleep(UNCLAIMED).await;
            streams.forget(&ticket);
        });
        Ok(Box::pin(futures_util::StreamExt::chain(ready, ReceiverStream::new(answers))))
    }
}
