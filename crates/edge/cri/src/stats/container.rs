//! What one container uses.

use std::sync::Arc;

use ::spec::{Error, Kind};
use api::runtime::v1;
use futures_util::future::join_all;
use model::Result;

use super::ask::Round;
use super::usage::Usage;
use crate::Cri;
use crate::state::{Container, Phase};

impl Cri {
    /// What one container uses.
    ///
    /// # Errors
    /// `Unknown`, in containerd's words: it does not run, or its shim does not answer.
    pub(crate) async fn container_stats(
        self: &Arc<Self>,
        request: v1::ContainerStatsRequest,
    ) -> Result<v1::ContainerStatsResponse> {
        let container = self.containers.get(&request.container_id)?;
        let runs = container.phase() == Phase::Running;
        let usage = self.usage_of(&Round::new(), &container.record.id, runs).await;
        let usage = usage.ok_or_else(|| Error::new(Kind::Unknown, "unexpected metrics response: []"))?;
        Ok(v1::ContainerStatsResponse { stats: Some(self.describe_use(&container, Some(&usage))) })
    }

    /// What the containers that pass the filter use; of those that have ended nothing is told.
    pub(crate) async fn list_container_stats(
        self: &Arc<Self>,
        request: v1::ListContainerStatsRequest,
    ) -> Result<v1::ListContainerStatsResponse> {
        let filter = request.filter.unwrap_or_default();
        let pod = match filter.pod_sandbox_id.as_str() {
            "" => None,
            id => Some(self.pods.find(id)?.map_or_else(|| id.to_owned(), |pod| pod.record.id.clone())),
        };
        let mut containers = self.containers.list();
        containers.retain(|container| {
            let labels = &container.record.config.labels;
            container.phase() != Phase::Exited
                && container.record.id.starts_with(&filter.id)
                && pod.as_ref().is_none_or(|id| container.record.pod_id == *id)
                && filter.label_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        });
        let used = self.usages_of(&Round::new(), containers).await;
        let stats =
            used.iter().map(|(container, usage)| self.describe_use(container, usage.as_ref())).collect();
        Ok(v1::ListContainerStatsResponse { stats })
    }

    /// What each of `containers` uses, in their order; nothing of one that does not run, or whose shim does not answer.
    pub(super) async fn usages_of(
        self: &Arc<Self>,
        round: &Round,
        containers: Vec<Arc<Container>>,
    ) -> Vec<(Arc<Container>, Option<Usage>)> {
        let each = containers.into_iter().map(|container| async move {
            let runs = container.phase() == Phase::Running;
            let usage = self.usage_of(round, &container.record.id, runs).await;
            (container, usage)
        });
        join_all(each).await
    }

    /// A container and what it uses as the kubelet sees them; only who it is when it does not run.
    pub(super) fn describe_use(&self, container: &Container, usage: Option<&Usage>) -> v1::ContainerStats {
        let (record, config) = (&container.record, &container.record.config);
        let attributes = v1::ContainerAttributes {
            id: record.id.clone(),
            metadata: config.metadata.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        };
        let disk = self.disk.of(&record.snapshotter, &record.id);
        let mut stats = v1::ContainerStats {
            attributes: Some(attributes),
            writable_layer: disk.map(|disk| self.file_system(&record.snapshotter, disk)),
            ..v1::ContainerStats::default()
        };
        if let Some(usage) = usage {
            let started = container.state.borrow().started_at;
            stats.cpu = Some(usage.cpu(self.cpu_rate(&record.id, started, usage)));
            stats.memory = Some(usage.memory());
            stats.swap = Some(usage.swap());
            stats.io = usage.io();
        }
        stats
    }

    /// How fast `id`, which began at `started`, uses the CPU, in billionths of a core.
    pub(super) fn cpu_rate(&self, id: &str, started: i64, usage: &Usage) -> Option<u64> {
        let runtime = &self.config.runtime;
        let (sample, begin) = ((usage.at, usage.cpu.total), (started, 0));
        self.rates.note(id, begin, sample, runtime.stats_collect_period, runtime.stats_retention_period)
    }
}
