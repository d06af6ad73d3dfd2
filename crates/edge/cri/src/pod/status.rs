//! One pod; NotFound when there is none.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// One pod; NotFound when there is none.
    pub(crate) async fn pod_sandbox_status(
        self: &Arc<Self>,
        request: v1::PodSandboxStatusRequest,
    ) -> Result<v1::PodSandboxStatusResponse> {
        let _request = request;
        Err(Error::unimplemented("PodSandboxStatus"))
    }
}
