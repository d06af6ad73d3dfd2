//! The serving process: one thread, one epoll, everything else hangs off it.
//!
//! Invariant: between two waits nothing blocks on a client, a container, a daemon or a disk that is not ours. What
//! depends on a process that a container can stop is a job with a deadline.
//! Invariant: an idle shim does not wake up: every timeout belongs to something that is under way.

mod attachments;
mod connection;
mod exits;
mod jobs;
mod memory;
mod poll;
mod publisher;
mod setup;
mod streams;

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant, SystemTime};

use api::containerd::types::Envelope;
use api::{Message, encode_any};
use runtime::cgroup::OomWatch;
use rustix::event::epoll;
use rustix::process::Signal;
use spec::error::Error;

use crate::args::Args;
use crate::log;
use crate::process::{Container, Exit, timestamp};
use attachments::Attachments;
use connection::Connection;
pub use jobs::Doing;
use jobs::Job;
pub use poll::{Poll, Token};
use publisher::Publisher;
pub use setup::take_standard_files;
use streams::Stream;

/// How long a closing shim tries to get rid of its last events.
const CLOSING_LIMIT: Duration = Duration::from_secs(3);
/// How often a shim that no container has come to looks whether its bundle is still there.
const EXPECTING: Duration = Duration::from_secs(5);
/// The most clients at a time.
const MAX_CONNECTIONS: usize = 128;
/// The buffer that all copies and connections share.
const BUFFER_BYTES: usize = 16 << 10;

/// Where a reply goes: a connection and a stream on it. The connection may be gone by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    connection: u32,
    stream: u32,
    /// When the client stops waiting for it, if it has said.
    pub until: Option<Instant>,
}

/// The serving process.
#[derive(Debug)]
pub struct Shim {
    pub(crate) namespace: String,
    pub(crate) containers: BTreeMap<String, Container>,
    poll: Poll,
    listener: UnixListener,
    signals: sys::event::Signals,
    connections: BTreeMap<u32, Connection>,
    streams: BTreeMap<u32, Stream>,
    attachments: Attachments,
    oom_watches: BTreeMap<u32, (String, OomWatch)>,
    jobs: BTreeMap<u32, Job>,
    /// Ends of processes that a job under way may turn out to have started.
    early: Vec<(u32, Exit)>,
    publisher: Publisher,
    next_id: u32,
    closing: Option<Instant>,
    /// When to look whether the first container may still come; nothing once one has.
    expecting: Option<Instant>,
    buffer: Vec<u8>,
}

/// Serves until it is told to shut down.
///
/// # Errors
/// The process cannot be set up: no socket, no signals.
pub fn run(args: &Args) -> Result<(), Error> {
    let (mut shim, path) = setup::prepare(args)?;
    let result = shim.serve();
    if let Some(path) = path {
        // A shim that is killed leaves it behind; the delete action finds it then.
        let _ = std::fs::remove_file(path);
    }
    result
}

impl Shim {
    fn serve(&mut self) -> Result<(), Error> {
        let mut events = Vec::with_capacity(16);
        while !self.is_over() {
            self.poll.wait(&mut events, self.next_deadline())?;
            for event in events.drain(..) {
                self.handle(Token::unpack(event.data.u64()), event.flags);
            }
            self.expire(Instant::now());
        }
        Ok(())
    }

    fn handle(&mut self, token: Token, flags: epoll::EventFlags) {
        match token {
            Token::Listener => self.accept(),
            Token::Signals => self.read_signals(),
            Token::Connection(id) => self.serve_connection(id, flags),
            Token::Stream(id) => self.advance_stream(id),
            Token::Attachment(id) => self.attachments.ready(&self.poll, id, flags),
            Token::Oom(id) => self.read_oom(id),
            Token::Publisher => self.publisher.ready(&self.poll, &mut self.buffer),
            Token::Job(id) => self.advance_job(id),
        }
    }

    /// A number that no live thing of this process has.
    pub(crate) fn new_id(&mut self) -> u32 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// Asks the process to end once its last words are out.
    pub(crate) fn close(&mut self) {
        self.closing = Some(Instant::now() + CLOSING_LIMIT);
    }

    fn is_over(&self) -> bool {
        let Some(deadline) = self.closing else { return false };
        let said = self.publisher.is_idle()
            && self.attachments.is_empty()
            && self.connections.values().all(Connection::is_flushed);
        said || Instant::now() >= deadline
    }

    fn next_deadline(&self) -> Option<Instant> {
        let jobs = self.jobs.values().map(Job::deadline);
        let containers = self.containers.values().flat_map(|container| {
            let processes = std::iter::once(&container.init).chain(container.execs.values());
            let deletes = processes.filter_map(|process| process.deleting.map(|parked| parked.deadline));
            deletes.chain(container.held_exit.map(|(_, deadline)| deadline))
        });
        jobs.chain(containers)
            .chain(self.publisher.deadline())
            .chain(self.closing)
            .chain(self.expecting)
            .min()
    }

    /// Does what is due.
    fn expire(&mut self, now: Instant) {
        self.expire_jobs(now);
        self.expire_exits(now);
        self.expire_deletes(now);
        self.publisher.expire(&self.poll, now);
        self.expire_expectation(now);
    }

    /// Ends a shim whose daemon died before it heard of it: the next daemon found a bundle without an address, cleaned
    /// it up and removed it, and so nobody will ever call. The bundle is the working directory.
    fn expire_expectation(&mut self, now: Instant) {
        if self.expecting.is_none_or(|due| due > now) {
            return;
        }
        self.expecting = self.containers.is_empty().then(|| now + EXPECTING);
        if self.expecting.is_some() && std::env::current_dir().is_err() {
            log::warn(format_args!("the bundle is gone and no container has come"));
            self.expecting = None;
            self.close();
        }
    }

    /// Publishes `event` under `topic`, in the order of these calls.
    pub(crate) fn publish<M: Message + prost::Name>(&mut self, topic: &str, event: &M) {
        let envelope = Envelope {
            timestamp: Some(timestamp(SystemTime::now())),
            namespace: self.namespace.clone(),
            topic: topic.into(),
            event: Some(encode_any(event)),
        };
        self.publisher.publish(&self.poll, envelope);
    }

    fn read_signals(&mut self) {
        loop {
            match self.signals.next() {
                Ok(Some(signal)) if signal == Signal::CHILD.as_raw() => self.reap(),
                Ok(Some(signal)) if [Signal::TERM, Signal::INT].map(Signal::as_raw).contains(&signal) => {
                    self.close();
                }
                // Signals that would end the process and that nobody means so, such as a request for a stack dump.
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => return log::error(format_args!("{error}")),
            }
        }
    }
}
