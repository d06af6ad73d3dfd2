//! What one container uses.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// What one container uses.
    pub(crate) async fn container_stats(
        self: &Arc<Self>,
        request: v1::ContainerStatsRequest,
    ) -> Result<v1::ContainerStatsResponse> {
        let _request = request;
        Err(Error::unimplemented("ContainerStats"))
    }

    /// What the containers that pass the filter use.
    pub(crate) async fn list_container_stats(
        self: &Arc<Self>,
        request: v1::ListContainerStatsRequest,
    ) -> Result<v1::ListContainerStatsResponse> {
        let _request = request;
        Err(Error::unimplemented("ListContainerStats"))
    }
}
