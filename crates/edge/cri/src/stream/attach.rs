//! Answers a URL at which a running container's streams are joined.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Answers a URL at which a running container's streams are joined.
    pub(crate) async fn attach(self: &Arc<Self>, request: v1::AttachRequest) -> Result<v1::AttachResponse> {
        let _request = request;
        Err(Error::unimplemented("Attach"))
    }
}
