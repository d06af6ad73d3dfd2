//! The fields of an event that a filter can name: `namespace`, `topic`, `event.<field>`.

use api::containerd::events as wire;
use api::{Message, Name};
use model::event::Envelope;
use model::filter::Fields;

/// An envelope with its payload's fields read out.
pub struct Fielded<'a> {
    envelope: &'a Envelope,
    fields: Vec<(String, String)>,
}

/// Reads the named text fields of the payload, and its labels, when it is of one of the types listed.
macro_rules! fields {
    ($any:expr; $($type:ty: |$event:ident| { $($path:literal: $value:expr),* $(; $labels:expr)? })*) => {{
        let any = $any;
        $(
            if any.type_url == <$type>::full_name() {
                let Ok($event) = <$type>::decode(any.value.as_slice()) else { return Vec::new() };
                #[allow(unused_mut, reason = "not every event has labels")]
                let mut fields = vec![$(($path.to_owned(), $value)),*];
                $(fields.extend($labels.into_iter().map(|(key, value)| (format!("labels.{key}"), value)));)?
                return fields;
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

fn payload(any: &model::Any) -> Vec<(String, String)> {
    use api::containerd::services::images::v1::{ImageCreate, ImageDelete, ImageUpdate};
    fields! { any;
        wire::ContainerCreate: |e| {
            "id": e.id, "image": e.image, "runtime.name": e.runtime.unwrap_or_default().name
        }
        wire::ContainerUpdate: |e| {
            "id": e.id, "image": e.image, "snapshot_key": e.snapshot_key; e.labels
        }
        wire::ContainerDelete: |e| { "id": e.id }
        wire::ContentCreate: |e| { "digest": e.digest }
        wire::ContentDelete: |e| { "digest": e.digest }
        ImageCreate: |e| { "name": e.name; e.labels }
        ImageUpdate: |e| { "name": e.name; e.labels }
        ImageDelete: |e| { "name": e.name }
        wire::NamespaceCreate: |e| { "name": e.name; e.labels }
        wire::NamespaceUpdate: |e| { "name": e.name; e.labels }
        wire::NamespaceDelete: |e| { "name": e.name }
        wire::SandboxCreate: |e| { "sandbox_id": e.sandbox_id }
        wire::SandboxStart: |e| { "sandbox_id": e.sandbox_id }
        wire::SandboxExit: |e| { "sandbox_id": e.sandbox_id }
        wire::SnapshotPrepare: |e| { "key": e.key, "parent": e.parent, "snapshotter": e.snapshotter }
        wire::SnapshotCommit: |e| { "key": e.key, "name": e.name, "snapshotter": e.snapshotter }
        wire::SnapshotRemove: |e| { "key": e.key, "snapshotter": e.snapshotter }
        wire::TaskCreate: |e| {
            "container_id": e.container_id, "bundle": e.bundle, "checkpoint": e.checkpoint,
            "io.stdin": e.io.clone().unwrap_or_default().stdin,
            "io.stdout": e.io.clone().unwrap_or_default().stdout,
            "io.stderr": e.io.clone().unwrap_or_default().stderr,
            "io.terminal": e.io.map(|io| io.terminal.to_string()).unwrap_or_default()
        }
        wire::TaskStart: |e| { "container_id": e.container_id }
        wire::TaskDelete: |e| { "container_id": e.container_id, "id": e.id }
        wire::TaskExit: |e| { "container_id": e.container_id, "id": e.id }
        wire::TaskOom: |e| { "container_id": e.container_id }
        wire::TaskExecAdded: |e| { "container_id": e.container_id, "exec_id": e.exec_id }
        wire::TaskExecStarted: |e| { "container_id": e.container_id, "exec_id": e.exec_id }
        wire::TaskPaused: |e| { "container_id": e.container_id }
        wire::TaskResumed: |e| { "container_id": e.container_id }
        wire::TaskCheckpointed: |e| { "container_id": e.container_id, "checkpoint": e.checkpoint }
    }
}

impl Fields for Fielded<'_> {
    fn field(&self, path: &[&str]) -> Option<&str> {
        match path {
            ["namespace"] => Some(&self.envelope.namespace),
            ["topic"] => Some(&self.envelope.topic),
            ["event", path @ ..] => {
                // A label's key may have dots of its own.
                let path = path.join(".");
                let (_, value) = self.fields.iter().find(|(field, _)| *field == path)?;
                if path.starts_with("labels.") { Some(value) } else { model::filter::present(value) }
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
        fn passes<M: Message + Name>(event: &M, filter: &str) -> bool {
            let any = api::encode_any(event);
            let envelope = Envelope {
                timestamp: std::time::SystemTime::now(),
                namespace: "ns".into(),
                topic: "/tasks/exit".into(),
                event: model::Any { type_url: any.type_url, value: any.value },
            };
            Filters::parse(&[filter]).unwrap().matches(&Fielded::new(&envelope))
        }
        let event = wire::TaskExit { container_id: "a".into(), ..wire::TaskExit::default() };
        assert!(passes(&event, "event.container_id==a"));
        assert!(!passes(&event, "event.container_id==b"));
        assert!(passes(&event, r#"topic~="/tasks/.*",namespace==ns"#));
        let runtime = wire::container_create::Runtime { name: "runc".into(), options: None };
        let event = wire::ContainerCreate { runtime: Some(runtime), ..wire::ContainerCreate::default() };
        assert!(passes(&event, "event.runtime.name==runc"));
        assert!(!passes(&event, "event.image"), "an empty field is none");
        let labels = [("a.b/c".to_owned(), String::new())].into();
        let event = wire::NamespaceCreate { name: "n".into(), labels };
        assert!(passes(&event, r#"event.labels."a.b/c""#), "a label without a value is one");
        assert!(!passes(&event, "event.labels.other"));
        let io = wire::TaskIo { stdin: "in".into(), ..wire::TaskIo::default() };
        let event = wire::TaskCreate { io: Some(io), ..wire::TaskCreate::default() };
        assert!(passes(&event, "event.io.stdin==in,event.io.terminal==false"));
        let event = wire::SandboxStart { sandbox_id: "s".into() };
        assert!(passes(&event, "event.sandbox_id==s"));
    }
}
