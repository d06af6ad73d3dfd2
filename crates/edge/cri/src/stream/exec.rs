//! Answers a URL at which a command can be run with its streams.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Answers a URL at which a command can be run with its streams.
    pub(crate) async fn exec(self: &Arc<Self>, request: v1::ExecRequest) -> Result<v1::ExecResponse> {
        let _request = request;
        Err(Error::unimplemented("Exec"))
    }
}
