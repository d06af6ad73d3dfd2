//! Metrics of every pod and container, and their descriptions.
//!
//! Invariant: what is answered is described, with exactly the labels that it has.

use std::sync::Arc;

use api::runtime::v1;
use futures_util::future::join_all;
use model::Result;
use sys::mount::Space;

use super::ask::Round;
use super::open::{self, Open};
use super::usage::{Usage, value};
use super::{descriptor, now};
use crate::Cri;
use crate::state::{Container, Phase, Pod};

const SECOND: u64 = 1_000_000_000;

impl Cri {
    /// Names and labels of every metric that the next call can answer.
    pub(crate) async fn list_metric_descriptors(
        self: &Arc<Self>,
        request: v1::ListMetricDescriptorsRequest,
    ) -> Result<v1::ListMetricDescriptorsResponse> {
        let v1::ListMetricDescriptorsRequest {} = request;
        let descriptors = descriptor::ROWS.iter().map(descriptor::Row::describe).collect();
        Ok(v1::ListMetricDescriptorsResponse { descriptors })
    }

    /// Metrics of every pod that is ready, and of its running containers.
    pub(crate) async fn list_pod_sandbox_metrics(
        self: &Arc<Self>,
        request: v1::ListPodSandboxMetricsRequest,
    ) -> Result<v1::ListPodSandboxMetricsResponse> {
        let v1::ListPodSandboxMetricsRequest {} = request;
        let mut pods = self.pods.list();
        pods.retain(|pod| pod.is_ready());
        let round = &Round::new();
        let pod_metrics = join_all(pods.iter().map(|pod| self.metrics_of_pod(pod, round))).await;
        Ok(v1::ListPodSandboxMetricsResponse { pod_metrics })
    }

    async fn metrics_of_pod(self: &Arc<Self>, pod: &Pod, round: &Round) -> v1::PodSandboxMetrics {
        let id = &pod.record.id;
        let mut metrics = Metrics::of(pod, ["", id.as_str(), ""]);
        // A pod that goes meanwhile has no interfaces any more.
        for interface in self.network_of(pod).await.ok().flatten().unwrap_or_default() {
            let name = [interface.name.as_str()];
            for (way, [bytes, packets, errors, dropped]) in
                [("receive", interface.received), ("transmit", interface.sent)]
            {
                metrics.add(&format!("container_network_{way}_bytes_total"), &name, bytes);
                metrics.add(&format!("container_network_{way}_packets_total"), &name, packets);
                metrics.add(&format!("container_network_{way}_packets_dropped_total"), &name, dropped);
                metrics.add(&format!("container_network_{way}_errors_total"), &name, errors);
            }
        }
        let mut containers = self.containers.list();
        containers.retain(|one| one.record.pod_id == *id && one.phase() == Phase::Running);
        let used = self.usages_of(round, containers).await;
        let mut container_metrics = Vec::new();
        for (one, usage) in &used {
            if let Some(usage) = usage {
                container_metrics.push(self.metrics_of(pod, one, usage, round).await);
            }
        }
        v1::PodSandboxMetrics { pod_sandbox_id: id.clone(), metrics: metrics.rows, container_metrics }
    }

    async fn metrics_of(
        &self,
        pod: &Pod,
        container: &Container,
        usage: &Usage,
        round: &Round,
    ) -> v1::ContainerMetrics {
        let record = &container.record;
        let name = record.config.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
        let image = record.config.image.as_ref().map_or("", |image| image.user_specified_image.as_str());
        let mut metrics = Metrics::of(pod, [name, &record.id, image]);
        let started = u64::try_from(container.state.borrow().started_at).unwrap_or(0);
        metrics.add("container_last_seen", &[], u64::try_from(now()).unwrap_or(0) / SECOND);
        metrics.add("container_start_time_seconds", &[], started / SECOND);
        metrics.used(usage);
        if let Some(disk) = self.disk.of(&record.snapshotter, &record.id) {
            metrics.add("container_fs_usage_bytes", &["/"], disk.size);
            metrics.add("container_fs_inodes_total", &["/"], disk.inodes);
        }
        let (open, space) = self.surroundings_of(container, round).await;
        if let Some(open) = open {
            metrics.add("container_file_descriptors", &[], open.all);
            metrics.add("container_sockets", &[], open.sockets);
        }
        if let Some(space) = space {
            metrics.add("container_fs_limit_bytes", &["/"], space.size);
            metrics.add("container_fs_inodes_free", &["/"], space.free_inodes);
        }
        metrics.allowed(container);
        v1::ContainerMetrics { container_id: record.id.clone(), metrics: metrics.rows }
    }
}

impl Cri {
    /// What a container's processes have open, and the file system that its writable layer is on; nothing of what cannot
    /// be told just now.
    async fn surroundings_of(&self, container: &Container, round: &Round) -> (Option<Open>, Option<Space>) {
        let record = &container.record;
        let pids = match self.engine.tasks.get(&self.namespace, &record.id) {
            Ok(task) => round.wait(task.pids()).await.and_then(Result::ok),
            Err(_) => None,
        };
        let root = self.engine.snapshotter_roots.get(&record.snapshotter).cloned();
        let look = move |_: &crate::Engine, _: &model::Cx<'_>| {
            let space = root.and_then(|root| sys::mount::space(&root).ok());
            Ok((pids.map(|pids| open::count(&pids)), space))
        };
        self.on_disk(&self.ctx(), look).await.unwrap_or_default()
    }
}

