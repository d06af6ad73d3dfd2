//! Namespaces; the requests name them in their messages, not in a header.

use api::containerd::services::namespaces::v1 as wire;
use grpc::containerd::services::namespaces::v1::namespaces_server;
use grpc::convert::{mask, required};
use tonic::{Request, Response, Status};

use super::{Namespaces, on_disk};
use crate::request::{answer, open_anywhere};

#[tonic::async_trait]
impl namespaces_server::Namespaces for Namespaces {
    async fn get(
        &self,
        request: Request<wire::GetNamespaceRequest>,
    ) -> Result<Response<wire::GetNamespaceResponse>, Status> {
        answer(
            async {
                let (ctx, wire::GetNamespaceRequest { name }) = open_anywhere(request)?;
                let namespace = on_disk(&self.0, &ctx, move |engine, cx| {
                    let labels = engine.store.namespaces().labels(cx, &name)?;
                    Ok(wire::Namespace { name, labels })
                })
                .await?;
                Ok(wire::GetNamespaceResponse { namespace: Some(namespace) })
            }
            .await,
        )
    }

    async fn list(
        &self,
        request: Request<wire::ListNamespacesRequest>,
    ) -> Result<Response<wire::ListNamespacesResponse>, Status> {
        answer(
            async {
                let (ctx, _) = open_anywhere(request)?;
                let all = on_disk(&self.0, &ctx, |engine, cx| engine.store.namespaces().list(cx)).await?;
                let namespaces =
                    all.into_iter().map(|(name, labels)| wire::Namespace { name, labels }).collect();
                Ok(wire::ListNamespacesResponse { namespaces })
            }
            .await,
        )
    }

    async fn create(
        &self,
        request: Request<wire::CreateNamespaceRequest>,
    ) -> Result<Response<wire::CreateNamespaceResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open_anywhere(request)?;
                let namespace = required(message.namespace, "namespace")?;
                let created = on_disk(&self.0, &ctx, move |engine, cx| {
                    engine.store.namespaces().create(cx, &namespace.name, &namespace.labels)?;
                    Ok(namespace)
                })
                .await?;
                Ok(wire::CreateNamespaceResponse { namespace: Some(created) })
            }
            .await,
        )
    }

    async fn update(
        &self,
        request: Request<wire::UpdateNamespaceRequest>,
    ) -> Result<Response<wire::UpdateNamespaceResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open_anywhere(request)?;
                let mask = mask(message.update_mask);
                let wire::Namespace { name, labels } = required(message.namespace, "namespace")?;
                let updated = on_disk(&self.0, &ctx, move |engine, cx| {
                    let labels = engine.store.namespaces().update(cx, &name, &labels, &mask)?;
                    Ok(wire::Namespace { name, labels })
                })
                .await?;
                Ok(wire::UpdateNamespaceResponse { namespace: Some(updated) })
            }
            .await,
        )
    }

    async fn delete(&self, request: Request<wire::DeleteNamespaceRequest>) -> Result<Response<()>, Status> {
        answer(
            async {
                let (ctx, message) = open_anywhere(request)?;
                on_disk(&self.0, &ctx, move |engine, cx| engine.store.namespaces().delete(cx, &message.name))
                    .await
            }
            .await,
        )
    }
}
