//! What images and containers take on disk.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// What images and containers take on disk.
    pub(crate) async fn image_fs_info(
        self: &Arc<Self>,
        request: v1::ImageFsInfoRequest,
    ) -> Result<v1::ImageFsInfoResponse> {
        let _request = request;
        Err(Error::unimplemented("ImageFsInfo"))
    }
}
