//! Tells that a pod's resources have changed.
//!
//! Invariant: what was acknowledged is known again after a restart.

use std::sync::Arc;

use api::runtime::v1;
use model::Result;
use model::mask::Mask;

use super::record::{self, Told};
use crate::Cri;
use crate::state::Pod;

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
            cri.update_pod(&pod, Told { overhead: request.overhead, resources: request.resources }).await
        })
        .await?;
        Ok(v1::UpdatePodSandboxResourcesResponse {})
    }

    async fn update_pod(&self, pod: &Arc<Pod>, new: Told) -> Result<()> {
        let refused = self.nri.update_pod(pod, new.overhead.as_ref(), new.resources.as_ref()).await;
        refused.map_err(|error| error.context("NRI sandbox update failed"))?;
        let state = pod.now();
        // What a request does not speak of stays as it was.
        let told =
            Told { overhead: new.overhead.or(state.overhead), resources: new.resources.or(state.resources) };
        let (id, extension) = (pod.record.id.clone(), record::told(&told)?);
        self.on_disk(&self.ctx(), move |engine, cx| {
            let mut stored = engine.containers.get(cx, &id)?;
            let mask = Mask::new([format!("extensions.{}", extension.0)]);
            stored.extensions.extend([extension]);
            engine.containers.update(cx, &stored, &mask).map(drop)
        })
        .await
        .map_err(|error| error.context("failed to update sandbox store"))?;
        pod.state.send_modify(|state| {
            state.overhead = told.overhead;
            state.resources = told.resources;
        });
        if let Err(error) = self.nri.post_update_pod(pod).await {
            tracing::warn!(id = %pod.record.id, %error, "NRI post-update notification failed");
        }
        Ok(())
    }
}
