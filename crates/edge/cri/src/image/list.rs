//! Every image.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Every image.
    pub(crate) async fn list_images(
        self: &Arc<Self>,
        request: v1::ListImagesRequest,
    ) -> Result<v1::ListImagesResponse> {
        let _request = request;
        Err(Error::unimplemented("ListImages"))
    }
}
