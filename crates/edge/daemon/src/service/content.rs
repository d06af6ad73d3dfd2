//! Content: blobs and ingests.

use std::sync::Arc;

use api::containerd::services::content::v1 as wire;
use grpc::containerd::services::content::v1::content_server;
use grpc::convert::{ToWire, digest, list, mask, required, signed, unsigned};
use model::content::Blob;
use model::{Ctx, Error, Filters, Kind, Lane, Result};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Content, on_disk, write};
use crate::request::{Answers, answer, batches, fail, open};

/// How many records one message of a list carries, as containerd's.
const BATCH: usize = 100;
/// How many bytes one message of a read carries, as containerd's.
const CHUNK: usize = 1 << 20;

#[tonic::async_trait]
impl content_server::Content for Content {
    async fn info(
        &self,
        request: Request<wire::InfoRequest>,
    ) -> Result<Response<wire::InfoResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let digest = digest(&message.digest)?;
                let info = on_disk(&self.0, &ctx, move |engine, cx| engine.store.content().info(cx, &digest))
                    .await?;
                Ok(wire::InfoResponse { info: Some(info.to_wire()) })
            }
            .await,
        )
    }

    async fn update(
        &self,
        request: Request<wire::UpdateRequest>,
    ) -> Result<Response<wire::UpdateResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let mask = mask(message.update_mask);
                let info = required(message.info, "content info")?;
                let digest = digest(&info.digest)?;
                let info = on_disk(&self.0, &ctx, move |engine, cx| {
                    engine.store.content().update(cx, &digest, &info.labels, &mask)
                })
                .await?;
                Ok(wire::UpdateResponse { info: Some(info.to_wire()) })
            }
            .await,
        )
    }

    type ListStream = Answers<wire::ListContentResponse>;

    async fn list(
        &self,
        request: Request<wire::ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let filters = Filters::parse(&message.filters)?;
                let all = on_disk(&self.0, &ctx, move |engine, cx| engine.store.content().list(cx, &filters))
                    .await?;
                Ok(batches(all, BATCH, |some| wire::ListContentResponse { info: list(some) }))
            }
            .await,
        )
    }

    async fn delete(&self, request: Request<wire::DeleteContentRequest>) -> Result<Response<()>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let digest = digest(&message.digest)?;
                on_disk(&self.0, &ctx, move |engine, cx| engine.store.content().delete(cx, &digest)).await
            }
            .await,
        )
    }

    type ReadStream = Answers<wire::ReadContentResponse>;

    async fn read(
        &self,
        request: Request<wire::ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let digest = digest(&message.digest)?;
                let blob = on_disk(&self.0, &ctx, move |engine, cx| engine.store.content().open(cx, &digest))
                    .await?;
                let (start, end) = range(blob.size(), &message)?;
                Ok(read(ctx, blob.into(), start, end))
            }
            .await,
        )
    }

    async fn status(
        &self,
        request: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::StatusResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let status = on_disk(&self.0, &ctx, move |engine, cx| {
                    engine.store.content().status(cx, &message.r#ref)
                })
                .await?;
                Ok(wire::StatusResponse { status: Some(status.to_wire()) })
            }
            .await,
        )
    }

    async fn list_statuses(
        &self,
        request: Request<wire::ListStatusesRequest>,
    ) -> Result<Response<wire::ListStatusesResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let filters = Filters::parse(&message.filters)?;
                let all =
                    on_disk(&self.0, &ctx, move |engine, cx| engine.store.content().statuses(cx, &filters))
                        .await?;
                Ok(wire::ListStatusesResponse { statuses: list(all) })
            }
            .await,
        )
    }

    type WriteStream = Answers<wire::WriteContentResponse>;

    async fn write(
        &self,
        request: Request<Streaming<wire::WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        answer(open(request).map(|(ctx, messages)| write::start(Arc::clone(&self.0), ctx, messages)))
    }

    async fn abort(&self, request: Request<wire::AbortRequest>) -> Result<Response<()>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                on_disk(&self.0, &ctx, move |engine, cx| engine.store.content().abort(cx, &message.r#ref))
                    .await
            }
            .await,
        )
    }
}

/// Which bytes a request asks for; a size of 0, or one past the end, means up to the end.
fn range(size: u64, message: &wire::ReadContentRequest) -> Result<(u64, u64)> {
    let offset = unsigned(message.offset, "offset")?;
    if offset > size {
        let text = format!("read past object length {size} bytes");
        return Err(Error::new(Kind::OutOfRange, text));
    }
    let wanted = unsigned(message.size, "size")?;
    let end = if wanted == 0 { size } else { offset.saturating_add(wanted).min(size) };
    Ok((offset, end))
}

/// Streams the bytes from `start` to `end`. The offsets in the answers count from 0, as containerd's do.
fn read(ctx: Ctx, blob: Arc<dyn Blob>, start: u64, end: u64) -> Answers<wire::ReadContentResponse> {
    // One message on its way and one being read: a slow client costs two chunks.
    let (send, answers) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut at = start;
        while at < end {
            let count = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
            let from = Arc::clone(&blob);
            let chunk = ctx.blocking(Lane::Disk, move |_| read_chunk(from.as_ref(), at, count)).await;
            let answer = match chunk {
                Ok(data) => {
                    let offset = signed(at - start);
                    at += data.len() as u64;
                    Ok(wire::ReadContentResponse { offset, data })
                }
                Err(error) => Err(fail(&error)),
            };
            let last = answer.is_err();
            if send.send(answer).await.is_err() || last {
                return;
            }
        }
    });
    Box::pin(ReceiverStream::new(answers))
}

fn read_chunk(blob: &dyn Blob, at: u64, count: usize) -> Result<Vec<u8>> {
    let mut data = vec![0; count];
    let mut filled = 0;
    while filled < count {
        let read = blob
            .read_at(&mut data[filled..], at + filled as u64)
            .map_err(|error| Error::internal(format!("cannot read blob: {error}")))?;
        if read == 0 {
            return Err(Error::new(Kind::DataLoss, "a blob is shorter than its record says"));
        }
        filled += read;
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_containerds() {
        let ask = |offset, size| {
            let message = wire::ReadContentRequest { digest: String::new(), offset, size };
            range(10, &message).map_err(|error| error.kind())
        };
        assert_eq!(ask(0, 0), Ok((0, 10)));
        assert_eq!(ask(3, 4), Ok((3, 7)));
        assert_eq!(ask(3, 100), Ok((3, 10)));
        assert_eq!(ask(10, 0), Ok((10, 10)));
        assert_eq!(ask(11, 0), Err(Kind::OutOfRange));
        assert_eq!(ask(-1, 0), Err(Kind::InvalidArgument));
    }
}
