//! Makes a container in a ready pod; it does not run yet.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Makes a container in a ready pod; it does not run yet.
    pub(crate) async fn create_container(
        self: &Arc<Self>,
        request: v1::CreateContainerRequest,
    ) -> Result<v1::CreateContainerResponse> {
        let _request = request;
        Err(Error::unimplemented("CreateContainer"))
    }
}
