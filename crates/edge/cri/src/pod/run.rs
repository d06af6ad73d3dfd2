//! Makes a pod and starts it: its network, its namespaces, its cgroup.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Makes a pod and starts it: its network, its namespaces, its cgroup.
    pub(crate) async fn run_pod_sandbox(
        self: &Arc<Self>,
        request: v1::RunPodSandboxRequest,
    ) -> Result<v1::RunPodSandboxResponse> {
        let _request = request;
        Err(Error::unimplemented("RunPodSandbox"))
    }
}
