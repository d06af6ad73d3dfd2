//! Who serves, and which version of this interface.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Who serves, and which version of this interface.
    pub(crate) async fn version(
        self: &Arc<Self>,
        request: v1::VersionRequest,
    ) -> Result<v1::VersionResponse> {
        let _request = request;
        Err(Error::unimplemented("Version"))
    }

    /// Tells the node's range of pod addresses.
    pub(crate) async fn update_runtime_config(
        self: &Arc<Self>,
        request: v1::UpdateRuntimeConfigRequest,
    ) -> Result<v1::UpdateRuntimeConfigResponse> {
        let _request = request;
        Err(Error::unimplemented("UpdateRuntimeConfig"))
    }

    /// Whether runtime and network are ready, and what the runtime can do.
    pub(crate) async fn status(self: &Arc<Self>, request: v1::StatusRequest) -> Result<v1::StatusResponse> {
        let _request = request;
        Err(Error::unimplemented("Status"))
    }

    /// What the kubelet must do alike, such as the cgroup driver.
    pub(crate) async fn runtime_config(
        self: &Arc<Self>,
        request: v1::RuntimeConfigRequest,
    ) -> Result<v1::RuntimeConfigResponse> {
        let _request = request;
        Err(Error::unimplemented("RuntimeConfig"))
    }
}
