//! Every pod that passes the filter.

use std::sync::Arc;

use api::runtime::v1;
use model::Result;

use crate::Cri;
use crate::state::{Pod, PodPhase};

impl Cri {
    /// Every pod that passes the filter.
    pub(crate) async fn list_pod_sandbox(
        self: &Arc<Self>,
        request: v1::ListPodSandboxRequest,
    ) -> Result<v1::ListPodSandboxResponse> {
        let filter = request.filter.unwrap_or_default();
        let mut pods = self.pods.list();
        pods.retain(|pod| passes(pod, &filter));
        Ok(v1::ListPodSandboxResponse { items: pods.iter().map(|pod| summary(pod)).collect() })
    }
}

/// How the kubelet is told where a pod stands.
pub fn state_of(phase: PodPhase) -> v1::PodSandboxState {
    match phase {
        PodPhase::Ready => v1::PodSandboxState::SandboxReady,
        PodPhase::Making | PodPhase::NotReady | PodPhase::Unknown => v1::PodSandboxState::SandboxNotready,
    }
}

fn passes(pod: &Pod, filter: &v1::PodSandboxFilter) -> bool {
    let phase = pod.state.borrow().phase;
    let labels = &pod.record.config.labels;
    phase != PodPhase::Making
        && pod.record.id.starts_with(&filter.id)
        && filter.state.as_ref().is_none_or(|wanted| wanted.state == state_of(phase) as i32)
        && filter.label_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn summary(pod: &Pod) -> v1::PodSandbox {
    let record = &pod.record;
    v1::PodSandbox {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state: state_of(pod.state.borrow().phase).into(),
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.runtime_handler.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{PodRecord, PodState};

    fn pod(id: &str, phase: PodPhase) -> Pod {
        let config = v1::PodSandboxConfig {
            labels: [("app".to_owned(), "a".to_owned())].into(),
            ..v1::PodSandboxConfig::default()
        };
        let record = PodRecord { id: id.into(), config, ..PodRecord::default() };
        Pod::new(record, PodState { phase, ..PodState::default() })
    }

    #[test]
    fn filters_are_by_the_beginning_of_an_id_the_state_and_labels() {
        let ready = pod("abc", PodPhase::Ready);
        let filter = |id: &str, state: Option<v1::PodSandboxState>, label: &str| v1::PodSandboxFilter {
            id: id.into(),
            state: state.map(|state| v1::PodSandboxStateValue { state: state.into() }),
            label_selector: [("app".to_owned(), label.to_owned())].into(),
        };
        assert!(passes(&ready, &filter("ab", Some(v1::PodSandboxState::SandboxReady), "a")));
        assert!(!passes(&ready, &filter("b", None, "a")));
        assert!(!passes(&ready, &filter("", Some(v1::PodSandboxState::SandboxNotready), "a")));
        assert!(!passes(&ready, &filter("", None, "b")));
        assert!(!passes(&pod("abc", PodPhase::Making), &v1::PodSandboxFilter::default()));
    }
}
