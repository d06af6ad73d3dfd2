//! Removes a pod with its containers, by force if they run.

use std::sync::Arc;

use ::spec::Kind;
use api::runtime::v1;
use model::{Lane, Result};

use super::run::gone;
use super::stop::not_missing;
use crate::Cri;
use crate::state::Pod;

impl Cri {
    /// Removes a pod with its containers, by force if they run. May be repeated.
    pub(crate) async fn remove_pod_sandbox(
        self: &Arc<Self>,
        request: v1::RemovePodSandboxRequest,
    ) -> Result<v1::RemovePodSandboxResponse> {
        if let Some(pod) = self.pods.find(&request.pod_sandbox_id)? {
            let cri = Arc::clone(self);
            Self::whole(async move {
                let _turn = pod.turn.lock().await;
                cri.remove_pod(&pod).await
            })
            .await?;
        }
        Ok(v1::RemovePodSandboxResponse {})
    }

    /// Removes `pod`, whose turn the caller holds. Each step begins when those before it have succeeded, and its record
    /// goes last, so that a removal that failed half-way is found and repeated.
    pub(crate) async fn remove_pod(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let id = &pod.record.id;
        pod.state.send_modify(|state| state.removing = true);
        self.stop_pod(pod)
            .await
            .map_err(|error| error.context(format_args!("failed to stop sandbox {id:?}")))?;
        self.end_silent_shim(pod).await?;
        let failed = |what: &'static str| move |error| not_missing(error).context(what);
        self.remove_pod_containers(pod).await.map_err(failed("failed to remove containers"))?;
        self.remove_pod_snapshot(pod).await.map_err(failed("failed to remove the snapshot"))?;
        if let Err(error) = self.nri.remove_pod(pod).await {
            tracing::warn!(%id, %error, "NRI failed to remove sandbox");
        }
        self.drop_pod_records(id).await.map_err(failed("failed to delete the sandbox's records"))?;
        let files = self.pod_files(id);
        let removed = self.ctx().blocking(Lane::Disk, move |_| files.remove()).await;
        removed.map_err(failed("failed to remove sandbox files"))?;
        // Before it is forgotten: the kubelet passes over an event without the pod's status.
        self.tell(v1::ContainerEventType::ContainerDeletedEvent, id, id);
        self.pods.remove(id);
        self.pod_names.release(id);
        Ok(())
    }

    /// Removes the snapshot of the sandbox; a pod that was not made whole may have one without a record that says so.
    async fn remove_pod_snapshot(&self, pod: &Pod) -> Result<()> {
        let id = pod.record.id.clone();
        let kept = self.on_disk(&self.ctx(), move |engine, cx| engine.containers.get(cx, &id)).await;
        let (key, snapshotter) = match kept {
            Ok(kept) => (kept.snapshot_key, kept.snapshotter),
            Err(error) if error.kind() == Kind::NotFound => {
                (pod.record.id.clone(), self.snapshotter_of(&pod.record.handler))
            }
            Err(error) => return Err(error),
        };
        if key.is_empty() {
            return Ok(());
        }
        let driver = self.engine.snapshotter(&snapshotter)?;
        gone(self.on_disk(&self.ctx(), move |_, cx| driver.remove(cx, &key)).await)
    }
}
