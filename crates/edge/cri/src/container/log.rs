//! Opens a container's log anew after the kubelet has moved it away.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Opens a container's log anew after the kubelet has moved it away.
    pub(crate) async fn reopen_container_log(
        self: &Arc<Self>,
        request: v1::ReopenContainerLogRequest,
    ) -> Result<v1::ReopenContainerLogResponse> {
        let _request = request;
        Err(Error::unimplemented("ReopenContainerLog"))
    }
}
