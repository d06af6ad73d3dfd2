//! `runtime.v1.ImageService`: each call goes to the verb of its name.

use std::sync::Arc;

use api::runtime::v1;
use grpc::runtime::v1::image_service_server::ImageService;
use tonic::{Request, Response, Status};

use super::{Answers, answer, stream};
use crate::Cri;

/// `runtime.v1.ImageService`
#[derive(Clone)]
pub struct ImageStore(pub Arc<Cri>);

#[tonic::async_trait]
impl ImageService for ImageStore {
    type StreamImagesStream = Answers<v1::StreamImagesResponse>;

    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        answer(self.0.list_images(request.into_inner()).await)
    }

    async fn stream_images(
        &self,
        request: Request<v1::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let list = self.0.list_images(v1::ListImagesRequest { filter: request.into_inner().filter }).await;
        stream(list.map(|list| list.images), |items| v1::StreamImagesResponse { images: items })
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Result<Response<v1::ImageStatusResponse>, Status> {
        answer(self.0.image_status(request.into_inner()).await)
    }

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<v1::PullImageResponse>, Status> {
        answer(self.0.pull_image(request.into_inner()).await)
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        answer(self.0.remove_image(request.into_inner()).await)
    }

    async fn image_fs_info(
        &self,
        request: Request<v1::ImageFsInfoRequest>,
    ) -> Result<Response<v1::ImageFsInfoResponse>, Status> {
        answer(self.0.image_fs_info(request.into_inner()).await)
    }
}
