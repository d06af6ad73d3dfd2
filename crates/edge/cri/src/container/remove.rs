//! Removes a container, by force if it runs. May be repeated.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Removes a container, by force if it runs. May be repeated.
    pub(crate) async fn remove_container(
        self: &Arc<Self>,
        request: v1::RemoveContainerRequest,
    ) -> Result<v1::RemoveContainerResponse> {
        let _request = request;
        Err(Error::unimplemented("RemoveContainer"))
    }
}
