//! The connection to a daemon, with the namespace and the lease that every call carries.

use std::path::PathBuf;
use std::time::Duration;

use api::containerd::services as wire;
use grpc::containerd::services as stub;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::ctr::Global;
use crate::failure::{Failure, OrFail, Result};

/// How long to wait for a daemon that listens and does not answer, when `--connect-timeout` says nothing.
const CONNECT: Duration = Duration::from_secs(10);

/// A channel that adds the headers of [`grpc::channel::Headers`] to every call.
pub type Service = InterceptedService<Channel, grpc::channel::Headers>;

/// A connected client.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    headers: grpc::channel::Headers,
    namespace: String,
    address: PathBuf,
    debug: bool,
}

/// Gives a stub of each service.
macro_rules! stubs {
    ($($(#[$doc:meta])* $method:ident: $module:ident::v1::$client:ident::$type:ident;)*) => {
        $(
            $(#[$doc])*
            pub fn $method(&self) -> stub::$module::v1::$client::$type<Service> {
                stub::$module::v1::$client::$type::with_interceptor(self.channel.clone(), self.headers.clone())
                    .max_decoding_message_size(MAX_MESSAGE)
                    .max_encoding_message_size(MAX_MESSAGE)
            }
        )*
    };
}

/// containerd's bound on a message, in bytes.
const MAX_MESSAGE: usize = 16 << 20;

impl Client {
    /// Connects as the global flags say.
    ///
    /// # Errors
    /// Nothing listens at the address, or it does not answer in time.
    pub async fn connect(global: &Global) -> Result<Self> {
        let timeout = if global.connect_timeout.is_zero() { CONNECT } else { global.connect_timeout };
        let address = global.address.clone();
        let path = address
            .to_str()
            .and_then(|text| text.strip_prefix("unix://"))
            .map_or(address.clone(), PathBuf::from);
        let channel = tokio::time::timeout(timeout, grpc::channel::connect(&path))
            .await
            .map_err(|_| {
                Failure::new(format!("containerd at {} did not answer in {timeout:?}", path.display()))
            })?
            .map_err(spec::Error::from)
            .or_fail(format!("failed to dial {:?}", path.display().to_string()))
            .map_err(|failure| {
                failure.hint("is containerd running, and may you open its socket? see --address")
            })?;
        let headers = grpc::channel::Headers::new(&global.namespace, None).map_err(spec::Error::from)?;
        Ok(Self { channel, headers, namespace: global.namespace.clone(), address: path, debug: global.debug })
    }

    /// The namespace of every call.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The daemon's socket.
    pub fn address(&self) -> &std::path::Path {
        &self.address
    }

    /// Whether `--debug` was given.
    pub fn debug(&self) -> bool {
        self.debug
    }

    /// The same client under `lease`.
    ///
    /// # Errors
    /// The id is no identifier.
    pub fn with_lease(&self, lease: &str) -> Result<Self> {
        let headers = grpc::channel::Headers::new(&self.namespace, Some(lease)).map_err(spec::Error::from)?;
        Ok(Self { headers, ..self.clone() })
    }

    stubs! {
        /// Containers.
        containers: containers::v1::containers_client::ContainersClient;
        /// Content.
        content: content::v1::content_client::ContentClient;
        /// Layers.
        diff: diff::v1::diff_client::DiffClient;
        /// Events.
        events: events::v1::events_client::EventsClient;
        /// Images.
        images: images::v1::images_client::ImagesClient;
        /// Plugins and server.
        introspection: introspection::v1::introspection_client::IntrospectionClient;
        /// Leases.
        leases: leases::v1::leases_client::LeasesClient;
        /// Namespaces.
        namespaces: namespaces::v1::namespaces_client::NamespacesClient;
        /// Snapshots.
        snapshots: snapshots::v1::snapshots_client::SnapshotsClient;
        /// Streams.
        streaming: streaming::v1::streaming_client::StreamingClient;
        /// Tasks.
        tasks: tasks::v1::tasks_client::TasksClient;
        /// Transfers.
        transfer: transfer::v1::transfer_client::TransferClient;
        /// Version.
        version: version::v1::version_client::VersionClient;
    }

    /// The snapshotter to use: what was asked for, else the namespace's default, else overlayfs.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub async fn snapshotter(&self, wanted: Option<&str>) -> Result<String> {
        if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) {
            return Ok(wanted.to_owned());
        }
        let request = wire::namespaces::v1::GetNamespaceRequest { name: self.namespace.clone() };
        let labels = match self.namespaces().get(request).await {
            Ok(response) => response.into_inner().namespace.unwrap_or_default().labels,
            Err(status) if status.code() == tonic::Code::NotFound => Default::default(),
            Err(status) => return Err(status.into()),
        };
        Ok(labels.get(spec::label::DEFAULT_SNAPSHOTTER).cloned().unwrap_or_else(|| "overlayfs".into()))
    }
}
