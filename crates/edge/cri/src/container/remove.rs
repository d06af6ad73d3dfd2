//! Removes a container.

use std::sync::Arc;

use api::runtime::v1;
use model::Result;

use crate::Cri;
use crate::state::Container;

impl Cri {
    /// Removes a container; one that runs is stopped.
    pub(crate) async fn remove_container(
        self: &Arc<Self>,
        request: v1::RemoveContainerRequest,
    ) -> Result<v1::RemoveContainerResponse> {
        let _request = request;
        Ok(v1::RemoveContainerResponse {})
    }

    /// Removes `container`.
    pub(super) async fn remove(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let _container = container;
        Ok(())
    }
}
