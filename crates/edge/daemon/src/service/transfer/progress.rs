//! What a transfer tells, on its way to the client.

use std::sync::Arc;
use std::time::Duration;

use api::containerd::types::transfer::{Data, Progress as Message};
use api::{Any, encode_any};
use grpc::convert::{ToWire, signed};
use image::progress::{Event, Sink};
use image::registry::Log;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::stream::Stream;

/// How many messages wait for a slow client; further ones are dropped, for they are news, not content.
const QUEUE: usize = 4096;
/// How long a client may take to hear the last of them.
const LAST: Duration = Duration::from_secs(5);

/// A transfer's progress.
pub struct Progress {
    events: Option<mpsc::Sender<Any>>,
    pump: Option<JoinHandle<()>>,
}

impl Progress {
    /// Progress that goes to `stream`, or nowhere.
    pub fn over(stream: Option<Stream>) -> Self {
        let Some(stream) = stream else { return Self { events: None, pump: None } };
        let (events, pump) = pump(stream);
        Self { events: Some(events), pump: Some(pump) }
    }

    /// Where the transfer tells its events.
    pub fn sink(&self) -> Option<Sink> {
        let events = self.events.clone()?;
        Some(Arc::new(move |event| {
            // A full queue is a client that does not read.
            let _dropped = events.try_send(encode_any(&message(event)));
        }))
    }

    /// Ends the stream once the client has heard everything, or too slowly.
    pub async fn finish(self) {
        drop(self.events);
        if let Some(pump) = self.pump {
            let abort = pump.abort_handle();
            if tokio::time::timeout(LAST, pump).await.is_err() {
                abort.abort();
            }
        }
    }
}

/// Sends what is queued to the client, in order, until nobody queues any more.
fn pump(stream: Stream) -> (mpsc::Sender<Any>, JoinHandle<()>) {
    let (events, mut queued) = mpsc::channel(QUEUE);
    let pump = tokio::spawn(async move {
        while let Some(any) = queued.recv().await {
            if stream.outgoing.send(Ok(any)).await.is_err() {
                return;
            }
        }
    });
    (events, pump)
}

/// Lines for a client that wants to see the requests: one message a line.
pub fn log(stream: Stream) -> Log {
    let (lines, _pump) = pump(stream);
    Arc::new(move |line: String| {
        // A full queue is a client that does not read.
        let _dropped = lines.try_send(encode_any(&Data { data: line.into_bytes() }));
    })
}

fn message(event: Event) -> Message {
    Message {
        event: event.event,
        name: event.name,
        parents: event.parents,
        progress: signed(event.progress),
        total: signed(event.total),
        desc: event.descriptor.map(ToWire::to_wire),
    }
}
