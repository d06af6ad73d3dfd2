//! Changes a container's limits while it lives.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Changes a container's limits while it lives.
    pub(crate) async fn update_container_resources(
        self: &Arc<Self>,
        request: v1::UpdateContainerResourcesRequest,
    ) -> Result<v1::UpdateContainerResourcesResponse> {
        let _request = request;
        Err(Error::unimplemented("UpdateContainerResources"))
    }
}
