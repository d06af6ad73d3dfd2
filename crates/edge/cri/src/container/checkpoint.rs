//! Saves a running container.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Saves a running container: refused, since nothing here can bring one back.
    pub(crate) async fn checkpoint_container(
        self: &Arc<Self>,
        request: v1::CheckpointContainerRequest,
    ) -> Result<v1::CheckpointContainerResponse> {
        // A container that is not there is told first, as of every verb.
        self.containers.get(&request.container_id)?;
        Err(Error::unimplemented("CheckpointContainer: containers cannot be checkpointed"))
    }
}
