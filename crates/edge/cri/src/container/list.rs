//! Every container that passes the filter.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Every container that passes the filter.
    pub(crate) async fn list_containers(
        self: &Arc<Self>,
        request: v1::ListContainersRequest,
    ) -> Result<v1::ListContainersResponse> {
        let _request = request;
        Err(Error::unimplemented("ListContainers"))
    }
}
