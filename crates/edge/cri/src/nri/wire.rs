//! ttrpc in both directions over one socket to a plugin.
//!
//! Two tasks own the socket's halves: one writes whole frames from a bounded queue; the other hands responses to the
//! calls that wait, and what the plugin asks to whoever serves it.
//!
//! Invariant: a plugin that floods, stalls or talks nonsense loses its connection; it holds up nobody but itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::spec::{Error, HasKind, Kind};
use api::Message;
use api::ttrpc::{Request, Response};
use shim::ttrpc::frame::{FrameError, FrameType, Header};
use shim::ttrpc::message;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::mux::{self, Inbox};

/// The service that plugins offer.
const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
/// The service that we offer.
pub const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";
/// How many messages wait for a slow plugin, and how many of a plugin wait for us.
const QUEUE: usize = 16;

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The plugin ended, or was made to by nonsense on the wire.
    #[error("ttrpc: closed: unavailable")]
    Closed,
    /// The request is longer than a message may be.
    #[error("ttrpc: request too long")]
    TooLong(#[source] FrameError),
    /// No reply in time.
    #[error("no answer to {method} within {limit:?}: deadline exceeded")]
    Deadline {
        /// The method called.
        method: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The reply is not the message that the method answers with.
    #[error("ttrpc: cannot decode the reply of {method}: {reason}")]
    Decode {
        /// The method called.
        method: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// The plugin answered with an error.
    #[error("{}", .0.text())]
    Remote(Error),
}

impl HasKind for CallError {
    fn kind(&self) -> Kind {
        match self {
            Self::Closed => Kind::Unavailable,
            Self::TooLong(error) => error.kind(),
            Self::Deadline { .. } => Kind::DeadlineExceeded,
            Self::Decode { .. } => Kind::Internal,
            Self::Remote(error) => error.kind(),
        }
    }
}

impl CallError {
    /// Whether the plugin is of no more use.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Closed | Self::Deadline { .. } | Self::Decode { .. } => true,
            Self::TooLong(_) | Self::Remote(_) => false,
        }
    }
}

/// What a plugin asks of us.
#[derive(Debug)]
pub struct Asked {
    stream: u32,
    service: String,
    /// The method.
    pub method: String,
    /// Its request.
    pub payload: Vec<u8>,
}

impl Asked {
    /// Decodes the request, when it is of `method` of our service.
    ///
    /// # Errors
    /// `Unimplemented`: it is of another; `InvalidArgument`: it cannot be decoded.
    pub fn decode<M: Message + Default>(&self, method: &str) -> model::Result<M> {
        if self.service != RUNTIME_SERVICE || self.method != method {
            return Err(Error::unimplemented(format_args!("/{}/{}", self.service, self.method)));
        }
        M::decode(self.payload.as_slice()).map_err(|error| Error::invalid(format_args!("{method}: {error}")))
    }
}

/// Calls that wait for a response, by stream; `None` once the connection is gone.
type Pending = Arc<Mutex<Option<HashMap<u32, oneshot::Sender<Response>>>>>;

/// A connection to one plugin. Dropping it closes the socket.
#[derive(Debug)]
pub struct Wire {
    frames: mpsc::Sender<Vec<u8>>,
    pending: Pending,
    next_stream: AtomicU32,
    closed: Arc<watch::Sender<bool>>,
    /// Ends the halves with the connection.
    _halves: JoinSet<()>,
}

/// Forgets a call whose caller left.
struct Waiting<'a>(&'a Pending, u32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(calls) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            calls.remove(&self.1);
        }
    }
}

impl Wire {
    /// A connection over `socket`, and what the plugin asks on it.
    pub fn over(socket: UnixStream) -> (Self, mpsc::Receiver<Asked>) {
        let (read, write) = socket.into_split();
        let (frames, queue) = mpsc::channel(QUEUE);
        let (ask, asked) = mpsc::channel(QUEUE);
        let closed = Arc::new(watch::Sender::new(false));
        let pending: Pending = Arc::new(Mutex::new(Some(HashMap::new())));
        let mut halves = JoinSet::new();
        halves.spawn(send(write, queue, Arc::clone(&closed)));
        halves.spawn(receive(read, ask, Arc::clone(&pending), Arc::clone(&closed)));
        (Self { frames, pending, next_stream: AtomicU32::new(1), closed, _halves: halves }, asked)
    }

