//! One pod; NotFound when there is none.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;
use crate::state::{Pod, PodPhase};

impl Cri {
    /// How `pod` stands.
    pub(crate) fn status_of_pod(&self, pod: &Pod) -> v1::PodSandboxStatus {
        let (record, state) = (&pod.record, pod.now());
        let phase = match state.phase {
            PodPhase::Ready => v1::PodSandboxState::SandboxReady,
            PodPhase::Making | PodPhase::NotReady | PodPhase::Unknown => v1::PodSandboxState::SandboxNotready,
        };
        let address = |address: &std::net::IpAddr| v1::PodIp { ip: address.to_string() };
        let network = (!pod.on_host_network()).then(|| v1::PodSandboxNetworkStatus {
            ip: state.addresses.first().map(ToString::to_string).unwrap_or_default(),
            additional_ips: state.addresses.iter().skip(1).map(address).collect(),
        });
        v1::PodSandboxStatus {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: phase.into(),
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
        let _request = request;
        Err(Error::unimplemented("PodSandboxStatus"))
    }
}
