//! Events: what happened, told to whoever listens.
//!
//! Invariant: an event is published after its change is durable, and publishing never blocks or fails.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use spec::{Error, Namespace};
use tokio::sync::Notify;

use crate::Any;

/// An event and where it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// When it happened.
    pub timestamp: SystemTime,
    /// In which namespace.
    pub namespace: String,
    /// `/tasks/exit`, ...
    pub topic: String,
    /// The message of `containerd.events`.
    pub event: Any,
}

/// How many events a subscriber may lag behind before the oldest are dropped for it.
const QUEUE: usize = 16 * 1024;

/// The daemon's one exchange. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    subscribers: Arc<Mutex<Vec<Weak<Queue>>>>,
}

#[derive(Debug, Default)]
struct Queue {
    events: Mutex<VecDeque<Arc<Envelope>>>,
    arrived: Notify,
}

/// One listener; it hears everything published after it was made.
#[derive(Debug)]
pub struct Subscription {
    queue: Arc<Queue>,
}

impl Exchange {
    /// Publishes an event that happened now.
    pub fn publish(&self, namespace: &Namespace, topic: &str, event: Any) {
        self.forward(Envelope {
            timestamp: SystemTime::now(),
            namespace: namespace.as_str().to_owned(),
            topic: topic.to_owned(),
            event,
        });
    }

    /// Publishes an event that was made elsewhere, such as in a shim.
    pub fn forward(&self, envelope: Envelope) {
        let envelope = Arc::new(envelope);
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|weak| {
            let Some(queue) = weak.upgrade() else { return false };
            let mut events = queue.events.lock().unwrap_or_else(PoisonError::into_inner);
            if events.len() == QUEUE {
                events.pop_front();
            }
            events.push_back(Arc::clone(&envelope));
            drop(events);
            queue.arrived.notify_one();
            true
        });
    }

    /// Starts to listen.
    pub fn subscribe(&self) -> Subscription {
        let queue = Arc::new(Queue::default());
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.push(Arc::downgrade(&queue));
        Subscription { queue }
    }
}

impl Subscription {
    /// The next event, in the order of publication. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Arc<Envelope> {
        loop {
            if let Some(event) = self.queue.events.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
            {
                return event;
            }
            self.queue.arrived.notified().await;
        }
    }
}

/// Checks a topic: `/` and identifiers joined by `/`.
///
/// # Errors
/// `InvalidArgument` when it is something else.
pub fn check_topic(topic: &str) -> Result<(), Error> {
    let Some(rest) = topic.strip_prefix('/') else {
        return Err(Error::invalid(format!("topic {topic:?} must start with '/'")));
    };
    rest.split('/').try_for_each(|part| {
        spec::name::check_identifier(part)
            .map_err(|error| Error::from(error).context(format!("topic {topic:?}")))
    })
}
