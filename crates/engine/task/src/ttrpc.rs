//! The daemon's end of a connection to a shim: many calls at once over one socket.
//!
//! Two tasks own the socket's halves: one writes whole frames from a bounded queue, so a caller that leaves never cuts
//! a frame in two; the other hands each response to the call that waits for it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::Message;
use api::ttrpc::Response;
use shim::ttrpc::frame::{FrameError, FrameType, HEADER_LEN, Header};
use shim::ttrpc::message;
use spec::{Error, HasKind, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

/// How many frames wait for a slow shim before callers wait too.
const QUEUE: usize = 16;

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens, or nobody may.
    #[error("cannot connect to the shim at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What connect(2) said.
        source: io::Error,
    },
    /// The shim ended, or was made to by nonsense on the wire.
    #[error("ttrpc: closed: unavailable")]
    Closed,
    /// The request is longer than a frame may be.
    #[error("ttrpc: request too long")]
    TooLong(#[source] FrameError),
    /// No reply in time.
    #[error("the shim did not answer {method} within {limit:?}: deadline exceeded")]
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
    /// The shim answered with an error.
    #[error("{}", .0.text())]
    Remote(Error),
}

impl HasKind for CallError {
    fn kind(&self) -> Kind {
        match self {
            Self::Connect { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Kind::NotFound,
                _ => Kind::Unavailable,
            },
            Self::Closed => Kind::Unavailable,
            Self::TooLong(error) => error.kind(),
            Self::Deadline { .. } => Kind::DeadlineExceeded,
            Self::Decode { .. } => Kind::Internal,
            Self::Remote(error) => error.kind(),
        }
    }
}

/// Calls that wait for a response, by stream; `None` once the connection is gone.
type Pending = Arc<Mutex<Option<HashMap<u32, oneshot::Sender<Response>>>>>;

/// A connection to one shim. Dropping it closes the socket.
#[derive(Debug)]
pub struct Client {
    frames: mpsc::Sender<Vec<u8>>,
    pending: Pending,
    next_stream: AtomicU32,
    closed: watch::Receiver<bool>,
}

/// Forgets a call whose caller left.
struct Waiting<'a> {
    pending: &'a Pending,
    stream: u32,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(calls) = self.pending.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            calls.remove(&self.stream);
        }
    }
}

impl Client {
    /// Connects to the shim at `path`.
    ///
    /// # Errors
    /// See [`CallError::Connect`].
    pub async fn connect(path: &Path) -> Result<Self, CallError> {
        let socket = UnixStream::connect(path)
            .await
            .map_err(|source| CallError::Connect { path: path.into(), source })?;
        Ok(Self::over(socket))
    }

    fn over(socket: UnixStream) -> Self {
        let (read, write) = socket.into_split();
        let (frames, queue) = mpsc::channel(QUEUE);
        let (gone, closed) = watch::channel(false);
        let pending: Pending = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(send(write, queue, closed.clone()));
        tokio::spawn(receive(read, Arc::clone(&pending), gone, frames.downgrade()));
        Self { frames, pending, next_stream: AtomicU32::new(1), closed }
    }

    /// Returns once the connection is gone.
    pub async fn closed(&self) {
        let mut closed = self.closed.clone();
        // An error means that the reader ended without a word, which is the same.
        let _gone = closed.wait_for(|closed| *closed).await;
    }

    /// Calls `service`/`method` in `namespace`; gives up after `limit`, if there is one.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<Req: Message, Rep: Message + Default>(
        &self,
        service: &str,
        method: &'static str,
        namespace: &str,
        limit: Option<Duration>,
        request: &Req,
    ) -> Result<Rep, CallError> {
        let exchange = self.exchange(service, method, namespace, limit, request.encode_to_vec());
        let response = match limit {
            None => exchange.await?,
            Some(limit) => tokio::time::timeout(limit, exchange)
                .await
                .map_err(|_| CallError::Deadline { method, limit })??,
        };
        let payload = message::reply(response).map_err(CallError::Remote)?;
        Rep::decode(payload.as_slice())
            .map_err(|error| CallError::Decode { method, reason: error.to_string() })
    }

    async fn exchange(
        &self,
        service: &str,
        method: &str,
        namespace: &str,
        limit: Option<Duration>,
        payload: Vec<u8>,
    ) -> Result<Response, CallError> {
        let stream = self.next_stream.fetch_add(2, Ordering::Relaxed);
        let request = message::request(service, method, namespace, limit, payload);
        let mut frame = Vec::new();
        message::append(stream, FrameType::Request, &request, &mut frame).map_err(CallError::TooLong)?;
        let (reply, arrives) = oneshot::channel();
        match self.pending.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(calls) => drop(calls.insert(stream, reply)),
            None => return Err(CallError::Closed),
        }
        let _waiting = Waiting { pending: &self.pending, stream };
        self.frames.send(frame).await.map_err(|_| CallError::Closed)?;
        arrives.await.map_err(|_| CallError::Closed)
    }
}

