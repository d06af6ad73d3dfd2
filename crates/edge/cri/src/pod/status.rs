//! One pod; NotFound when there is none.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;
use serde_json::json;

use super::list::state_of;
use crate::Cri;
use crate::state::Pod;
use crate::status::options;

impl Cri {
    /// How `pod` stands.
    pub(crate) fn status_of_pod(&self, pod: &Pod) -> v1::PodSandboxStatus {
        let (record, state) = (&pod.record, pod.now());
        let address = |address: &std::net::IpAddr| v1::PodIp { ip: address.to_string() };
        // What a stopped pod had may be another's by now.
        let network =
            (!pod.on_host_network() && !state.network_released).then(|| v1::PodSandboxNetworkStatus {
                ip: state.addresses.first().map(ToString::to_string).unwrap_or_default(),
                additional_ips: state.addresses.iter().skip(1).map(address).collect(),
            });
        v1::PodSandboxStatus {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: state_of(state.phase).into(),
            created_at: record.created_at,
            network: Some(network.unwrap_or_default()),
            linux: Some(v1::LinuxPodSandboxStatus {
                namespaces: Some(v1::Namespace { options: Some(pod.namespaces()) }),
            }),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            runtime_handler: record.runtime_handler.clone(),
        }
    }

    /// One pod; NotFound when there is none.
    pub(crate) async fn pod_sandbox_status(
        self: &Arc<Self>,
        request: v1::PodSandboxStatusRequest,
    ) -> Result<v1::PodSandboxStatusResponse> {
        let pod = self
            .pods
            .get(&request.pod_sandbox_id)
            .map_err(|error| error.context("an error occurred when try to find sandbox"))?;
        let containers = self.containers_of(&pod.record.id);
        let info = match request.verbose {
            true => [("info".to_owned(), self.verbose_pod(&pod).await?)].into(),
            false => std::collections::BTreeMap::new(),
        };
        Ok(v1::PodSandboxStatusResponse {
            status: Some(self.status_of_pod(&pod)),
            info,
            containers_statuses: containers.iter().map(|container| self.status_of(container)).collect(),
            timestamp: crate::now_nanos(),
        })
    }

    /// What `crictl inspectp` shows beside the status, as containerd's JSON.
    async fn verbose_pod(&self, pod: &Pod) -> Result<String> {
        let id = pod.record.id.clone();
        let kept = self.on_disk(&self.ctx(), move |engine, cx| engine.containers.get(cx, &id)).await?;
        let state = pod.now();
        let spec: serde_json::Value =
            kept.spec.as_ref().and_then(|any| serde_json::from_slice(&any.value).ok()).unwrap_or_default();
        let process = if state.pid == 0 { "deleted" } else { "running" };
        let closed = pod.record.netns.as_ref().is_some_and(|path| !net::netns::exists(path));
        let mut info = json!({
            "pid": state.pid,
            "processStatus": process,
            "netNamespaceClosed": closed,
            "image": kept.image,
            "snapshotKey": kept.snapshot_key,
            "snapshotter": kept.snapshotter,
            "runtimeHandler": pod.record.runtime_handler,
            "runtimeType": kept.runtime.name,
            "runtimeOptions": self.handler(pod).map(options).unwrap_or_default(),
            "config": pod.record.config,
            "runtimeSpec": spec,
            "cniResult": state.network,
            "sandboxMetadata": pod.record,
            "overhead": state.overhead,
            "resources": state.resources,
        });
        if let Some(fault) = state.network_fault {
            info["cniCheck"] = json!(fault);
        }
        serde_json::to_string(&info)
            .map_err(|error| Error::internal(format!("failed to marshal info: {error}")))
    }
}
