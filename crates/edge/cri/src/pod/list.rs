//! Every pod that passes the filter.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Every pod that passes the filter.
    pub(crate) async fn list_pod_sandbox(
        self: &Arc<Self>,
        request: v1::ListPodSandboxRequest,
    ) -> Result<v1::ListPodSandboxResponse> {
        let _request = request;
        Err(Error::unimplemented("ListPodSandbox"))
    }
}
