//! Removes a pod with its containers, by force if they run. May be repeated.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Removes a pod with its containers, by force if they run. May be repeated.
    pub(crate) async fn remove_pod_sandbox(
        self: &Arc<Self>,
        request: v1::RemovePodSandboxRequest,
    ) -> Result<v1::RemovePodSandboxResponse> {
        let _request = request;
        Err(Error::unimplemented("RemovePodSandbox"))
    }
}
