//! `containerd publish`: how old shims send their events.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use api::Message;
use api::containerd::services::events::v1::PublishRequest;
use grpc::channel::{self, Headers};
use grpc::containerd::services::events::v1::events_client::EventsClient;
use grpc::status::from_status;
use spec::{Error, Kind};

/// The longest event, in bytes.
const MAX_EVENT: u64 = 4 << 20;
/// How long the daemon may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Flags of `containerd publish`.
#[derive(clap::Args, Debug)]
pub struct Publish {
    /// Namespace to publish to
    #[arg(long)]
    namespace: String,
    /// Topic of the event
    #[arg(long)]
    topic: String,
}

impl Publish {
    /// Sends the `Any` on standard input to the daemon at `address`.
    ///
    /// # Errors
    /// The input is no event, or the daemon does not take it.
    pub async fn run(self, address: &Path) -> Result<(), Error> {
        let mut bytes = Vec::new();
        std::io::stdin()
            .take(MAX_EVENT)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::internal(format!("cannot read the event: {error}")))?;
        let event = api::Any::decode(bytes.as_slice()).map_err(Error::invalid)?;
        let send = async {
            let channel = channel::connect(address).await?;
            let headers = Headers::new(&self.namespace, None)?;
            let request = PublishRequest { topic: self.topic, event: Some(event) };
            let sent = EventsClient::with_interceptor(channel, headers).publish(request).await;
            sent.map(drop).map_err(|status| from_status(&status))
        };
        let late = |_| Error::new(Kind::DeadlineExceeded, "the daemon did not take the event in time");
        tokio::time::timeout(LIMIT, send).await.map_err(late)?
    }
}
