//! Brings an image from its registry.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Brings an image from its registry.
    pub(crate) async fn pull_image(
        self: &Arc<Self>,
        request: v1::PullImageRequest,
    ) -> Result<v1::PullImageResponse> {
        let _request = request;
        Err(Error::unimplemented("PullImage"))
    }
}
