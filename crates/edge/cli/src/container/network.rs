//! `ctr run --cni`: a container's network namespace, attached to the host's default network.
//!
//! The network is that of the first configuration in `/etc/cni/net.d`; the container is known to it as `NAMESPACE-ID`. The
//! record says that there is an attachment, so that whoever deletes task or container takes it down.

use std::time::{Duration, Instant};

use api::containerd::services::containers::v1::{Container, GetContainerRequest};
use model::{Ctx, Lane};
use net::cni::{Network, NetworkError, Pod, Settings};

use crate::client::Client;
use crate::failure::{OrFail, Result};

/// The extension of a record that says so; Go ctr's name, type and text.
const EXTENSION: &str = "ctr.cni-containerd.metadata";
const EXTENSION_TYPE: &str = "github.com/containerd/containerd/v2/cmd/ctr/commands/NetworkMetaData";
const EXTENSION_TEXT: &[u8] = br#"{"EnableCni":true}"#;

/// How long all plugins may take.
const LIMIT: Duration = Duration::from_secs(100);

/// Notes on a record that its container is attached.
pub fn note(record: &mut Container) {
    let value = api::Any { type_url: EXTENSION_TYPE.into(), value: EXTENSION_TEXT.to_vec() };
    record.extensions.insert(EXTENSION.into(), value);
}

/// Whether the container of a record is attached.
pub fn noted(record: &Container) -> bool {
    let enabled = |any: &api::Any| {
        let text = serde_json::from_slice::<serde_json::Value>(&any.value).unwrap_or_default();
        text["EnableCni"] == true
    };
    record.extensions.get(EXTENSION).is_some_and(enabled)
}

/// The container as its network knows it.
fn pod(client: &Client, id: &str) -> Pod {
    Pod { id: format!("{}-{id}", client.namespace()), ..Pod::default() }
}

/// Asks the network's plugins, which may run for long.
async fn ask(
    work: impl FnOnce(Network, Instant) -> std::result::Result<(), NetworkError> + Send + 'static,
) -> Result {
    let ask = move |_: &model::Cx<'_>| {
        work(Network::open(Settings::default()), Instant::now() + LIMIT).map_err(spec::Error::from)
    };
    Ok(Ctx::background().blocking(Lane::Wait, ask).await?)
}

/// Attaches the network namespace of process `pid`, the first of the container `id`.
pub async fn attach(client: &Client, id: &str, pid: u32) -> Result {
    let netns = Some(format!("/proc/{pid}/ns/net").into());
    let pod = Pod { netns, ..pod(client, id) };
    ask(move |network, limit| network.setup(&pod, limit).map(drop))
        .await
        .or_fail("failed to set up the network")
}

/// Detaches the container `id`; what is gone is detached.
pub async fn detach(client: &Client, id: &str) -> Result {
    let pod = pod(client, id);
    ask(move |network, limit| network.teardown(&pod, limit)).await.or_fail("failed to remove the network")
}

/// Detaches the container `id` if its record says that it is attached.
pub async fn detach_noted(client: &Client, id: &str) -> Result {
    let request = GetContainerRequest { id: id.to_owned() };
    match client.containers().get(request).await {
        Ok(response) if response.get_ref().container.as_ref().is_some_and(noted) => detach(client, id).await,
        Ok(_) => Ok(()),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(()),
        Err(status) => Err(status.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_of_its_attachment() {
        let mut record = Container::default();
        assert!(!noted(&record));
        note(&mut record);
        assert!(noted(&record));
        let off = api::Any { type_url: EXTENSION_TYPE.into(), value: br#"{"EnableCni":false}"#.to_vec() };
        record.extensions.insert(EXTENSION.into(), off);
        assert!(!noted(&record));
    }
}
