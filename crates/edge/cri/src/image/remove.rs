//! Removes an image with all its names. May be repeated.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Removes an image with all its names. May be repeated.
    pub(crate) async fn remove_image(
        self: &Arc<Self>,
        request: v1::RemoveImageRequest,
    ) -> Result<v1::RemoveImageResponse> {
        let _request = request;
        Err(Error::unimplemented("RemoveImage"))
    }
}
