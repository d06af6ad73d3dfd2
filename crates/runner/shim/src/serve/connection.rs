//! Clients: frames in, frames out. A client that breaks the protocol or does not read its replies is dropped.
//!
//! Invariant: a client costs at most one frame of input and [`MAX_UNREAD`] of output, whatever it does.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use api::Message;
use api::ttrpc::Request;
use rustix::event::epoll::EventFlags;
use spec::error::{Error, Kind};

use super::{MAX_CONNECTIONS, Poll, ReplyTo, Shim, Token};
use crate::log;
use crate::service::{self, Answer};
use crate::ttrpc::frame::{self, FrameType, HEADER_LEN};
use crate::ttrpc::message;

/// The most replies that a client may leave unread.
const MAX_UNREAD: usize = 8 << 20;

/// One client.
#[derive(Debug)]
pub struct Connection {
    socket: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Whether the poll watches for room too.
    congested: bool,
}

impl Connection {
    /// Whether every reply has been taken.
    pub fn is_flushed(&self) -> bool {
        self.output.is_empty()
    }

    /// Reads what has come; `false` when the client is done.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        match self.socket.read(buffer) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.input.extend_from_slice(&buffer[..count]);
                Ok(true)
            }
            Err(error) if is_transient(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Writes what the client takes.
    fn flush(&mut self, poll: &Poll, id: u32) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(count) => {
                    self.output.drain(..count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.output.is_empty() {
            self.output = Vec::new();
        }
        let congested = !self.output.is_empty();
        if congested != self.congested {
            self.congested = congested;
            let flags = if congested { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            poll.modify(&self.socket, Token::Connection(id), flags);
        }
        Ok(())
    }

    /// Takes the first whole frame out of the input.
    fn take_frame(&mut self) -> Result<Option<(u32, FrameType, Vec<u8>)>, frame::FrameError> {
        let Some((header, end)) = frame::split(&self.input)? else { return Ok(None) };
        let payload = self.input[HEADER_LEN..end].to_vec();
        self.input.drain(..end);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        Ok(Some((header.stream, header.kind, payload)))
    }
}

/// The moment that is `nanoseconds` away; none for numbers that are no time, and for those that no clock reaches.
fn moment(nanoseconds: i64) -> Option<Instant> {
    let within = u64::try_from(nanoseconds).ok().filter(|within| *within > 0)?;
    Instant::now().checked_add(Duration::from_nanos(within))
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl Shim {
    pub(super) fn accept(&mut self) {
        let socket = match self.listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if is_transient(&error) => return,
            Err(error) => return log::warn(format_args!("accept: {error}")),
        };
        if let Err(error) = self.admit(socket) {
            log::warn(format_args!("client refused: {}", error.text()));
        }
    }

    /// Lets a client in that runs as our own user.
    fn admit(&mut self, socket: UnixStream) -> Result<(), Error> {
        let peer = rustix::net::sockopt::socket_peercred(&socket)
            .map_err(|errno| Error::internal(format!("getsockopt(SO_PEERCRED): {errno}")))?;
        if peer.uid != rustix::process::geteuid() {
            return Err(Error::worded(Kind::PermissionDenied, format_args!("uid {}", peer.uid)));
        }
        if self.connections.len() >= MAX_CONNECTIONS {
            return Err(Error::worded(Kind::ResourceExhausted, "too many connections"));
        }
        socket.set_nonblocking(true).map_err(|error| Error::internal(format!("fcntl: {error}")))?;
        let id = self.new_id();
        self.poll.add(&socket, Token::Connection(id), EventFlags::IN)?;
        self.connections
            .insert(id, Connection { socket, input: Vec::new(), output: Vec::new(), congested: false });
        // A client usually means that the daemon is back: no need to wait longer before telling it what happened.
        self.publisher.retry(&self.poll);
        Ok(())
    }

    pub(super) fn serve_connection(&mut self, id: u32, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.flush(id);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            match connection.fill(&mut self.buffer) {
                Ok(true) => self.take_frames(id),
                // A closed connection still has its last requests answered, for whoever only half closed it.
                Ok(false) | Err(_) => self.drop_connection(id),
            }
        }
    }

    fn take_frames(&mut self, id: u32) {
        while let Some(connection) = self.connections.get_mut(&id) {
            match connection.take_frame() {
                Ok(Some((stream, FrameType::Request, payload))) => {
                    self.take_request(ReplyTo { connection: id, stream, until: None }, &payload);
                }
                // No method of ours streams; a client that sends data has been told so.
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => {
                    log::warn(format_args!("client dropped: {error}"));
                    return self.drop_connection(id);
                }
            }
        }
    }

    fn take_request(&mut self, reply: ReplyTo, payload: &[u8]) {
        let result = match Request::decode(payload) {
            Ok(request) => match service::method(&request.service, &request.method) {
                Ok(method) => {
                    let reply = ReplyTo { until: moment(request.timeout_nano), ..reply };
                    match self.request(reply, method, request.payload) {
                        Answer::Now(result) => result,
                        Answer::Later => return,
                    }
                }
                Err(error) => Err(error),
            },
            Err(error) => Err(Error::invalid(format_args!("request: {error}"))),
        };
        self.answer(reply, result);
    }

    /// Sends a reply, if its client is still there.
    pub(crate) fn answer(&mut self, reply: ReplyTo, result: Result<Vec<u8>, Error>) {
        let Some(connection) = self.connections.get_mut(&reply.connection) else { return };
        let response = message::response(result);
        let output = &mut connection.output;
        if let Err(error) = message::append(reply.stream, FrameType::Response, &response, output) {
            let response = message::response(Err(error.into()));
            // An error text always fits.
            let _ = message::append(reply.stream, FrameType::Response, &response, output);
        }
        if output.len() > MAX_UNREAD {
            log::warn(format_args!("client dropped: it does not read its replies"));
            return self.drop_connection(reply.connection);
        }
        self.flush(reply.connection);
    }

    fn flush(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.flush(&self.poll, id).is_err() {
            self.drop_connection(id);
        }
    }

    /// Forgets a client and what it waits for; verbs under way go on.
    fn drop_connection(&mut self, id: u32) {
        self.connections.remove(&id);
        for container in self.containers.values_mut() {
            for (_, process) in container.processes_mut() {
                process.waits.retain(|wait| wait.connection != id);
            }
        }
    }
}
