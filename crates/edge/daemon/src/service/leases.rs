//! Leases.

use api::containerd::services::leases::v1 as wire;
use grpc::containerd::services::leases::v1::leases_server;
use grpc::convert::{FromWire, ToWire, list, required};
use model::lease::Resource;
use model::{Error, Filters};
use spec::LeaseId;
use tonic::{Request, Response, Status};

use super::{Leases, collect, on_disk};
use crate::request::{answer, open};

#[tonic::async_trait]
impl leases_server::Leases for Leases {
    async fn create(
        &self,
        request: Request<wire::CreateRequest>,
    ) -> Result<Response<wire::CreateResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let id = (!message.id.is_empty()).then(|| message.id.parse::<LeaseId>()).transpose()?;
                let lease = on_disk(&self.0, &ctx, move |engine, cx| {
                    engine.store.leases().create(cx, id.as_ref(), &message.labels)
                })
                .await?;
                Ok(wire::CreateResponse { lease: Some(lease.to_wire()) })
            }
            .await,
        )
    }

    async fn delete(&self, request: Request<wire::DeleteRequest>) -> Result<Response<()>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                on_disk(&self.0, &ctx, move |engine, cx| engine.store.leases().delete(cx, &message.id))
                    .await?;
                if message.sync {
                    collect(&self.0, &ctx).await?;
                }
                Ok(())
            }
            .await,
        )
    }

    async fn list(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let filters = Filters::parse(&message.filters)?;
                let leases =
                    on_disk(&self.0, &ctx, move |engine, cx| engine.store.leases().list(cx, &filters))
                        .await?;
                Ok(wire::ListResponse { leases: list(leases) })
            }
            .await,
        )
    }

    async fn add_resource(&self, request: Request<wire::AddResourceRequest>) -> Result<Response<()>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let resource = resource(message.resource)?;
                on_disk(&self.0, &ctx, move |engine, cx| {
                    engine.store.leases().add(cx, &message.id, &resource)
                })
                .await
            }
            .await,
        )
    }

    async fn delete_resource(
        &self,
        request: Request<wire::DeleteResourceRequest>,
    ) -> Result<Response<()>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let resource = resource(message.resource)?;
                on_disk(&self.0, &ctx, move |engine, cx| {
                    engine.store.leases().remove(cx, &message.id, &resource)
                })
                .await
            }
            .await,
        )
    }

    async fn list_resources(
        &self,
        request: Request<wire::ListResourcesRequest>,
    ) -> Result<Response<wire::ListResourcesResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let resources = on_disk(&self.0, &ctx, move |engine, cx| {
                    engine.store.leases().resources(cx, &message.id)
                })
                .await?;
                Ok(wire::ListResourcesResponse { resources: list(resources) })
            }
            .await,
        )
    }
}

fn resource(message: Option<wire::Resource>) -> Result<Resource, Error> {
    Resource::from_wire(required(message, "resource")?)
}
