//! What happens to containers, told to whoever listens.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;
use crate::service::Answers;

impl Cri {
    /// Tells what happens to containers, from now on.
    pub(crate) async fn get_container_events(
        self: &Arc<Self>,
        request: v1::GetEventsRequest,
    ) -> Result<Answers<v1::ContainerEventResponse>> {
        let _request = request;
        Err(Error::unimplemented("GetContainerEvents"))
    }
}