/// The metrics of one pod or container.
struct Metrics {
    labels: Vec<String>,
    at: i64,
    rows: Vec<v1::Metric>,
}

impl Metrics {
    /// None yet; `labels` are container, id and image.
    fn of(pod: &Pod, labels: [&str; 3]) -> Self {
        let metadata = pod.record.config.metadata.clone().unwrap_or_default();
        let own = labels.into_iter().map(str::to_owned);
        Self {
            labels: [metadata.name, metadata.namespace].into_iter().chain(own).collect(),
            at: now(),
            rows: Vec::new(),
        }
    }

    /// Adds one; what nobody described is not told.
    fn add(&mut self, name: &str, labels: &[&str], number: u64) {
        let Some(row) = descriptor::find(name).filter(|row| row.labels.len() == labels.len()) else { return };
        let own = labels.iter().map(|label| (*label).to_owned());
        self.rows.push(v1::Metric {
            name: row.name.to_owned(),
            timestamp: self.at,
            metric_type: row.kind.into(),
            label_values: self.labels.iter().cloned().chain(own).collect(),
            value: value(number),
        });
    }

    /// Adds what a container used.
    fn used(&mut self, usage: &Usage) {
        let (cpu, memory) = (&usage.cpu, &usage.memory);
        for (name, number) in [
            ("container_cpu_usage_seconds_total", cpu.total / SECOND),
            ("container_cpu_user_seconds_total", cpu.user / SECOND),
            ("container_cpu_system_seconds_total", cpu.system / SECOND),
            ("container_cpu_cfs_periods_total", cpu.periods),
            ("container_cpu_cfs_throttled_periods_total", cpu.throttled_periods),
            ("container_cpu_cfs_throttled_seconds_total", cpu.throttled / SECOND),
            ("container_memory_usage_bytes", memory.usage),
            ("container_memory_working_set_bytes", memory.working_set()),
            ("container_memory_max_usage_bytes", memory.max),
            ("container_memory_failcnt", memory.failures),
            ("container_memory_rss", memory.rss),
            ("container_memory_cache", memory.cache),
            ("container_memory_mapped_file", memory.mapped),
            ("container_memory_kernel_usage", memory.kernel),
            ("container_memory_swap", memory.swap),
            ("container_memory_total_active_file_bytes", memory.active_file),
            ("container_memory_total_inactive_file_bytes", memory.inactive_file),
            ("container_oom_events_total", memory.oom_kills),
            ("container_processes", usage.pids),
            ("container_threads", usage.pids),
            ("container_threads_max", usage.pids_limit.unwrap_or(0)),
        ] {
            self.add(name, &[], number);
        }
        self.add("container_memory_failures_total", &["pgfault", "container"], memory.faults);
        self.add("container_memory_failures_total", &["pgmajfault", "container"], memory.major_faults);
        for io in &usage.io {
            let device = format!("{}:{}", io.device.0, io.device.1);
            self.add("container_fs_reads_bytes_total", &[&device], io.read_bytes);
            self.add("container_fs_writes_bytes_total", &[&device], io.written_bytes);
            self.add("container_fs_reads_total", &[&device], io.reads);
            self.add("container_fs_writes_total", &[&device], io.writes);
        }
    }

    /// Adds what a container may use: as it was told last, else as it was made.
    fn allowed(&mut self, container: &Container) {
        let told = container.state.borrow().resources.clone().and_then(|resources| resources.linux);
        let made = || container.record.config.linux.as_ref().and_then(|linux| linux.resources.clone());
        let Some(resources) = told.or_else(made) else { return };
        for (name, number) in [
            ("container_spec_cpu_period", resources.cpu_period),
            ("container_spec_cpu_shares", resources.cpu_shares),
            ("container_spec_memory_limit_bytes", resources.memory_limit_in_bytes),
            ("container_spec_memory_swap_limit_bytes", resources.memory_swap_limit_in_bytes),
        ] {
            if let Ok(number @ 1..) = u64::try_from(number) {
                self.add(name, &[], number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::usage::Io;
    use super::*;
    use crate::state::{PodRecord, PodState};

    #[test]
    fn a_metric_has_as_many_labels_as_its_description_has_keys() {
        let pod = Pod::new(PodRecord::default(), PodState::default());
        let mut metrics = Metrics::of(&pod, ["c", "id", "image"]);
        let usage = Usage { io: vec![Io { device: (8, 0), reads: 3, ..Io::default() }], ..Usage::default() };
        metrics.used(&usage);
        // 21 of the whole container, two of page faults, four of the device.
        assert_eq!(metrics.rows.len(), 27);
        for metric in &metrics.rows {
            let described = descriptor::find(&metric.name).unwrap().describe();
            assert_eq!(metric.label_values.len(), described.label_keys.len(), "{}", metric.name);
        }
        let reads = metrics.rows.iter().find(|metric| metric.name == "container_fs_reads_total").unwrap();
        assert_eq!((reads.value, reads.label_values.last().unwrap().as_str()), (value(3), "8:0"));
        metrics.add("container_made_up", &[], 1);
        metrics.add("container_processes", &["too many"], 1);
        assert_eq!(metrics.rows.len(), 27);
    }
}
