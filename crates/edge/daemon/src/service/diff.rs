//! Layers: applied to mounts, and made from mounts.

use std::sync::Arc;

use api::containerd::services::diff::v1 as wire;
use api::time;
use grpc::containerd::services::diff::v1::diff_server;
use grpc::convert::{FromWire, ToWire, nouns, required};
use model::Lane;
use model::diff::{Apply, Compare};
use model::snapshot::Mount;
use spec::{Descriptor, media};
use tonic::{Request, Response, Status};

use super::Diff;
use crate::request::{answer, open};

#[tonic::async_trait]
impl diff_server::Diff for Diff {
    async fn apply(
        &self,
        request: Request<wire::ApplyRequest>,
    ) -> Result<Response<wire::ApplyResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let layer = Descriptor::from_wire(required(message.diff, "diff")?)?;
                let mounts: Vec<Mount> = nouns(message.mounts)?;
                let apply = Apply { sync_fs: message.sync_fs };
                let engine = Arc::clone(&self.0);
                let work =
                    ctx.blocking(Lane::Cpu, move |cx| engine.differ.apply(cx, &layer, &mounts, &apply));
                let applied = ctx.attended(work).await?;
                let applied = Descriptor::new(media::LAYER, applied.diff_id, applied.size);
                Ok(wire::ApplyResponse { applied: Some(applied.to_wire()) })
            }
            .await,
        )
    }

    async fn diff(
        &self,
        request: Request<wire::DiffRequest>,
    ) -> Result<Response<wire::DiffResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let (lower, upper): (Vec<Mount>, Vec<Mount>) = (nouns(message.left)?, nouns(message.right)?);
                let compare = Compare {
                    media_type: message.media_type,
                    reference: message.r#ref,
                    labels: message.labels,
                    source_date_epoch: time(message.source_date_epoch.as_ref()),
                };
                let engine = Arc::clone(&self.0);
                let work =
                    ctx.blocking(Lane::Cpu, move |cx| engine.differ.compare(cx, &lower, &upper, &compare));
                let diff = ctx.attended(work).await?;
                Ok(wire::DiffResponse { diff: Some(diff.to_wire()) })
            }
            .await,
        )
    }
}
