//! Sandboxes: records only.

use api::containerd::services::sandbox::v1 as wire;
use grpc::containerd::services::sandbox::v1::store_server;
use grpc::convert::{FromWire, ToWire, list, required};
use model::Filters;
use model::mask::Mask;
use model::sandbox::Sandbox;
use tonic::{Request, Response, Status};

use super::{Sandboxes, on_disk};
use crate::request::{answer, open};

#[tonic::async_trait]
impl store_server::Store for Sandboxes {
    async fn create(
        &self,
        request: Request<wire::StoreCreateRequest>,
    ) -> Result<Response<wire::StoreCreateResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let sandbox = Sandbox::from_wire(required(message.sandbox, "sandbox")?)?;
                let sandbox =
                    on_disk(&self.0, &ctx, move |engine, cx| engine.store.sandboxes().create(cx, &sandbox))
                        .await?;
                Ok(wire::StoreCreateResponse { sandbox: Some(sandbox.to_wire()) })
            }
            .await,
        )
    }

    async fn update(
        &self,
        request: Request<wire::StoreUpdateRequest>,
    ) -> Result<Response<wire::StoreUpdateResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let mask = Mask::new(message.fields);
                let sandbox = Sandbox::from_wire(required(message.sandbox, "sandbox")?)?;
                let sandbox = on_disk(&self.0, &ctx, move |engine, cx| {
                    engine.store.sandboxes().update(cx, &sandbox, &mask)
                })
                .await?;
                Ok(wire::StoreUpdateResponse { sandbox: Some(sandbox.to_wire()) })
            }
            .await,
        )
    }

    async fn delete(
        &self,
        request: Request<wire::StoreDeleteRequest>,
    ) -> Result<Response<wire::StoreDeleteResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                on_disk(&self.0, &ctx, move |engine, cx| {
                    engine.store.sandboxes().delete(cx, &message.sandbox_id)
                })
                .await?;
                Ok(wire::StoreDeleteResponse {})
            }
            .await,
        )
    }

    async fn list(
        &self,
        request: Request<wire::StoreListRequest>,
    ) -> Result<Response<wire::StoreListResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let filters = Filters::parse(&message.filters)?;
                let all =
                    on_disk(&self.0, &ctx, move |engine, cx| engine.store.sandboxes().list(cx, &filters))
                        .await?;
                Ok(wire::StoreListResponse { list: list(all) })
            }
            .await,
        )
    }

    async fn get(
        &self,
        request: Request<wire::StoreGetRequest>,
    ) -> Result<Response<wire::StoreGetResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let sandbox = on_disk(&self.0, &ctx, move |engine, cx| {
                    engine.store.sandboxes().get(cx, &message.sandbox_id)
                })
                .await?;
                Ok(wire::StoreGetResponse { sandbox: Some(sandbox.to_wire()) })
            }
            .await,
        )
    }
}
