//! Changes a container's limits while it lives.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::spec::{Error, Kind};
use api::runtime::v1;
use model::mask::Mask;
use model::{Any, Result};

use super::process::state_name;
use super::record;
use super::save::Durable;
use crate::Cri;
use crate::spec::{merge_resources, resources};
use crate::state::{Container, Phase};

/// The type of OCI resources in an `Any`, as containerd's clients write it.
const RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

impl Cri {
    /// Changes a container's limits while it lives.
    pub(crate) async fn update_container_resources(
        self: &Arc<Self>,
        request: v1::UpdateContainerResourcesRequest,
    ) -> Result<v1::UpdateContainerResourcesResponse> {
        let container = self.containers.get(&request.container_id)?;
        let wanted = request.linux.unwrap_or_default();
        let (cri, annotations) = (Arc::clone(self), request.annotations);
        Self::whole(async move {
            let _turn = container.turn.lock().await;
            cri.update_limits(&container, wanted, annotations).await
        })
        .await?;
        Ok(v1::UpdateContainerResourcesResponse {})
    }

    async fn update_limits(
        &self,
        container: &Arc<Container>,
        mut wanted: v1::LinuxContainerResources,
        annotations: BTreeMap<String, String>,
    ) -> Result<()> {
        let id = &container.record.id;
        running_or_made(container)?;
        let pod = self.pods.get(&container.record.pod_id)?;
        self.nri.update_container(&pod, container, &mut wanted).await?;
        self.set_limits(container, wanted, annotations).await?;
        if let Err(error) = self.nri.post_update_container(&pod, container).await {
            tracing::warn!(%id, %error, "NRI post-update notification failed");
        }
        Ok(())
    }

    /// Changes the limits of a container whose turn the caller holds.
    ///
    /// # Errors
    /// It has ended, or the limits cannot be set: then the old ones hold.
    pub(crate) async fn set_limits(
        &self,
        container: &Arc<Container>,
        wanted: v1::LinuxContainerResources,
        annotations: BTreeMap<String, String>,
    ) -> Result<()> {
        let phase = running_or_made(container)?;
        let before = self.stored_spec(container).await?;
        let mut after = before.clone();
        merge_resources(&mut after, &wanted, &self.host, &self.config.runtime)?;
        self.put_spec(container, &after).await?;
        if phase == Phase::Running
            && let Err(error) = self.update_task(container, &after, annotations).await
        {
            // The record tells what is, not what was wished for.
            self.put_spec(container, &before).await?;
            return Err(error);
        }
        let linux = Some(resources::told(&after));
        self.change(container, Durable::No, move |state| {
            state.resources = Some(v1::ContainerResources { linux, windows: None });
        })
        .await;
        Ok(())
    }

    async fn update_task(
        &self,
        container: &Container,
        spec: &::spec::runtime::Spec,
        annotations: BTreeMap<String, String>,
    ) -> Result<()> {
        let task = self.engine.tasks.get(&self.namespace, &container.record.id)?;
        let resources = spec.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
        let value = serde_json::to_vec(&resources)
            .map_err(|error| Error::internal(format!("cannot write resources: {error}")))?;
        match task.update(Any { type_url: RESOURCES.into(), value }, annotations).await {
            // It has ended meanwhile; there is nothing left to limit.
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            outcome => outcome.map_err(|error| error.context("failed to update resources")),
        }
    }

    async fn put_spec(&self, container: &Container, spec: &::spec::runtime::Spec) -> Result<()> {
        let (id, spec) = (container.record.id.clone(), record::spec_any(spec)?);
        self.on_disk(&self.ctx(), move |engine, cx| {
            let mut stored = engine.containers.get(cx, &id)?;
            stored.spec = Some(spec);
            engine.containers.update(cx, &stored, &Mask::new(["spec".to_owned()])).map(drop)
        })
        .await
    }
}

/// Where a container stands whose limits can be changed.
fn running_or_made(container: &Container) -> Result<Phase> {
    let phase = container.phase();
    if matches!(phase, Phase::Created | Phase::Running) {
        return Ok(phase);
    }
    let (id, phase) = (&container.record.id, state_name(phase));
    Err(Error::failed_precondition(format_args!("container {id:?} is in {phase} state")))
}
