//! One image; an empty answer when there is none.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// One image; an empty answer when there is none.
    pub(crate) async fn image_status(
        self: &Arc<Self>,
        request: v1::ImageStatusRequest,
    ) -> Result<v1::ImageStatusResponse> {
        let _request = request;
        Err(Error::unimplemented("ImageStatus"))
    }
}
