//! What one pod uses: what its own cgroup counted, so that what ended and what belongs to no container counts too. Where
//! a pod has no cgroup of its own, its sandbox and its running containers together.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use futures_util::future::join_all;
use model::Result;

use super::ask::Round;
use super::usage::{Usage, value};
use super::{network, now};
use crate::Cri;
use crate::spec::cgroup;
use crate::state::{Phase, Pod};

impl Cri {
    /// What one pod uses.
    pub(crate) async fn pod_sandbox_stats(
        self: &Arc<Self>,
        request: v1::PodSandboxStatsRequest,
    ) -> Result<v1::PodSandboxStatsResponse> {
        let pod = self.pods.get(&request.pod_sandbox_id)?;
        Ok(v1::PodSandboxStatsResponse { stats: Some(self.pod_stats_of(&pod, &Round::new()).await?) })
    }

    /// What the pods that pass the filter use.
    pub(crate) async fn list_pod_sandbox_stats(
        self: &Arc<Self>,
        request: v1::ListPodSandboxStatsRequest,
    ) -> Result<v1::ListPodSandboxStatsResponse> {
        let filter = request.filter.unwrap_or_default();
        let mut pods = self.pods.list();
        pods.retain(|pod| {
            let labels = &pod.record.config.labels;
            pod.is_ready()
                && pod.record.id.starts_with(&filter.id)
                && filter.label_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        });
        let round = &Round::new();
        let stats = join_all(pods.iter().map(|pod| self.pod_stats_of(pod, round))).await;
        // A pod that went in between is no reason to tell nothing of the others.
        Ok(v1::ListPodSandboxStatsResponse { stats: stats.into_iter().filter_map(Result::ok).collect() })
    }

    async fn pod_stats_of(self: &Arc<Self>, pod: &Pod, round: &Round) -> Result<v1::PodSandboxStats> {
        let record = &pod.record;
        let attributes = v1::PodSandboxAttributes {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        };
        if !pod.is_ready() {
            return Err(Error::unavailable(format_args!(
                "failed to get pod sandbox stats since sandbox container {:?} is not in ready state",
                record.id
            )));
        }
        let mut containers = self.containers.list();
        containers.retain(|one| one.record.pod_id == record.id && one.phase() == Phase::Running);
        let used = self.usages_of(round, containers).await;
        let each = used.iter().filter_map(|(_, usage)| usage.as_ref());
        let processes: u64 = each.clone().map(|usage| usage.pids).sum();
        let whole = match self.usage_of_parent(pod).await? {
            Some(whole) => whole,
            None => {
                let mut sum = Usage { at: now(), ..Usage::default() };
                if let Some(own) = self.usage_of(round, &record.id, true).await {
                    sum.add(&own);
                }
                each.for_each(|usage| sum.add(usage));
                sum
            }
        };
        let containers = used.iter().map(|(one, usage)| self.describe_use(one, usage.as_ref())).collect();
        let network = self.network_of(pod).await?;
        let linux = v1::LinuxPodSandboxStats {
            cpu: Some(whole.cpu(self.cpu_rate(&record.id, record.created_at, &whole))),
            memory: Some(whole.memory()),
            network: network.map(|interfaces| network::usage(whole.at, &interfaces)),
            process: Some(v1::ProcessUsage { timestamp: whole.at, process_count: value(processes) }),
            containers,
            io: whole.io(),
        };
        Ok(v1::PodSandboxStats {
            attributes: Some(attributes),
            linux: Some(linux),
            ..v1::PodSandboxStats::default()
        })
    }

    /// What the cgroup counted that the kubelet made for the pod.
    async fn usage_of_parent(self: &Arc<Self>, pod: &Pod) -> Result<Option<Usage>> {
        let parent = pod.record.config.linux.as_ref().map_or("", |linux| linux.cgroup_parent.as_str());
        if parent.trim_matches('/').is_empty() {
            return Ok(None);
        }
        let path = cgroup::directory(parent);
        self.on_disk(&self.ctx(), move |_, _| Ok(Usage::of_cgroup(&path))).await
    }

    /// What went over a pod's own interfaces; none in the host's network.
    pub(super) async fn network_of(self: &Arc<Self>, pod: &Pod) -> Result<Option<Vec<network::Interface>>> {
        let pid = pod.now().pid;
        if pod.on_host_network() || pid == 0 {
            return Ok(None);
        }
        self.on_disk(&self.ctx(), move |_, _| Ok(Some(network::interfaces(pid)))).await
    }
}
