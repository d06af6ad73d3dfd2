//! The fields of an event that a filter can name: `namespace`, `topic`, `event.<field>`.

use api::containerd::events as wire;
use api::{Message, Name};
use model::event::Envelope;
use model::filter::Fields;

/// An envelope with its payload's fields read out.
pub struct Fielded<'a> {
    envelope: &'a Envelope,
    fields: Vec<(&'static str, String)>,
}

/// Reads the named text fields of the payload when it is of one of the types listed.
macro_rules! fields {
    ($any:expr; $($type:ty { $($path:literal: $($field:ident).+),* })*) => {{
        let any = $any;
        $(
            if any.type_url == <$type>::full_name() {
                return <$type>::decode(any.value.as_slice())
                    .map(|event| vec![$(($path, event.$($field).+.clone())),*])
                    .unwrap_or_default();
            }
        )*
        Vec::new()
    }};
}

impl<'a> Fielded<'a> {
    /// Reads the fields of `envelope`.
    pub fn new(envelope: &'a Envelope) -> Self {
        Self { envelope, fields: payload(&envelope.event) }
    }
}

fn payload(any: &model::Any) -> Vec<(&'static str, String)> {
    use api::containerd::services::images::v1::{ImageCreate, ImageDelete, ImageUpdate};
    fields! { any;
        wire::ContainerCreate { "id": id, "image": image }
        wire::ContainerUpdate { "id": id, "image": image, "snapshot_key": snapshot_key }
        wire::ContainerDelete { "id": id }
        wire::ContentCreate { "digest": digest }
        wire::ContentDelete { "digest": digest }
        ImageCreate { "name": name }
        ImageUpdate { "name": name }
        ImageDelete { "name": name }
        wire::NamespaceCreate { "name": name }
        wire::NamespaceUpdate { "name": name }
        wire::NamespaceDelete { "name": name }
        wire::SnapshotPrepare { "key": key, "parent": parent, "snapshotter": snapshotter }
        wire::SnapshotCommit { "key": key, "name": name, "snapshotter": snapshotter }
        wire::SnapshotRemove { "key": key, "snapshotter": snapshotter }
        wire::TaskCreate { "container_id": container_id, "bundle": bundle, "checkpoint": checkpoint }
        wire::TaskStart { "container_id": container_id }
        wire::TaskDelete { "container_id": container_id, "id": id }
        wire::TaskExit { "container_id": container_id, "id": id }
        wire::TaskOom { "container_id": container_id }
        wire::TaskExecAdded { "container_id": container_id, "exec_id": exec_id }
        wire::TaskExecStarted { "container_id": container_id, "exec_id": exec_id }
        wire::TaskPaused { "container_id": container_id }
        wire::TaskResumed { "container_id": container_id }
        wire::TaskCheckpointed { "container_id": container_id, "checkpoint": checkpoint }
    }
}

impl Fields for Fielded<'_> {
    fn field(&self, path: &[&str]) -> Option<&str> {
        match path {
            ["namespace"] => Some(&self.envelope.namespace),
            ["topic"] => Some(&self.envelope.topic),
            ["event", name] => {
                let found = self.fields.iter().find(|(field, _)| field == name);
                found.map(|(_, value)| value.as_str()).and_then(model::filter::present)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Filters;

    #[test]
    fn a_filter_reaches_into_the_payload() {
        let event = wire::TaskExit { container_id: "a".into(), ..wire::TaskExit::default() };
        let any = api::encode_any(&event);
        let envelope = Envelope {
            timestamp: std::time::SystemTime::now(),
            namespace: "ns".into(),
            topic: "/tasks/exit".into(),
            event: model::Any { type_url: any.type_url, value: any.value },
        };
        let passes = |filter: &str| Filters::parse(&[filter]).unwrap().matches(&Fielded::new(&envelope));
        assert!(passes("event.container_id==a"));
        assert!(!passes("event.container_id==b"));
        assert!(passes(r#"topic~="/tasks/.*",namespace==ns"#));
    }
}
