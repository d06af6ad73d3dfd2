//! Streams that a client opened by name, until a transfer takes them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::Any;
use spec::{Error, Namespace};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// How many messages wait in a stream towards its client.
const QUEUE: usize = 64;
/// How many streams of one namespace may wait for a transfer to take them.
const MOST: usize = 256;
/// How long a stream may wait for a transfer to take it.
pub const UNCLAIMED: Duration = Duration::from_secs(600);

/// The daemon's end of an open stream.
#[derive(Debug)]
pub struct Stream {
    /// What the client sends.
    pub incoming: Streaming<Any>,
    /// What the client gets. Dropping it ends the stream.
    pub outgoing: mpsc::Sender<Result<Any, Status>>,
}

type Key = (Namespace, String);

/// Every stream that nobody has taken yet.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    streams: HashMap<Key, (u64, Stream)>,
    /// How many streams there have been.
    count: u64,
}

/// A stream that waits, and no later one of its name.
#[derive(Debug)]
pub struct Ticket(Key, u64);

impl Streams {
    /// Keeps a new stream under `name`; answers the end that its client reads, and the ticket to forget it by.
    ///
    /// # Errors
    /// `AlreadyExists`; `ResourceExhausted` when too many wait.
    pub fn add(
        &self,
        namespace: &Namespace,
        name: &str,
        incoming: Streaming<Any>,
    ) -> Result<(mpsc::Receiver<Result<Any, Status>>, Ticket), Error> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // A client that hung up reads no more; its stream is of no use to anyone.
        waiting.streams.retain(|_, (_, stream)| !stream.outgoing.is_closed());
        if waiting.streams.keys().filter(|(of, _)| of == namespace).count() >= MOST {
            return Err(Error::worded(spec::Kind::ResourceExhausted, "too many open streams"));
        }
        let key = (namespace.clone(), name.to_owned());
        if waiting.streams.contains_key(&key) {
            return Err(Error::already_exists(format_args!("stream {name:?}")));
        }
        let (outgoing, answers) = mpsc::channel(QUEUE);
        waiting.count += 1;
        let serial = waiting.count;
        waiting.streams.insert(key.clone(), (serial, Stream { incoming, outgoing }));
        Ok((answers, Ticket(key, serial)))
    }

    /// Takes the stream that a request names.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn take(&self, namespace: &Namespace, name: &str) -> Result<Stream, Error> {
        let key = (namespace.clone(), name.to_owned());
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = waiting.streams.remove(&key).map(|(_, stream)| stream);
        taken.ok_or_else(|| Error::not_found(format_args!("stream {name:?}")))
    }

    /// Forgets a stream that nobody took in time.
    pub fn forget(&self, ticket: &Ticket) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.streams.get(&ticket.0).is_some_and(|(serial, _)| *serial == ticket.1) {
            waiting.streams.remove(&ticket.0);
        }
    }
}
