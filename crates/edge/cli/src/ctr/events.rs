//! `ctr events`.

use std::fmt::Write;

use api::containerd::services::events::v1 as wire;
use api::containerd::types::Envelope;

use crate::client::Client;
use crate::failure::Result;
use crate::ui::{self, quantity};

/// Flags of `ctr events`.
#[derive(clap::Args, Debug)]
pub struct Events {
    /// Filters, such as topic~=|^/tasks/|
    filters: Vec<String>,
}

impl Events {
    /// Prints a line for each event until interrupted.
    pub async fn run(self, client: &Client) -> Result {
        let request = wire::SubscribeRequest { filters: self.filters };
        let mut stream = client.events().subscribe(request).await?.into_inner();
        while let Some(envelope) = stream.message().await? {
            ui::line(format(&envelope))?;
        }
        Ok(())
    }
}

/// `time namespace topic {json}`, as Go prints an envelope.
fn format(envelope: &Envelope) -> String {
    let time = go_time(&envelope.timestamp);
    let event = envelope.event.as_ref().map_or_else(|| "{}".into(), crate::ctr::events::json);
    format!("{time} {} {} {event}", envelope.namespace, envelope.topic)
}

/// `2026-11-21 10:00:00.123456789 +0000 UTC`.
fn go_time(timestamp: &Option<api::Timestamp>) -> String {
    let text = quantity::rfc3339(*timestamp);
    format!("{} +0000 UTC", text.trim_end_matches('Z').replacen('T', " ", 1))
}

/// The payload as JSON, for the events that the daemon and its shims publish; the type and size of any other.
pub(super) fn json(any: &api::Any) -> String {
    use api::containerd::events as e;
    use api::containerd::services::images::v1 as i;

    /// Tries each message type in turn and prints the fields named.
    macro_rules! fields {
        ($($type:ty { $($field:ident),* })*) => {
            $(if let Ok(Some(event)) = api::decode_any::<$type>(any) {
                let mut text = String::from("{");
                $(
                    let value = serde_json::to_string(&Json(&event.$field)).unwrap_or_default();
                    if !matches!(value.as_str(), "\"\"" | "null" | "{}" | "[]" | "0" | "false") {
                        let comma = if text.len() > 1 { "," } else { "" };
                        let _infallible = write!(text, "{comma}{:?}:{value}", stringify!($field));
                    }
                )*
                text.push('}');
                return text;
            })*
        };
    }
    fields! {
        e::ContainerCreate { id, image, runtime }
        e::ContainerUpdate { id, image, labels, snapshot_key }
        e::ContainerDelete { id }
        e::ContentCreate { digest, size }
        e::ContentDelete { digest }
        i::ImageCreate { name, labels }
        i::ImageUpdate { name, labels }
        i::ImageDelete { name }
        e::NamespaceCreate { name, labels }
        e::NamespaceUpdate { name, labels }
        e::NamespaceDelete { name }
        e::SnapshotPrepare { key, parent, snapshotter }
        e::SnapshotCommit { key, name, snapshotter }
        e::SnapshotRemove { key, snapshotter }
        e::TaskCreate { container_id, bundle, rootfs, io, checkpoint, pid }
        e::TaskStart { container_id, pid }
        e::TaskExecAdded { container_id, exec_id }
        e::TaskExecStarted { container_id, exec_id, pid }
        e::TaskExit { container_id, id, pid, exit_status, exited_at }
        e::TaskDelete { container_id, pid, exit_status, exited_at, id }
        e::TaskOom { container_id }
        e::TaskPaused { container_id }
        e::TaskResumed { container_id }
        e::TaskCheckpointed { container_id, checkpoint }
        e::SandboxCreate { sandbox_id }
        e::SandboxStart { sandbox_id }
        e::SandboxExit { sandbox_id, exit_status, exited_at }
    }
    format!("{{\"type_url\":{:?},\"bytes\":{}}}", any.type_url, any.value.len())
}

/// A field's value for serde, in the names of the wire.
struct Json<'a, T>(&'a T);

/// Serialises a field through plain JSON values.
trait ToJson {
    fn to_json(&self) -> serde_json::Value;
}

impl<T: ToJson> serde::Serialize for Json<'_, T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.0.to_json().serialize(serializer)
    }
}

macro_rules! plain {
    ($($type:ty),*) => {
        $(impl ToJson for $type {
            fn to_json(&self) -> serde_json::Value {
                serde_json::json!(self)
            }
        })*
    };
}
plain!(String, u32, i64, std::collections::BTreeMap<String, String>);

impl<T: ToJson> ToJson for Option<T> {
    fn to_json(&self) -> serde_json::Value {
        self.as_ref().map_or(serde_json::Value::Null, ToJson::to_json)
    }
}

impl<T: ToJson> ToJson for Vec<T> {
    fn to_json(&self) -> serde_json::Value {
        self.iter().map(ToJson::to_json).collect()
    }
}

impl ToJson for api::Timestamp {
    fn to_json(&self) -> serde_json::Value {
        quantity::rfc3339(Some(*self)).into()
    }
}

impl ToJson for api::containerd::types::Mount {
    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({"type": self.r#type, "source": self.source, "options": self.options})
    }
}

impl ToJson for api::containerd::events::TaskIo {
    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({"stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr, "terminal": self.terminal})
    }
}

impl ToJson for api::containerd::events::container_create::Runtime {
    fn to_json(&self) -> serde_json::Value {
        let options = self.options.as_ref().map(|any| serde_json::json!({"type_url": any.type_url}));
        serde_json::json!({"name": self.name, "options": options})
    }
}
