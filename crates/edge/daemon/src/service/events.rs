//! Events: published by clients, forwarded by shims, told to whoever subscribes.

use api::containerd::services::events::v1 as wire;
use api::containerd::types::Envelope as WireEnvelope;
use api::{time, timestamp};
use grpc::containerd::services::events::v1::events_server;
use grpc::convert::{FromWire, ToWire, required};
use model::event::{Envelope, check_topic};
use model::{Any, Error, Filters, Result};
use spec::name::check_identifier;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Events;
use crate::event::Fielded;
use crate::request::{Answers, answer, open, open_anywhere};

/// How many events wait for a slow client in its stream; more wait in its subscription, which is bounded too.
const QUEUE: usize = 16;

#[tonic::async_trait]
impl events_server::Events for Events {
    async fn publish(&self, request: Request<wire::PublishRequest>) -> Result<Response<()>, Status> {
        answer((|| {
            let (ctx, message) = open(request)?;
            check_topic(&message.topic)?;
            let event = Any::from_wire(required(message.event, "event")?)?;
            self.0.exchange.publish(ctx.namespace()?, &message.topic, event);
            Ok(())
        })())
    }

    async fn forward(&self, request: Request<wire::ForwardRequest>) -> Result<Response<()>, Status> {
        answer((|| {
            let (_, message) = open_anywhere(request)?;
            self.0.exchange.forward(envelope(required(message.envelope, "envelope")?)?);
            Ok(())
        })())
    }

    type SubscribeStream = Answers<WireEnvelope>;

    async fn subscribe(
        &self,
        request: Request<wire::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        answer((|| {
            let (_, message) = open_anywhere(request)?;
            let filters = Filters::parse(&message.filters)?;
            let mut subscription = self.0.exchange.subscribe();
            let (send, answers) = mpsc::channel(QUEUE);
            tokio::spawn(async move {
                loop {
                    // Both arms are cancel-safe: a subscription loses nothing, a closed channel stays closed.
                    let event = tokio::select! {
                        event = subscription.next() => event,
                        () = send.closed() => return,
                    };
                    if !filters.pass_all() && !filters.matches(&Fielded::new(&event)) {
                        continue;
                    }
                    if send.send(Ok(to_wire(&event))).await.is_err() {
                        return;
                    }
                }
            });
            Ok(Box::pin(ReceiverStream::new(answers)) as Self::SubscribeStream)
        })())
    }
}

/// Checks an envelope from outside: namespace, topic and time must be there.
///
/// # Errors
/// `InvalidArgument`, naming what is not.
pub fn envelope(message: WireEnvelope) -> Result<Envelope> {
    check_identifier(&message.namespace)
        .map_err(|error| Error::from(error).context("event envelope has invalid namespace"))?;
    check_topic(&message.topic).map_err(|error| error.context("envelope topic"))?;
    let timestamp = time(message.timestamp.as_ref())
        .filter(|time| *time != std::time::UNIX_EPOCH)
        .ok_or_else(|| Error::invalid("timestamp must be set on forwarded event"))?;
    let event = Any::from_wire(required(message.event, "event")?)?;
    Ok(Envelope { timestamp, namespace: message.namespace, topic: message.topic, event })
}

fn to_wire(event: &Envelope) -> WireEnvelope {
    WireEnvelope {
        timestamp: Some(timestamp(event.timestamp)),
        namespace: event.namespace.clone(),
        topic: event.topic.clone(),
        event: Some(event.event.clone().to_wire()),
    }
}
