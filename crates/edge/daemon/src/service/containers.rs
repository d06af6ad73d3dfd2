//! Containers: records only.

use api::containerd::services::containers::v1 as wire;
use grpc::containerd::services::containers::v1::containers_server;
use grpc::convert::{FromWire, ToWire, list, mask, required};
use model::Filters;
use model::container::Container;
use tonic::{Request, Response, Status};

use super::{Containers, on_disk};
use crate::request::{Answers, answer, batches, open};

#[tonic::async_trait]
impl containers_server::Containers for Containers {
    async fn get(
        &self,
        request: Request<wire::GetContainerRequest>,
    ) -> Result<Response<wire::GetContainerResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let container =
                    on_disk(&self.0, &ctx, move |engine, cx| engine.store.containers().get(cx, &message.id))
                        .await?;
                Ok(wire::GetContainerResponse { container: Some(container.to_wire()) })
            }
            .await,
        )
    }

    async fn list(
        &self,
        request: Request<wire::ListContainersRequest>,
    ) -> Result<Response<wire::ListContainersResponse>, Status> {
        answer(self.all(request).await.map(|all| wire::ListContainersResponse { containers: list(all) }))
    }

    type ListStreamStream = Answers<wire::ListContainerMessage>;

    async fn list_stream(
        &self,
        request: Request<wire::ListContainersRequest>,
    ) -> Result<Response<Self::ListStreamStream>, Status> {
        let all = self.all(request).await;
        answer(all.map(|all| {
            batches(all, 1, |mut one| wire::ListContainerMessage {
                container: one.pop().map(ToWire::to_wire),
            })
        }))
    }

    async fn create(
        &self,
        request: Request<wire::CreateContainerRequest>,
    ) -> Result<Response<wire::CreateContainerResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let container = Container::from_wire(required(message.container, "container")?)?;
                let container = on_disk(&self.0, &ctx, move |engine, cx| {
                    engine.store.containers().create(cx, &container)
                })
                .await?;
                Ok(wire::CreateContainerResponse { container: Some(container.to_wire()) })
            }
            .await,
        )
    }

    async fn update(
        &self,
        request: Request<wire::UpdateContainerRequest>,
    ) -> Result<Response<wire::UpdateContainerResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let mask = mask(message.update_mask);
                let container = Container::from_wire(required(message.container, "container")?)?;
                let container = on_disk(&self.0, &ctx, move |engine, cx| {
                    engine.store.containers().update(cx, &container, &mask)
                })
                .await?;
                Ok(wire::UpdateContainerResponse { container: Some(container.to_wire()) })
            }
            .await,
        )
    }

    async fn delete(&self, request: Request<wire::DeleteContainerRequest>) -> Result<Response<()>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                on_disk(&self.0, &ctx, move |engine, cx| engine.store.containers().delete(cx, &message.id))
                    .await
            }
            .await,
        )
    }
}

impl Containers {
    async fn all(&self, request: Request<wire::ListContainersRequest>) -> model::Result<Vec<Container>> {
        let (ctx, message) = open(request)?;
        let filters = Filters::parse(&message.filters)?;
        on_disk(&self.0, &ctx, move |engine, cx| engine.store.containers().list(cx, &filters)).await
    }
}
