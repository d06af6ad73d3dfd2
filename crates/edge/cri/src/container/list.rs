//! Every container that passes the filter, from memory alone.

use std::sync::Arc;

use api::runtime::v1;
use model::Result;

use super::process::state_of;
use crate::Cri;
use crate::state::Container;

impl Cri {
    /// Every container that passes the filter.
    pub(crate) async fn list_containers(
        self: &Arc<Self>,
        request: v1::ListContainersRequest,
    ) -> Result<v1::ListContainersResponse> {
        let filter = request.filter.unwrap_or_default();
        // Ids may be shortened; one that fits nothing fits no container.
        let pod = match filter.pod_sandbox_id.as_str() {
            "" => None,
            id => Some(self.pods.find(id)?.map_or_else(|| id.to_owned(), |pod| pod.record.id.clone())),
        };
        let mut containers = self.containers.list();
        containers.retain(|container| {
            pod.as_ref().is_none_or(|id| container.record.pod_id == *id) && passes(container, &filter)
        });
        Ok(v1::ListContainersResponse { containers: containers.iter().map(|one| summary(one)).collect() })
    }
}

fn passes(container: &Container, filter: &v1::ContainerFilter) -> bool {
    let labels = &container.record.config.labels;
    container.record.id.starts_with(&filter.id)
        && filter.state.as_ref().is_none_or(|wanted| wanted.state == state_of(container.phase()) as i32)
        && filter.label_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn summary(container: &Container) -> v1::Container {
    let record = &container.record;
    let (phase, created_at) = {
        let state = container.state.borrow();
        (state.phase(), state.created_at)
    };
    v1::Container {
        id: record.id.clone(),
        pod_sandbox_id: record.pod_id.clone(),
        metadata: record.config.metadata.clone(),
        image: record.config.image.clone(),
        image_ref: record.image_id.clone(),
        state: state_of(phase).into(),
        created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        image_id: record.image_id.clone(),
    }
}
