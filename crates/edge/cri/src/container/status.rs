//! How one container stands.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use super::process::state_of;
use super::{record, signal};
use crate::Cri;
use crate::state::{Container, Phase};

/// The exit status of what nobody saw end.
pub(crate) const UNKNOWN_STATUS: i32 = 255;

impl Cri {
    /// How one container stands.
    pub(crate) async fn container_status(
        self: &Arc<Self>,
        request: v1::ContainerStatusRequest,
    ) -> Result<v1::ContainerStatusResponse> {
        let container = self
            .containers
            .get(&request.container_id)
            .map_err(|error| error.context("an error occurred when try to find container"))?;
        // Kept for this and every later answer; without it the status has no user, as containerd's.
        if let Err(error) = self.init_process(&container).await {
            tracing::debug!(id = %container.record.id, %error, "the container's spec cannot be read");
        }
        let status = self.status_of(&container);
        let info = if request.verbose {
            [("info".to_owned(), self.verbose(&container).await?)].into()
        } else {
            std::collections::BTreeMap::new()
        };
        Ok(v1::ContainerStatusResponse { status: Some(status), info })
    }

    /// How `container` stands, from memory alone.
    pub(crate) fn status_of(&self, container: &Container) -> v1::ContainerStatus {
        let (record, state) = (&container.record, container.now());
        let phase = state.phase();
        let reason = match (phase, state.exit_code) {
            _ if !state.reason.is_empty() => state.reason.clone(),
            (Phase::Exited, 0) => "Completed".into(),
            (Phase::Exited, _) => "Error".into(),
            _ => String::new(),
        };
        let (started_at, finished_at) = match phase {
            Phase::Created => (0, 0),
            Phase::Running => (state.started_at, 0),
            Phase::Exited | Phase::Unknown => (state.started_at, state.finished_at),
        };
        let log_path = record.log_path.as_ref().map(|path| path.display().to_string());
        v1::ContainerStatus {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: state_of(phase).into(),
            created_at: state.created_at,
            started_at,
            finished_at,
            exit_code: state.exit_code,
            image: Some(self.image_of(container)),
            image_ref: record.image_ref.clone(),
            reason,
            message: state.message,
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            mounts: record.config.mounts.clone(),
            log_path: log_path.unwrap_or_default(),
            resources: state.resources,
            image_id: record.image_id.clone(),
            user: Some(user_of(container)),
            stop_signal: signal::to_cri(&record.stop_signal).into(),
        }
    }

    /// Its image, by a name with a tag where it has one.
    fn image_of(&self, container: &Container) -> v1::ImageSpec {
        let asked = container.record.config.image.clone().unwrap_or_default();
        match container.record.image_name.as_str() {
            "" => asked,
            name => v1::ImageSpec { image: name.into(), ..v1::ImageSpec::default() },
        }
    }

    /// What `crictl inspect` shows beside the status, as containerd's JSON.
    async fn verbose(&self, container: &Container) -> Result<String> {
        let id = container.record.id.clone();
        let stored = self.on_disk(&self.ctx(), move |engine, cx| engine.containers.get(cx, &id)).await?;
        let state = container.now();
        let info = serde_json::json!({
            "sandboxID": container.record.pod_id,
            "pid": state.pid,
            "removing": state.removing,
            "snapshotKey": stored.snapshot_key,
            "snapshotter": stored.snapshotter,
            "runtimeType": stored.runtime.name,
            "runtimeOptions": stored.runtime.options.as_ref().map(|options| &options.type_url),
            "config": container.record.config,
            "runtimeSpec": record::spec(&stored)?,
        });
        serde_json::to_string(&info)
            .map_err(|error| Error::internal(format!("failed to marshal info: {error}")))
    }
}

/// As whom it runs; nothing before somebody has read its spec.
fn user_of(container: &Container) -> v1::ContainerUser {
    let linux = container.process.get().map(|process| v1::LinuxContainerUser {
        uid: process.user.uid.into(),
        gid: process.user.gid.into(),
        supplemental_groups: process.user.additional_gids.iter().map(|&gid| gid.into()).collect(),
    });
    v1::ContainerUser { linux }
}
