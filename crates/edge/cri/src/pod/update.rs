//! Tells that a pod's resources have changed.

use std::sync::Arc;

use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Tells that a pod's resources have changed: they are kept and told to plugins; its cgroup is the kubelet's.
    pub(crate) async fn update_pod_sandbox_resources(
        self: &Arc<Self>,
        request: v1::UpdatePodSandboxResourcesRequest,
    ) -> Result<v1::UpdatePodSandboxResourcesResponse> {
        let pod = self.pods.get(&request.pod_sandbox_id)?;
        let cri = Arc::clone(self);
        Self::whole(async move {
            let _turn = pod.turn.lock().await;
            cri.nri.update_pod(&pod, request.overhead.as_ref(), request.resources.as_ref()).await?;
            pod.state.send_modify(|state| {
                state.overhead = request.overhead;
                state.resources = request.resources;
            });
            cri.nri.post_update_pod(&pod).await
        })
        .await?;
        Ok(v1::UpdatePodSandboxResourcesResponse {})
    }
}
