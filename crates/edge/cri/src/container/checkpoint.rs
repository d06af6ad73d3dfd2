//! Saves a running container.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Saves a running container.
    pub(crate) async fn checkpoint_container(
        self: &Arc<Self>,
        request: v1::CheckpointContainerRequest,
    ) -> Result<v1::CheckpointContainerResponse> {
        let _request = request;
        Err(Error::unimplemented("CheckpointContainer"))
    }
}
