//! Starts a container that was made and never started.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Starts a container that was made and never started.
    pub(crate) async fn start_container(
        self: &Arc<Self>,
        request: v1::StartContainerRequest,
    ) -> Result<v1::StartContainerResponse> {
        let _request = request;
        Err(Error::unimplemented("StartContainer"))
    }
}
