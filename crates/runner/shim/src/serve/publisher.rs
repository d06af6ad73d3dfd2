//! Events on their way to the daemon: one at a time, in order, kept while the daemon is away.
//!
//! ```text
//! Idle --event--> Connected, one request out --reply--> next event, or Idle (connection kept)
//!   ^                 | lost, refused, or no reply in time
//!   +---- timer ---- Backoff (doubling, up to 30 s; a client that connects cuts it short)
//! ```
//!
//! Invariant: an event leaves the queue when the daemon has answered for it, or when [`MAX_EVENTS`] newer ones came.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::Message;
use api::containerd::services::events::ttrpc::v1::ForwardRequest;
use api::containerd::types::Envelope;
use api::ttrpc::Response;
use rustix::event::epoll::EventFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use spec::error::Error;

use super::{Poll, Token};
use crate::log;
use crate::ttrpc::frame::{self, FrameType, HEADER_LEN};
use crate::ttrpc::message;

/// The most events that are kept for a daemon that is away.
const MAX_EVENTS: usize = 2048;
/// How long the daemon has for one event.
const REPLY_LIMIT: Duration = Duration::from_secs(5);
/// The first and the longest pause between attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// How often the daemon may refuse one event before it is dropped: what it cannot take now it never will.
const MAX_REFUSALS: u32 = 5;

/// The way to the daemon.
#[derive(Debug)]
enum Link {
    /// No connection.
    Down,
    /// A connection; with `sent`, the first event of the queue is under way.
    Up { socket: UnixStream, input: Vec<u8>, output: Vec<u8>, congested: bool, sent: Option<(u32, Instant)> },
    /// No connection before this.
    Backoff(Instant),
}

/// The queue of events.
#[derive(Debug)]
pub struct Publisher {
    address: Option<PathBuf>,
    namespace: String,
    queue: VecDeque<Vec<u8>>,
    link: Link,
    pause: Duration,
    refusals: u32,
    next_stream: u32,
}

impl Publisher {
    /// Publishes to the socket at `address`; without one events go nowhere.
    pub fn new(address: Option<PathBuf>, namespace: &str) -> Self {
        Self {
            address,
            namespace: namespace.into(),
            queue: VecDeque::new(),
            link: Link::Down,
            pause: BACKOFF.0,
            refusals: 0,
            next_stream: 1,
        }
    }