    /// Ends the connection: calls that wait fail.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Calls `method` of the plugin; gives up after `limit`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<Req: Message, Rep: Message + Default>(
        &self,
        method: &'static str,
        limit: Duration,
        request: &Req,
    ) -> Result<Rep, CallError> {
        let exchange = self.exchange(method, limit, request.encode_to_vec());
        let response = tokio::time::timeout(limit, exchange).await;
        let response = response.map_err(|_| CallError::Deadline { method, limit })??;
        let payload = message::reply(response).map_err(CallError::Remote)?;
        Rep::decode(payload.as_slice())
            .map_err(|error| CallError::Decode { method, reason: error.to_string() })
    }

    async fn exchange(&self, method: &str, limit: Duration, payload: Vec<u8>) -> Result<Response, CallError> {
        let stream = self.next_stream.fetch_add(2, Ordering::Relaxed);
        let request = message::request(PLUGIN_SERVICE, method, "", Some(limit), payload);
        let mut bytes = Vec::new();
        message::append(stream, FrameType::Request, &request, &mut bytes).map_err(CallError::TooLong)?;
        let (reply, arrives) = oneshot::channel();
        match self.pending.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(calls) => drop(calls.insert(stream, reply)),
            None => return Err(CallError::Closed),
        }
        let _waiting = Waiting(&self.pending, stream);
        self.frames.send(mux::pack(mux::PLUGIN, &bytes)).await.map_err(|_| CallError::Closed)?;
        arrives.await.map_err(|_| CallError::Closed)
    }

    /// Answers what the plugin asked. A plugin that left, or does not read, gets none.
    pub fn answer(&self, asked: &Asked, outcome: model::Result<Vec<u8>>) {
        let mut bytes = Vec::new();
        let response = message::response(outcome);
        let written = message::append(asked.stream, FrameType::Response, &response, &mut bytes);
        if written.is_err() || self.frames.try_send(mux::pack(mux::RUNTIME, &bytes)).is_err() {
            self.close();
        }
    }
}

/// Returns once `closed` is told.
async fn told(closed: &watch::Sender<bool>) {
    let mut closed = closed.subscribe();
    // An error cannot be: the sender is there.
    let _told = closed.wait_for(|closed| *closed).await;
}

/// Writes whole frames until the connection ends.
async fn send(
    mut socket: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Vec<u8>>,
    closed: Arc<watch::Sender<bool>>,
) {
    let write = async {
        while let Some(bytes) = queue.recv().await {
            if socket.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    // Neither arm is resumed: the first to end closes the connection.
    tokio::select! {
        () = write => {}
        () = told(&closed) => {}
    }
    closed.send_replace(true);
    // The peer may be gone already.
    let _shut = socket.shutdown().await;
}

/// Hands out what comes until the connection ends or makes no sense.
async fn receive(
    mut socket: OwnedReadHalf,
    ask: mpsc::Sender<Asked>,
    pending: Pending,
    closed: Arc<watch::Sender<bool>>,
) {
    let mut inboxes = [Inbox::default(), Inbox::default()];
    let read = async {
        while let Ok((connection, bytes)) = mux::read(&mut socket).await {
            let inbox = match connection {
                mux::PLUGIN => &mut inboxes[0],
                mux::RUNTIME => &mut inboxes[1],
                // Nobody listens there, as in containerd.
                _ => continue,
            };
            inbox.push(&bytes);
            loop {
                match inbox.next() {
                    Ok(None) => break,
                    Ok(Some((header, payload)))
                        if take(connection, header, &payload, &ask, &pending).is_some() => {}
                    _ => return,
                }
            }
        }
    };
    // Neither arm is resumed.
    tokio::select! {
        () = read => {}
        () = told(&closed) => {}
    }
    pending.lock().unwrap_or_else(PoisonError::into_inner).take();
    closed.send_replace(true);
}

/// Hands out one message; `None` ends the connection.
fn take(
    connection: u32,
    header: Header,
    payload: &[u8],
    ask: &mpsc::Sender<Asked>,
    pending: &Pending,
) -> Option<()> {
    match (connection, header.kind) {
        (mux::PLUGIN, FrameType::Response) => {
            let response = Response::decode(payload).ok()?;
            let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(call) = pending.as_mut().and_then(|calls| calls.remove(&header.stream)) {
                // A caller that left in this very moment needs no answer.
                let _left = call.send(response);
            }
            Some(())
        }
        (mux::RUNTIME, FrameType::Request) => {
            let Request { service, method, payload, .. } = Request::decode(payload).ok()?;
            // Full: it asks faster than it can be served.
            ask.try_send(Asked { stream: header.stream, service, method, payload }).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
