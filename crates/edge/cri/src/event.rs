//! What happens to pods and containers, told to whoever listens.
//!
//! While nobody listens, the latest events are kept for the first who does, as containerd does: a kubelet that comes
//! back learns what it missed.
//!
//! Invariant: telling never waits. A listener that is too slow loses the oldest events, which is logged.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::Message as _;
use api::runtime::v1;
use model::Result;
use tokio::sync::broadcast;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use crate::Cri;
use crate::service::Answers;

/// How many events a listener may lag behind.
const QUEUE: usize = 1024;

/// How many events are kept while nobody listens.
const BACKLOG: usize = 512;

/// And how many bytes of them, as they would be sent: each holds how everything in its pod stands.
const BACKLOG_BYTES: usize = 2 << 20;

/// How long an event is kept while nobody listens.
const RETENTION: Duration = Duration::from_secs(300);

/// Everyone who listens.
#[derive(Debug)]
pub struct Events {
    listeners: broadcast::Sender<Arc<v1::ContainerEventResponse>>,
    backlog: Mutex<Backlog>,
}

/// What nobody has heard.
#[derive(Debug, Default)]
struct Backlog {
    kept: VecDeque<Kept>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    at: Instant,
    bytes: usize,
    event: Arc<v1::ContainerEventResponse>,
}

impl Backlog {
    fn keep(&mut self, event: Arc<v1::ContainerEventResponse>) {
        let (at, bytes) = (Instant::now(), event.encoded_len());
        self.bytes += bytes;
        self.kept.push_back(Kept { at, bytes, event });
        let old = |kept: &Kept| at.duration_since(kept.at) >= RETENTION;
        while self.kept.len() > BACKLOG || self.bytes > BACKLOG_BYTES || self.kept.front().is_some_and(old) {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.bytes -= oldest.bytes;
        }
    }

    fn take(&mut self) -> Vec<Arc<v1::ContainerEventResponse>> {
        let (now, all) = (Instant::now(), std::mem::take(self));
        let fresh = all.kept.into_iter().filter(|kept| now.duration_since(kept.at) < RETENTION);
        fresh.map(|kept| kept.event).collect()
    }
}

impl Default for Events {
    fn default() -> Self {
        Self { listeners: broadcast::Sender::new(QUEUE), backlog: Mutex::default() }
    }
}

impl Events {
    /// Tells an event.
    pub fn publish(&self, event: v1::ContainerEventResponse) {
        let event = Arc::new(event);
        // Held across the send, so that an event goes to a new listener once: by the backlog or by the channel.
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        if self.listeners.send(Arc::clone(&event)).is_ok() {
            return;
        }
        backlog.keep(event);
    }

    /// Starts to listen: what nobody heard comes first.
    fn listen(
        &self,
    ) -> (Vec<Arc<v1::ContainerEventResponse>>, broadcast::Receiver<Arc<v1::ContainerEventResponse>>) {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        let listener = self.listeners.subscribe();
        (backlog.take(), listener)
    }
}

impl Cri {
    /// Tells that `kind` happened to `container_id` (the pod's own id for its sandbox) in the pod `pod_id`, with how
    /// everything in the pod stands now.
    pub(crate) fn tell(&self, kind: v1::ContainerEventType, container_id: &str, pod_id: &str) {
        let pod = self.pods.get(pod_id).ok();
        let containers = self.containers_of(pod_id);
        self.events.publish(v1::ContainerEventResponse {
            container_id: container_id.into(),
            container_event_type: kind.into(),
            created_at: crate::now_nanos(),
            pod_sandbox_status: pod.map(|pod| self.status_of_pod(&pod)),
            containers_statuses: containers.iter().map(|container| self.status_of(container)).collect(),
        });
    }

    /// Tells what happens to containers, from now on.
    pub(crate) async fn get_container_events(
        self: &Arc<Self>,
        _request: v1::GetEventsRequest,
    ) -> Result<Answers<v1::ContainerEventResponse>> {
        let (missed, listener) = self.events.listen();
        let live = BroadcastStream::new(listener).filter_map(|event| match event {
            Ok(event) => Some(event),
            Err(BroadcastStreamRecvError::Lagged(lost)) => {
                tracing::warn!(lost, "a listener to container events is too slow");
                None
            }
        });
        let events = tokio_stream::iter(missed).chain(live);
        Ok(Box::pin(events.map(|event| Ok(Arc::unwrap_or_clone(event)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str) -> v1::ContainerEventResponse {
        v1::ContainerEventResponse { container_id: id.into(), ..v1::ContainerEventResponse::default() }
    }

    #[test]
    fn the_first_listener_hears_what_nobody_heard_and_the_second_does_not() {
        let events = Events::default();
        events.publish(event("a"));
        let (missed, mut first) = events.listen();
        assert_eq!(missed.iter().map(|event| event.container_id.as_str()).collect::<Vec<_>>(), ["a"]);
        events.publish(event("b"));
        let (missed, _second) = events.listen();
        assert!(missed.is_empty());
        assert_eq!(first.try_recv().unwrap().container_id, "b");
    }

    #[test]
    fn what_nobody_hears_is_kept_up_to_a_bound() {
        let events = Events::default();
        for number in 0..BACKLOG + 3 {
            events.publish(event(&number.to_string()));
        }
        let (missed, _listener) = events.listen();
        assert_eq!(missed.len(), BACKLOG);
        assert_eq!(missed[0].container_id, "3");
    }

    #[test]
    fn big_events_that_nobody_hears_are_kept_up_to_a_number_of_bytes() {
        let events = Events::default();
        let quarter = "x".repeat(BACKLOG_BYTES / 4);
        for number in 0..10 {
            events.publish(event(&format!("{number}{quarter}")));
        }
        let (missed, listener) = events.listen();
        let numbers: Vec<_> = missed.iter().map(|event| &event.container_id[..1]).collect();
        assert_eq!(numbers, ["7", "8", "9"]);
        // One that is too big by itself is not kept either, and harms no later one.
        drop(listener);
        events.publish(event(&"x".repeat(BACKLOG_BYTES)));
        events.publish(event("after"));
        let (missed, _listener) = events.listen();
        assert_eq!(missed.iter().map(|event| event.container_id.as_str()).collect::<Vec<_>>(), ["after"]);
    }
}
