//! Ends every process of a pod and gives its network back.
//!
//! ```text
//! containers ─► sandbox ─► NRI ─► network ─► image volumes, mounted files
//! ```
//!
//! Invariant: a step begins when those before it have succeeded, and every step can be repeated: what is still used, or
//! needed by the next try, stays.

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
        let stopped = self.stop_pod_containers(pod).await;
        stopped.map_err(|error| not_missing(error).context("failed to stop containers"))?;
        if self.nri.is_idle() {
            // Nothing is left that would use the network, and no plugin is to see it after the sandbox's end.
            let (ended, left) = join(self.stop_sandbox(pod), self.destroy_network(pod)).await;
            all_of([ended, left].into_iter().filter_map(Result::err).collect())?;
            self.notify_stopped(pod).await;
        } else {
            self.stop_sandbox(pod).await?;
            self.notify_stopped(pod).await;
            self.destroy_network(pod).await?;
        }
        let released = self.release_image_volumes(pod).await;
        released.map_err(|error| not_missing(error).context("failed to cleanup image mounts"))?;
        let files = self.pod_files(&pod.record.id);
        let unmounted = self.ctx().blocking(Lane::Disk, move |_| files.unmount()).await;
        unmounted.map_err(|error| not_missing(error).context("failed to unmount sandbox files"))
    }

    async fn stop_sandbox(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let ended = self.end_sandbox(pod).await;
        ended.map_err(|error| not_missing(error).context("failed to stop sandbox container"))
    }

    /// Notifies plugins, once; none keeps a pod from being stopped.
    async fn notify_stopped(&self, pod: &Pod) {
        if let Err(error) = self.nri.stop_pod(pod).await {
            tracing::error!(id = %pod.record.id, %error, "NRI failed to stop sandbox");
        }
    }

    async fn destroy_network(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let left = self.leave_network(pod).await;
        left.map_err(|error| {
            not_missing(error)
                .context(format_args!("failed to destroy network for sandbox {:?}", pod.record.id))
        })
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
fn all_of(failures: Vec<Error>) -> Result<()> {
    let Some(first) = failures.first() else { return Ok(()) };
    let texts: Vec<&str> = failures.iter().map(Error::text).collect();
    Err(Error::new(first.kind(), texts.join("; ")))
}

/// An error of a stop or a removal: the kubelet takes NotFound for success.
pub(super) fn not_missing(error: Error) -> Error {
    match error.kind() {
        Kind::NotFound => Error::internal(error.text()),
        _ => error,
    }
}
