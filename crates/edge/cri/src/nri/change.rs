//! What plugins want of containers that live: new limits, or their end; and what there is to be told.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::spec::Error;
use ::spec::runtime::Spec;
use api::nri::pkg::api::v1alpha1 as pb;
use api::runtime::v1;
use model::{Filters, Result};

use super::{resources, view};
use crate::Cri;
use crate::state::{Container, Phase, PodPhase};

impl Cri {
    /// Changes limits of containers, and returns what failed and should not have.
    ///
    /// A container that is gone is not a failure. One whose turn somebody holds for long is: plugins must not be able
    /// to make two containers wait for each other.
    pub(super) async fn apply_updates(
        self: &Arc<Self>,
        updates: Vec<pb::ContainerUpdate>,
    ) -> Vec<pb::ContainerUpdate> {
        let mut failed = Vec::new();
        for update in updates {
            let Some(container) = self.exactly(&update.container_id) else { continue };
            let limits = update.linux.as_ref().and_then(|linux| linux.resources.as_ref());
            let wanted = limits.map(resources::to_cri).unwrap_or_default();
            if let Err(error) = self.limit(&container, wanted).await {
                tracing::warn!(id = %container.record.id, %error, "an NRI plugin's update failed");
                if !update.ignore_failure {
                    failed.push(update);
                }
            }
        }
        failed
    }

    async fn limit(
        self: &Arc<Self>,
        container: &Arc<Container>,
        wanted: v1::LinuxContainerResources,
    ) -> Result<()> {
        let turn = tokio::time::timeout(self.config.nri.request_timeout, container.turn.lock()).await;
        let _turn = turn.map_err(|_| Error::unavailable("the container is busy"))?;
        self.set_limits(container, wanted, BTreeMap::new()).await.map(drop)
    }

    /// Ends containers, without waiting for it.
    pub(super) fn evict(self: &Arc<Self>, plugin: &str, evictions: Vec<pb::ContainerEviction>) {
        for eviction in evictions {
            let Some(container) = self.exactly(&eviction.container_id) else { continue };
            let id = container.record.id.clone();
            tracing::warn!(plugin, %id, reason = eviction.reason, "an NRI plugin evicts a container");
            let cri = Arc::downgrade(self);
            self.in_background(async move {
                let Some(cri) = cri.upgrade() else { return };
                let stop = v1::StopContainerRequest { container_id: id.clone(), timeout: 0 };
                if let Err(error) = cri.stop_container(stop).await {
                    tracing::warn!(%id, %error, "an NRI plugin's eviction failed");
                }
            });
        }
    }

    /// The container `id`: plugins do not shorten ids.
    fn exactly(&self, id: &str) -> Option<Arc<Container>> {
        self.containers.get(id).ok().filter(|container| container.record.id == id)
    }

    /// Every pod, and every container that has not ended.
    pub(super) async fn everything(&self) -> Result<(Vec<pb::PodSandbox>, Vec<pb::Container>)> {
        let stored =
            self.on_disk(&self.ctx(), |engine, cx| engine.containers.list(cx, &Filters::default())).await?;
        let spec = |any: Option<model::Any>| Spec::from_slice(&any?.value).ok();
        let mut specs: BTreeMap<String, Spec> =
            stored.into_iter().filter_map(|stored| Some((stored.id, spec(stored.spec)?))).collect();
        let known = self.pods.list().into_iter().filter(|pod| pod.now().phase != PodPhase::Unknown);
        let pods = known.map(|pod| view::pod(&pod.record, &pod.now(), specs.get(&pod.record.id))).collect();
        let living = self.containers.list().into_iter();
        let living = living.filter(|container| matches!(container.phase(), Phase::Created | Phase::Running));
        let containers = living.map(|container| {
            let spec = specs.remove(&container.record.id).unwrap_or_default();
            view::container(&container.record, Some(&container.now()), &spec)
        });
        Ok((pods, containers.collect()))
    }
}
