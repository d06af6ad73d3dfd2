//! Ends every process of a pod and gives its network back. May be repeated; an unknown pod is no error.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Ends every process of a pod and gives its network back. May be repeated; an unknown pod is no error.
    pub(crate) async fn stop_pod_sandbox(
        self: &Arc<Self>,
        request: v1::StopPodSandboxRequest,
    ) -> Result<v1::StopPodSandboxResponse> {
        let _request = request;
        Err(Error::unimplemented("StopPodSandbox"))
    }
}
