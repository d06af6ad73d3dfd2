//! Answers a URL at which a pod's ports can be reached.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Answers a URL at which a pod's ports can be reached.
    pub(crate) async fn port_forward(
        self: &Arc<Self>,
        request: v1::PortForwardRequest,
    ) -> Result<v1::PortForwardResponse> {
        let _request = request;
        Err(Error::unimplemented("PortForward"))
    }
}