/// Writes whole frames until the client is dropped or the shim is gone.
async fn send(
    mut socket: OwnedWriteHalf,
    mut frames: mpsc::Receiver<Vec<u8>>,
    mut closed: watch::Receiver<bool>,
) {
    let write = async {
        while let Some(frame) = frames.recv().await {
            if socket.write_all(&frame).await.is_err() {
                break;
            }
        }
    };
    // Neither arm is resumed: the first to end closes the connection.
    tokio::select! {
        () = write => {}
        _ = closed.wait_for(|closed| *closed) => {}
    }
    // Shutting down the write half makes the shim, and so the reader, end.
    let _ = socket.shutdown().await;
}

/// Hands each response to its call until the shim is gone, the wire makes no sense, or the client was dropped.
async fn receive(
    mut socket: OwnedReadHalf,
    pending: Pending,
    gone: watch::Sender<bool>,
    client: mpsc::WeakSender<Vec<u8>>,
) {
    while let Ok((header, payload)) = frame(&mut socket).await {
        if client.strong_count() == 0 {
            break;
        }
        if header.kind != FrameType::Response {
            continue;
        }
        let Ok(response) = Response::decode(payload.as_slice()) else { break };
        let call = pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .and_then(|calls| calls.remove(&header.stream));
        if let Some(call) = call {
            // A caller that left in this very moment needs no answer.
            let _left = call.send(response);
        }
    }
    pending.lock().unwrap_or_else(PoisonError::into_inner).take();
    let _nobody_listens = gone.send(true);
}

async fn frame(socket: &mut OwnedReadHalf) -> io::Result<(Header, Vec<u8>)> {
    let mut head = [0; HEADER_LEN];
    socket.read_exact(&mut head).await?;
    let header = Header::decode(&head).map_err(io::Error::other)?;
    let mut payload = vec![0; header.length];
    socket.read_exact(&mut payload).await?;
    Ok((header, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::containerd::task::v3::{ConnectRequest, ConnectResponse};
    use shim::ttrpc::message::response;

    const LIMIT: Option<Duration> = Some(Duration::from_secs(20));

    async fn answer(socket: &mut UnixStream, stream: u32, pid: u32) {
        let reply = ConnectResponse { task_pid: pid, ..ConnectResponse::default() };
        let mut out = Vec::new();
        message::append(stream, FrameType::Response, &response(Ok(reply.encode_to_vec())), &mut out).unwrap();
        socket.write_all(&out).await.unwrap();
    }

    async fn request(socket: &mut UnixStream) -> u32 {
        let mut head = [0; HEADER_LEN];
        socket.read_exact(&mut head).await.unwrap();
        let header = Header::decode(&head).unwrap();
        socket.read_exact(&mut vec![0; header.length]).await.unwrap();
        header.stream
    }

    async fn call(client: &Client, limit: Option<Duration>) -> Result<ConnectResponse, CallError> {
        client.call("s", "Connect", "ns", limit, &ConnectRequest { id: "a".into() }).await
    }

    #[tokio::test]
    async fn answers_find_their_calls_in_any_order() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let client = Client::over(near);
        let server = async {
            let first = request(&mut far).await;
            let second = request(&mut far).await;
            answer(&mut far, second, 2).await;
            answer(&mut far, first, 1).await;
        };
        let (one, two, ()) = tokio::join!(call(&client, LIMIT), call(&client, LIMIT), server);
        assert_eq!((one.unwrap().task_pid, two.unwrap().task_pid), (1, 2));
    }

    #[tokio::test]
    async fn a_silent_shim_costs_its_deadline_and_no_more() {
        let (near, _far) = UnixStream::pair().unwrap();
        let client = Client::over(near);
        let error = call(&client, Some(Duration::from_millis(20))).await.unwrap_err();
        assert_eq!(error.kind(), Kind::DeadlineExceeded);
        assert_eq!(client.pending.lock().unwrap().as_ref().unwrap().len(), 0);
    }

    #[tokio::test]
    async fn a_shim_that_ends_ends_every_call() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let client = Client::over(near);
        let server = async {
            request(&mut far).await;
            drop(far);
        };
        let (error, ()) = tokio::join!(call(&client, LIMIT), server);
        assert!(matches!(error.unwrap_err(), CallError::Closed));
        client.closed().await;
        assert!(matches!(call(&client, LIMIT).await.unwrap_err(), CallError::Closed));
    }

    #[tokio::test]
    async fn nonsense_on_the_wire_closes_the_connection() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let client = Client::over(near);
        far.write_all(&[0xff; 64]).await.unwrap();
        assert!(matches!(call(&client, LIMIT).await.unwrap_err(), CallError::Closed));
    }
}
