//! One container; NotFound when there is none.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// One container; NotFound when there is none.
    pub(crate) async fn container_status(
        self: &Arc<Self>,
        request: v1::ContainerStatusRequest,
    ) -> Result<v1::ContainerStatusResponse> {
        let _request = request;
        Err(Error::unimplemented("ContainerStatus"))
    }
}
