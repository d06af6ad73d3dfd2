//! A blocking ttrpc client, one call at a time: `ctr shim`, the shim's `start` action and tests.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use api::Message;
use api::ttrpc::Response;
use spec::error::{Error, HasKind, Kind};

use super::frame::{FrameError, FrameType, HEADER_LEN, Header};
use super::message;

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens, or nobody may.
    #[error("cannot connect to {address}")]
    Connect {
        /// The socket's path.
        address: String,
        /// What connect(2) said.
        source: io::Error,
    },
    /// The connection broke or the deadline passed while a frame was on its way.
    #[error("ttrpc: connection lost")]
    Wire(#[source] io::Error),
    /// The other end sent what is not a frame, or was asked to take one that is too long.
    #[error("ttrpc: bad frame")]
    Frame(#[source] FrameError),
    /// The reply is not the message that the method answers with.
    #[error("ttrpc: cannot decode the reply of {method}: {reason}")]
    Decode {
        /// The method called.
        method: String,
        /// What the decoder said.
        reason: String,
    },
    /// No reply within the deadline.
    #[error("ttrpc: no reply in time: deadline exceeded")]
    Deadline,
    /// The other end answered with an error.
    #[error("{}", .0.text())]
    Remote(Error),
}

impl HasKind for CallError {
    fn kind(&self) -> Kind {
        match self {
            Self::Connect { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Kind::NotFound,
                io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
                _ => Kind::Unavailable,
            },
            Self::Wire(_) => Kind::Unavailable,
            Self::Frame(error) => error.kind(),
            Self::Decode { .. } => Kind::Internal,
            Self::Deadline => Kind::DeadlineExceeded,
            Self::Remote(error) => error.kind(),
        }
    }
}

/// A connection to one ttrpc server.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    namespace: String,
    timeout: Duration,
    next_stream: u32,
}

impl Client {
    /// Connects to the socket at `path`; `unix://` before it is allowed. Every call gives up after `timeout`.
    ///
    /// # Errors
    /// See [`CallError::Connect`].
    pub fn connect(path: &Path, namespace: &str, timeout: Duration) -> Result<Self, CallError> {
        let path = path.strip_prefix("unix:").map_or_else(|_| path.into(), |rest| Path::new("/").join(rest));
        let socket = UnixStream::connect(&path)
            .map_err(|source| CallError::Connect { address: path.display().to_string(), source })?;
        Ok(Self { socket, namespace: namespace.into(), timeout, next_stream: 1 })
    }

    /// Calls `service`/`method` and waits for the reply.
    ///
    /// # Errors
    /// [`CallError::Remote`] is the other end's own answer; after any other error the connection is of no more use.
    pub fn call<Req: Message, Rep: Message + Default>(
        &mut self,
        service: &str,
        method: &str,
        request: &Req,
    ) -> Result<Rep, CallError> {
        let stream = self.send(service, method, request)?;
        let response = self.receive(stream, spec::time::deadline(self.timeout))?;
        let payload = message::reply(response).map_err(CallError::Remote)?;
        Rep::decode(payload.as_slice())
            .map_err(|error| CallError::Decode { method: method.into(), reason: error.to_string() })
    }

    /// Sends a request without waiting for its reply; returns its stream for [`Client::receive`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn send<Req: Message>(
        &mut self,
        service: &str,
        method: &str,
        request: &Req,
    ) -> Result<u32, CallError> {
        let stream = self.next_stream;
        self.next_stream = self.next_stream.wrapping_add(2);
        let request =
            message::request(service, method, &self.namespace, Some(self.timeout), request.encode_to_vec());
        let mut out = Vec::new();
        message::append(stream, FrameType::Request, &request, &mut out).map_err(CallError::Frame)?;
        self.socket.set_write_timeout(Some(self.timeout)).map_err(CallError::Wire)?;
        self.socket.write_all(&out).map_err(CallError::Wire)?;
        Ok(stream)
    }

    /// Waits until `deadline` for the response on `stream`, dropping those of other streams.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn receive(&mut self, stream: u32, deadline: Instant) -> Result<Response, CallError> {
        loop {
            let mut head = [0; HEADER_LEN];
            self.read_exact(&mut head, deadline)?;
            let header = Header::decode(&head).map_err(CallError::Frame)?;
            let mut payload = vec![0; header.length];
            self.read_exact(&mut payload, deadline)?;
            if header.stream == stream && header.kind == FrameType::Response {
                return Response::decode(payload.as_slice()).map_err(|error| CallError::Decode {
                    method: "response".into(),
                    reason: error.to_string(),
                });
            }
        }
    }

    /// Fills `buffer`, giving up at `deadline` however slowly bytes trickle in.
    fn read_exact(&mut self, mut buffer: &mut [u8], deadline: Instant) -> Result<(), CallError> {
        while !buffer.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(CallError::Deadline);
            }
            self.socket.set_read_timeout(Some(left)).map_err(CallError::Wire)?;
            match self.socket.read(buffer) {
                Ok(0) => return Err(CallError::Wire(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(CallError::Deadline),
                Err(error) => return Err(CallError::Wire(error)),
            }
        }
        Ok(())
    }
}
