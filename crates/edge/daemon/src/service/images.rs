//! Images.

use api::containerd::services::images::v1 as wire;
use api::time;
use grpc::containerd::services::images::v1::images_server;
use grpc::convert::{FromWire, ToWire, list, mask, required};
use model::Filters;
use model::image::{Delete, Image};
use spec::Descriptor;
use tonic::{Request, Response, Status};

use super::{Images, collect, on_disk};
use crate::request::{answer, open};

#[tonic::async_trait]
impl images_server::Images for Images {
    async fn get(
        &self,
        request: Request<wire::GetImageRequest>,
    ) -> Result<Response<wire::GetImageResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let image =
                    on_disk(&self.0, &ctx, move |engine, cx| engine.store.images().get(cx, &message.name))
                        .await?;
                Ok(wire::GetImageResponse { image: Some(image.to_wire()) })
            }
            .await,
        )
    }

    async fn list(
        &self,
        request: Request<wire::ListImagesRequest>,
    ) -> Result<Response<wire::ListImagesResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let filters = Filters::parse(&message.filters)?;
                let images =
                    on_disk(&self.0, &ctx, move |engine, cx| engine.store.images().list(cx, &filters))
                        .await?;
                Ok(wire::ListImagesResponse { images: list(images) })
            }
            .await,
        )
    }

    async fn create(
        &self,
        request: Request<wire::CreateImageRequest>,
    ) -> Result<Response<wire::CreateImageResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let epoch = time(message.source_date_epoch.as_ref());
                let image = Image::from_wire(required(message.image, "image")?)?;
                let image =
                    on_disk(&self.0, &ctx, move |engine, cx| engine.store.images().create(cx, &image, epoch))
                        .await?;
                Ok(wire::CreateImageResponse { image: Some(image.to_wire()) })
            }
            .await,
        )
    }

    async fn update(
        &self,
        request: Request<wire::UpdateImageRequest>,
    ) -> Result<Response<wire::UpdateImageResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let epoch = time(message.source_date_epoch.as_ref());
                let mask = mask(message.update_mask);
                let wanted = required(message.image, "image")?;
                let image = on_disk(&self.0, &ctx, move |engine, cx| {
                    let images = engine.store.images();
                    let image = if mask.is_all() || mask.paths().any(|path| path == "target") {
                        Image::from_wire(wanted)?
                    } else {
                        // Clients leave the target empty when the mask does not name it.
                        masked(images.get(cx, &wanted.name)?, wanted)
                    };
                    images.update(cx, &image, &mask, epoch)
                })
                .await?;
                Ok(wire::UpdateImageResponse { image: Some(image.to_wire()) })
            }
            .await,
        )
    }

    async fn delete(&self, request: Request<wire::DeleteImageRequest>) -> Result<Response<()>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let target = message.target.map(Descriptor::from_wire).transpose()?;
                on_disk(&self.0, &ctx, move |engine, cx| {
                    engine.store.images().delete(cx, &message.name, &Delete { target })
                })
                .await?;
                if message.sync {
                    collect(&self.0, &ctx).await?;
                }
                Ok(())
            }
            .await,
        )
    }
}

/// `stored` with the labels and annotations of `wanted`, whose target need not be one.
fn masked(mut stored: Image, wanted: wire::Image) -> Image {
    stored.labels = wanted.labels;
    stored.target.annotations = wanted.target.unwrap_or_default().annotations;
    stored
}
