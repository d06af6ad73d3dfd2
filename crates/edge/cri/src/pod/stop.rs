//! Ends every process of a pod and gives its network back.
//!
//! Invariant: one step that fails keeps no other from being tried, and every step can be repeated.

use std::sync::Arc;
use std::time::SystemTime;

use ::spec::{Error, Kind};
use api::runtime::v1;
use futures_util::future::join;
use model::task::{Exit, Task};
use model::{Lane, Result};

use super::run::{end_task, gone};
use crate::Cri;
use crate::container::kill;
use crate::state::Pod;

/// The exit status of what SIGKILL ended.
const KILLED: u32 = 128 + 9;

impl Cri {
    /// Ends every process of a pod and gives its network back. May be repeated; an unknown pod is no error.
    pub(crate) async fn stop_pod_sandbox(
        self: &Arc<Self>,
        request: v1::StopPodSandboxRequest,
    ) -> Result<v1::StopPodSandboxResponse> {
        if let Some(pod) = self.pods.find(&request.pod_sandbox_id)? {
            let cri = Arc::clone(self);
            Self::whole(async move {
                let _turn = pod.turn.lock().await;
                cri.stop_pod(&pod).await
            })
            .await?;
        }
        Ok(v1::StopPodSandboxResponse {})
    }

    /// Stops `pod`, whose turn the caller holds.
    pub(super) async fn stop_pod(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let mut failures = Vec::new();
        let mut note = |what: &str, outcome: Result<()>| {
            if let Err(error) = outcome {
                failures.push(error.context(what));
            }
        };
        note("failed to stop containers", self.stop_pod_containers(pod).await);
        // Nothing of the pod's is left that would use its network, so neither waits for the other.
        let (ended, left) = join(self.end_sandbox(pod), self.leave_network(pod)).await;
        note("failed to stop sandbox container", ended);
        note("failed to destroy network for sandbox", left);
        let files = self.pod_files(&pod.record.id);
        note(
            "failed to unmount sandbox files",
            self.ctx().blocking(Lane::Disk, move |_| files.unmount()).await,
        );
        // No plugin keeps a pod from being stopped.
        if let Err(error) = self.nri.stop_pod(pod).await {
            tracing::error!(id = %pod.record.id, %error, "NRI failed to stop sandbox");
        }
        all_of(failures)
    }

    async fn end_sandbox(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        match self.engine.tasks.get(&self.namespace, &pod.record.id) {
            Ok(task) if pod.state.borrow().exit.is_some() => {
                // It was seen gone; what is left of it is its shim's, which may take its time.
                self.in_background(async move {
                    if let Err(error) = end_task(&*task).await {
                        tracing::warn!(id = task.id(), %error, "the sandbox's task stays behind");
                    }
                });
            }
            Ok(task) => {
                let exit = match end_task(&*task).await {
                    Ok(exit) => exit,
                    Err(error) => self.end_sandbox_by_hand(pod, &*task, error).await?,
                };
                self.pod_ended(pod, exit);
            }
            Err(error) => {
                gone(Err(error))?;
                self.pod_ended(pod, None);
            }
        }
        Ok(())
    }

    /// Kills a sandbox whose shim does not do it for `error`. The task goes when its shim answers again, or is killed.
    async fn end_sandbox_by_hand(&self, pod: &Pod, task: &dyn Task, error: Error) -> Result<Option<Exit>> {
        let (id, pid) = (pod.record.id.clone(), self.sandbox_pid(pod, task).await?);
        tracing::warn!(%id, pid, %error, "the shim does not end the sandbox; killing it by hand");
        match self.ctx().blocking(Lane::Wait, move |_| kill::all(pid, &id)).await {
            Ok(true) => Ok(Some(Exit { pid, status: KILLED, at: SystemTime::now() })),
            _ => Err(error),
        }
    }
}

/// Success when nothing failed; else the first kind with every text.
pub(super) fn all_of(failures: Vec<Error>) -> Result<()> {
    let Some(first) = failures.first() else { return Ok(()) };
    let kind = match first.kind() {
        // The kubelet takes this for success.
        Kind::NotFound => Kind::Internal,
        kind => kind,
    };
    let texts: Vec<&str> = failures.iter().map(Error::text).collect();
    Err(Error::new(kind, texts.join("; ")))
}
