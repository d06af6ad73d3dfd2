//! Tells that a pod's resources have changed.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Tells that a pod's resources have changed.
    pub(crate) async fn update_pod_sandbox_resources(
        self: &Arc<Self>,
        request: v1::UpdatePodSandboxResourcesRequest,
    ) -> Result<v1::UpdatePodSandboxResourcesResponse> {
        let _request = request;
        Err(Error::unimplemented("UpdatePodSandboxResources"))
    }
}
