//! One pod; NotFound when there is none.

use std::sync::Arc;

use ::spec::{Error, Kind};
use api::runtime::v1;
use model::Result;
use serde_json::json;

use super::list::state_of;
use crate::Cri;
use crate::state::{Pod, PodRecord, PodState};
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
        let kept = self.on_disk(&self.ctx(), move |engine, cx| engine.containers.get(cx, &id)).await;
        let kept = match kept {
            Ok(kept) => Some(kept),
            // A pod that was not made whole.
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error),
        };
        let state = pod.now();
        let spec = kept.as_ref().and_then(|kept| kept.spec.as_ref());
        let spec: serde_json::Value =
            spec.and_then(|any| serde_json::from_slice(&any.value).ok()).unwrap_or_default();
        let (image, snapshot_key, snapshotter, runtime) = match kept {
            Some(kept) => (kept.image, kept.snapshot_key, kept.snapshotter, kept.runtime.name),
            None => Default::default(),
        };
        let process = if state.pid == 0 { "deleted" } else { "running" };
        let closed = pod.record.netns.as_ref().is_some_and(|path| !net::netns::exists(path));
        let mut info = json!({
            "pid": state.pid,
            "processStatus": process,
            "netNamespaceClosed": closed,
            "image": image,
            "snapshotKey": snapshot_key,
            "snapshotter": snapshotter,
            "runtimeHandler": pod.record.runtime_handler,
            "runtimeType": runtime,
            "runtimeOptions": self.handler(pod).map(options).unwrap_or_default(),
            "config": pod.record.config,
            "runtimeSpec": spec,
            "cniResult": state.network,
            "sandboxMetadata": metadata(&pod.record, &state),
            "overhead": of_linux(state.overhead),
            "resources": of_linux(state.resources),
        });
        if let Some(fault) = state.network_fault {
            info["cniCheck"] = json!(fault);
        }
        serde_json::to_string(&info)
            .map_err(|error| Error::internal(format!("failed to marshal info: {error}")))
    }
}

/// Resources as a container's, which are an operating system's each.
fn of_linux(linux: Option<v1::LinuxContainerResources>) -> Option<v1::ContainerResources> {
    linux.map(|linux| v1::ContainerResources { linux: Some(linux), windows: None })
}

/// A pod's record in the versioned envelope and by the keys of containerd's own, as its clients read it.
fn metadata(record: &PodRecord, state: &PodState) -> serde_json::Value {
    let mut addresses = state.addresses.iter().map(ToString::to_string);
    let first = addresses.next().unwrap_or_default();
    let others: Vec<String> = addresses.collect();
    json!({
        "Version": "v1",
        "Metadata": {
            "ID": record.id,
            "Name": record.name,
            "Config": record.config,
            "NetNSPath": record.netns.as_deref().map(|path| path.display().to_string()).unwrap_or_default(),
            "IP": first,
            "AdditionalIPs": if others.is_empty() { None } else { Some(others) },
            "RuntimeHandler": record.runtime_handler,
            "CNIResult": state.network,
            "ProcessLabel": record.process_label,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_has_the_envelope_and_keys_of_containerd() {
        let record = PodRecord {
            id: "a".into(),
            name: "n_ns_u_0".into(),
            runtime_handler: "runc".into(),
            netns: Some("/run/netns/cni-x".into()),
            ..PodRecord::default()
        };
        let addresses = ["10.0.0.2", "fd00::2"].map(|text| text.parse().unwrap()).to_vec();
        let state = PodState { addresses, ..PodState::default() };
        let seen = metadata(&record, &state);
        assert_eq!(seen["Version"], "v1");
        let inside = seen["Metadata"].as_object().unwrap();
        let keys: Vec<&str> = inside.keys().map(String::as_str).collect();
        let wanted = [
            "AdditionalIPs",
            "CNIResult",
            "Config",
            "ID",
            "IP",
            "Name",
            "NetNSPath",
            "ProcessLabel",
            "RuntimeHandler",
        ];
        assert_eq!(keys, wanted);
        assert_eq!(inside["NetNSPath"], "/run/netns/cni-x");
        assert_eq!((&inside["IP"], &inside["AdditionalIPs"]), (&json!("10.0.0.2"), &json!(["fd00::2"])));
        let on_host = metadata(&PodRecord::default(), &PodState::default());
        assert_eq!(on_host["Metadata"]["NetNSPath"], "");
        assert!(on_host["Metadata"]["CNIResult"].is_null() && on_host["Metadata"]["AdditionalIPs"].is_null());
    }
}
