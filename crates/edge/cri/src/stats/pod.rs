//! What one pod uses.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// What one pod uses.
    pub(crate) async fn pod_sandbox_stats(
        self: &Arc<Self>,
        request: v1::PodSandboxStatsRequest,
    ) -> Result<v1::PodSandboxStatsResponse> {
        let _request = request;
        Err(Error::unimplemented("PodSandboxStats"))
    }

    /// What the pods that pass the filter use.
    pub(crate) async fn list_pod_sandbox_stats(
        self: &Arc<Self>,
        request: v1::ListPodSandboxStatsRequest,
    ) -> Result<v1::ListPodSandboxStatsResponse> {
        let _request = request;
        Err(Error::unimplemented("ListPodSandboxStats"))
    }
}
