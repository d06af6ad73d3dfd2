//! Snapshots; each request names its snapshotter.

use std::sync::Arc;

use api::containerd::services::snapshots::v1 as wire;
use grpc::containerd::services::snapshots::v1::snapshots_server;
use grpc::convert::{ToWire, list, mask, required, signed};
use model::snapshot::{Commit, Snapshotter};
use model::{Ctx, Cx, Error, Filters};
use tonic::{Request, Response, Status};

use super::{Snapshots, on_disk};
use crate::request::{Answers, answer, batches, open};

/// How many records one message of a list carries, as containerd's.
const BATCH: usize = 100;

impl Snapshots {
    /// Runs `work` with the namespaced view of the driver `name`.
    async fn with<T, F>(&self, ctx: &Ctx, name: String, work: F) -> Result<T, Error>
    where
        F: FnOnce(&dyn Snapshotter, &Cx<'_>) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        if name.is_empty() {
            return Err(Error::invalid("snapshotter argument missing"));
        }
        on_disk(&self.0, ctx, move |engine, cx| {
            let driver: Arc<dyn Snapshotter> = engine.store.snapshotter(&name)?;
            work(driver.as_ref(), cx)
        })
        .await
    }
}

#[tonic::async_trait]
impl snapshots_server::Snapshots for Snapshots {
    async fn prepare(
        &self,
        request: Request<wire::PrepareSnapshotRequest>,
    ) -> Result<Response<wire::PrepareSnapshotResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let wire::PrepareSnapshotRequest { snapshotter, key, parent, labels } = message;
                let mounts = self
                    .with(&ctx, snapshotter, move |driver, cx| driver.prepare(cx, &key, &parent, &labels))
                    .await?;
                Ok(wire::PrepareSnapshotResponse { mounts: list(mounts) })
            }
            .await,
        )
    }

    async fn view(
        &self,
        request: Request<wire::ViewSnapshotRequest>,
    ) -> Result<Response<wire::ViewSnapshotResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let wire::ViewSnapshotRequest { snapshotter, key, parent, labels } = message;
                let mounts = self
                    .with(&ctx, snapshotter, move |driver, cx| driver.view(cx, &key, &parent, &labels))
                    .await?;
                Ok(wire::ViewSnapshotResponse { mounts: list(mounts) })
            }
            .await,
        )
    }

    async fn mounts(
        &self,
        request: Request<wire::MountsRequest>,
    ) -> Result<Response<wire::MountsResponse>, Status> {
        answer(
            async {
                let (ctx, wire::MountsRequest { snapshotter, key }) = open(request)?;
                let mounts = self.with(&ctx, snapshotter, move |driver, cx| driver.mounts(cx, &key)).await?;
                Ok(wire::MountsResponse { mounts: list(mounts) })
            }
            .await,
        )
    }

    async fn commit(&self, request: Request<wire::CommitSnapshotRequest>) -> Result<Response<()>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let wire::CommitSnapshotRequest { snapshotter, name, key, labels, parent } = message;
                let commit = Commit { labels, parent: (!parent.is_empty()).then_some(parent) };
                self.with(&ctx, snapshotter, move |driver, cx| driver.commit(cx, &name, &key, &commit)).await
            }
            .await,
        )
    }

    async fn remove(&self, request: Request<wire::RemoveSnapshotRequest>) -> Result<Response<()>, Status> {
        answer(
            async {
                let (ctx, wire::RemoveSnapshotRequest { snapshotter, key }) = open(request)?;
                self.with(&ctx, snapshotter, move |driver, cx| driver.remove(cx, &key)).await
            }
            .await,
        )
    }

    async fn stat(
        &self,
        request: Request<wire::StatSnapshotRequest>,
    ) -> Result<Response<wire::StatSnapshotResponse>, Status> {
        answer(
            async {
                let (ctx, wire::StatSnapshotRequest { snapshotter, key }) = open(request)?;
                let info = self.with(&ctx, snapshotter, move |driver, cx| driver.stat(cx, &key)).await?;
                Ok(wire::StatSnapshotResponse { info: Some(info.to_wire()) })
            }
            .await,
        )
    }

    async fn update(
        &self,
        request: Request<wire::UpdateSnapshotRequest>,
    ) -> Result<Response<wire::UpdateSnapshotResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let mask = mask(message.update_mask);
                let wire::Info { name, labels, .. } = required(message.info, "snapshot info")?;
                let info = self
                    .with(&ctx, message.snapshotter, move |driver, cx| {
                        driver.update(cx, &name, &labels, &mask)
                    })
                    .await?;
                Ok(wire::UpdateSnapshotResponse { info: Some(info.to_wire()) })
            }
            .await,
        )
    }

    type ListStream = Answers<wire::ListSnapshotsResponse>;

    async fn list(
        &self,
        request: Request<wire::ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        answer(
            async {
                let (ctx, wire::ListSnapshotsRequest { snapshotter, filters }) = open(request)?;
                let filters = Filters::parse(&filters)?;
                let all = self.with(&ctx, snapshotter, move |driver, cx| driver.list(cx, &filters)).await?;
                Ok(batches(all, BATCH, |some| wire::ListSnapshotsResponse { info: list(some) }))
            }
            .await,
        )
    }

    async fn usage(
        &self,
        request: Request<wire::UsageRequest>,
    ) -> Result<Response<wire::UsageResponse>, Status> {
        answer(
            async {
                let (ctx, wire::UsageRequest { snapshotter, key }) = open(request)?;
                let usage = self.with(&ctx, snapshotter, move |driver, cx| driver.usage(cx, &key)).await?;
                Ok(wire::UsageResponse { size: signed(usage.size), inodes: signed(usage.inodes) })
            }
            .await,
        )
    }

    async fn cleanup(&self, request: Request<wire::CleanupRequest>) -> Result<Response<()>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                self.with(&ctx, message.snapshotter, |driver, cx| driver.cleanup(cx)).await
            }
            .await,
        )
    }
}