    /// Whether the daemon has every event.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.link {
            Link::Backoff(until) if !self.queue.is_empty() => Some(*until),
            Link::Up { sent: Some((_, deadline)), .. } => Some(*deadline),
            _ => None,
        }
    }

    /// Queues an event and sends it if nothing is before it.
    pub fn publish(&mut self, poll: &Poll, envelope: Envelope) {
        if self.address.is_none() {
            return;
        }
        if self.queue.len() >= MAX_EVENTS {
            // The first may be under way; the second is the oldest that is not.
            self.queue.remove(1);
            log::error(format_args!("event dropped: the daemon has not taken the last {MAX_EVENTS}"));
        }
        let request = ForwardRequest { envelope: Some(envelope) };
        self.queue.push_back(request.encode_to_vec());
        self.send_next(poll);
    }

    /// Tries again at once.
    pub fn retry(&mut self, poll: &Poll) {
        if matches!(self.link, Link::Backoff(_)) {
            self.link = Link::Down;
            self.send_next(poll);
        }
    }

    /// Does what [`Publisher::deadline`] announced.
    pub fn expire(&mut self, poll: &Poll, now: Instant) {
        match &self.link {
            Link::Backoff(until) if *until <= now => {
                self.link = Link::Down;
                self.send_next(poll);
            }
            Link::Up { sent: Some((_, deadline)), .. } if *deadline <= now => {
                self.fail(poll, "no reply in time")
            }
            _ => {}
        }
    }

    /// Sends the first event unless one is under way.
    fn send_next(&mut self, poll: &Poll) {
        let Some(event) = self.queue.front() else { return };
        if matches!(self.link, Link::Down) {
            match self.address.as_deref().map(|address| open(poll, address)) {
                Some(Ok(socket)) => {
                    self.link = Link::Up {
                        socket,
                        input: Vec::new(),
                        output: Vec::new(),
                        congested: false,
                        sent: None,
                    };
                }
                Some(Err(error)) => return self.fail(poll, error.text()),
                None => return,
            }
        }
        let Link::Up { sent, output, .. } = &mut self.link else { return };
        if sent.is_some() {
            return;
        }
        let service = "containerd.services.events.ttrpc.v1.Events";
        let request = message::request(service, "Forward", &self.namespace, Some(REPLY_LIMIT), event.clone());
        if message::append(self.next_stream, FrameType::Request, &request, output).is_err() {
            // Longer than any frame: it can never be sent.
            self.queue.pop_front();
            return self.send_next(poll);
        }
        *sent = Some((self.next_stream, Instant::now() + REPLY_LIMIT));
        self.next_stream = self.next_stream.wrapping_add(2);
        self.flush(poll);
    }

    fn flush(&mut self, poll: &Poll) {
        let Link::Up { socket, output, congested, .. } = &mut self.link else { return };
        while !output.is_empty() {
            match socket.write(output) {
                Ok(count) => {
                    output.drain(..count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return self.fail(poll, &error.to_string()),
            }
        }
        if output.is_empty() {
            *output = Vec::new();
        }
        // The poll watches for room only while there is none.
        if *congested == output.is_empty() {
            *congested = !*congested;
            let flags = if *congested { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            poll.modify(socket, Token::Publisher, flags);
        }
    }

    /// The connection has something to say, or room.
    pub fn ready(&mut self, poll: &Poll, buffer: &mut [u8]) {
        self.flush(poll);
        let Link::Up { socket, input, .. } = &mut self.link else { return };
        match socket.read(buffer) {
            Ok(0) => return self.lost(poll),
            Ok(count) => input.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => return self.lost(poll),
        }
        self.take_replies(poll);
    }

    fn take_replies(&mut self, poll: &Poll) {
        while let Link::Up { input, sent, .. } = &mut self.link {
            let (stream, payload) = match frame::split(input) {
                Ok(Some((header, end))) => {
                    let payload = input[HEADER_LEN..end].to_vec();
                    input.drain(..end);
                    (header.stream, payload)
                }
                Ok(None) => {
                    if input.is_empty() {
                        *input = Vec::new();
                    }
                    return;
                }
                Err(error) => return self.fail(poll, &error.to_string()),
            };
            if sent.is_none_or(|(expected, _)| expected != stream) {
                continue;
            }
            *sent = None;
            let reply = Response::decode(payload.as_slice())
                .map_err(|error| Error::internal(error.to_string()))
                .and_then(message::reply);
            match reply {
                Ok(_) => self.taken(),
                Err(error) if self.may_refuse_again() => return self.fail(poll, error.text()),
                Err(error) => {
                    log::error(format_args!("event dropped after {MAX_REFUSALS} refusals: {}", error.text()));
                    self.taken();
                }
            }
            self.send_next(poll);
        }
    }

    fn taken(&mut self) {
        self.queue.pop_front();
        self.refusals = 0;
        self.pause = BACKOFF.0;
    }

    /// Counts a refusal; the next attempt comes after a pause, as the daemon may be shutting down.
    fn may_refuse_again(&mut self) -> bool {
        self.refusals += 1;
        self.refusals < MAX_REFUSALS
    }

    /// The daemon has closed the connection; only a queue makes that worth a new one.
    fn lost(&mut self, poll: &Poll) {
        if self.queue.is_empty() {
            self.disconnect(poll);
            self.link = Link::Down;
        } else {
            self.fail(poll, "connection closed");
        }
    }

    fn fail(&mut self, poll: &Poll, why: &str) {
        log::warn(format_args!("forward event: {why}"));
        self.disconnect(poll);
        self.link = Link::Backoff(spec::time::deadline(self.pause));
        self.pause = (self.pause * 2).min(BACKOFF.1);
    }

    fn disconnect(&mut self, poll: &Poll) {
        if let Link::Up { socket, .. } = &self.link {
            poll.remove(socket);
        }
    }
}

/// Connects without waiting: a full backlog is as bad as nobody there.
fn open(poll: &Poll, address: &std::path::Path) -> Result<UnixStream, Error> {
    let failed =
        |errno: rustix::io::Errno| Error::unavailable(format_args!("{}: {errno}", address.display()));
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
    let name = SocketAddrUnix::new(address).map_err(failed)?;
    connect(&socket, &name).map_err(failed)?;
    poll.add(&socket, Token::Publisher, EventFlags::IN)?;
    Ok(UnixStream::from(socket))
}
