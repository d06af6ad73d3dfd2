//! Transfers between registries, archives and the image store.

use api::containerd::services::transfer::v1 as wire;
use grpc::containerd::services::transfer::v1::transfer_server;
use model::{Error, Result};
use tonic::{Request, Response, Status};

use super::Transfer;
use crate::request::{answer, open};

#[tonic::async_trait]
impl transfer_server::Transfer for Transfer {
    async fn transfer(&self, request: Request<wire::TransferRequest>) -> Result<Response<()>, Status> {
        answer(
            async {
                let (_ctx, message) = open(request)?;
                let kind =
                    |any: &Option<api::Any>| any.as_ref().map(|any| any.type_url.clone()).unwrap_or_default();
                let (from, to) = (kind(&message.source), kind(&message.destination));
                Err(Error::unimplemented(format_args!("transfer from {from} to {to}")))
            }
            .await,
        )
    }
}
