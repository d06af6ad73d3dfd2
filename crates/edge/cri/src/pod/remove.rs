//! Removes a pod with its containers, by force if they run.

use std::sync::Arc;

use api::runtime::v1;
use model::{Lane, Result};

use super::run::gone;
use super::stop::all_of;
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

    /// Removes `pod`, whose turn the caller holds. Its record goes last, so that a removal that failed half-way is
    /// found and repeated.
    pub(crate) async fn remove_pod(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let id = &pod.record.id;
        pod.state.send_modify(|state| state.removing = true);
        self.stop_pod(pod)
            .await
            .map_err(|error| error.context(format_args!("failed to stop sandbox {id:?}")))?;
        self.end_silent_shim(pod).await?;
        let mut failures = Vec::new();
        let mut note = |what: &str, outcome: Result<()>| {
            if let Err(error) = outcome {
                failures.push(error.context(what));
            }
        };
        note("failed to remove containers", self.remove_pod_containers(pod).await);
        note("failed to remove the snapshot", self.remove_pod_snapshot(id).await);
        let files = self.pod_files(id);
        note(
            "failed to remove sandbox files",
            self.ctx().blocking(Lane::Disk, move |_| files.remove()).await,
        );
        all_of(failures)?;
        if let Err(error) = self.nri.remove_pod(pod).await {
            tracing::warn!(%id, %error, "NRI failed to remove sandbox");
        }
        self.drop_pod_records(id).await?;
        // Before it is forgotten: the kubelet passes over an event without the pod's status.
        self.tell(v1::ContainerEventType::ContainerDeletedEvent, id, id);
        self.pods.remove(id);
        self.pod_names.release(id);
        Ok(())
    }

    async fn remove_pod_snapshot(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        let kept = self.on_disk(&self.ctx(), move |engine, cx| engine.containers.get(cx, &id)).await;
        let kept = match kept {
            Ok(kept) => kept,
            Err(error) => return gone(Err(error)),
        };
        if kept.snapshot_key.is_empty() {
            return Ok(());
        }
        let driver = self.engine.snapshotter(&kept.snapshotter)?;
        gone(self.on_disk(&self.ctx(), move |_, cx| driver.remove(cx, &kept.snapshot_key)).await)
    }
}
