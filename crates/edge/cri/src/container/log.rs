//! A container's log: rotated by the kubelet, and joined by whoever attaches.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;
use model::task::Attach;

use super::process::state_name;
use crate::Cri;
use crate::state::{Container, Phase};

impl Cri {
    /// Has a running container's log go on in a new file: the kubelet has renamed the old one.
    pub(crate) async fn reopen_container_log(
        self: &Arc<Self>,
        request: v1::ReopenContainerLogRequest,
    ) -> Result<v1::ReopenContainerLogResponse> {
        let container = self.containers.get(&request.container_id)?;
        let phase = container.phase();
        if phase != Phase::Running {
            return Err(Error::failed_precondition(format_args!(
                "container is not running, current state {}",
                state_name(phase)
            )));
        }
        let task = self.running_task(&container)?;
        if container.record.log_path.is_none() || self.reopen_copied(&container).await? {
            return Ok(v1::ReopenContainerLogResponse {});
        }
        if task.writes_logs() {
            task.reopen_log().await?;
        }
        Ok(v1::ReopenContainerLogResponse {})
    }

    /// Copies what a running container writes to FIFOs, and what comes by one to its input, from now on.
    ///
    /// # Errors
    /// It does not run, or has no such stream.
    pub(crate) async fn attach_output(&self, container: &Container, attach: Attach) -> Result<()> {
        let task = self.running_task(container)?;
        match task.writes_logs() {
            true => task.attach("", attach).await,
            false => self.tap(container, &attach),
        }
    }
}
