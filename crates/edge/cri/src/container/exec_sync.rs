//! Runs a command in a container and answers its output and exit code.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Runs a command in a container and answers its output and exit code.
    pub(crate) async fn exec_sync(
        self: &Arc<Self>,
        request: v1::ExecSyncRequest,
    ) -> Result<v1::ExecSyncResponse> {
        let _request = request;
        Err(Error::unimplemented("ExecSync"))
    }
}
