//! Ends a container: its stop signal, and SIGKILL once the grace period is over. May be repeated.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Ends a container: its stop signal, and SIGKILL once the grace period is over. May be repeated.
    pub(crate) async fn stop_container(
        self: &Arc<Self>,
        request: v1::StopContainerRequest,
    ) -> Result<v1::StopContainerResponse> {
        let _request = request;
        Err(Error::unimplemented("StopContainer"))
    }
}
