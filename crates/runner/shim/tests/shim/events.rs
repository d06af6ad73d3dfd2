//! The daemon's side of events: a ttrpc server that takes them down.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use api::Message;
use api::containerd::services::events::ttrpc::v1::ForwardRequest;
use api::ttrpc::Request;
use shim::ttrpc::frame::{FrameType, HEADER_LEN, Header};
use shim::ttrpc::message;

/// Events as they came: topic and namespace.
#[derive(Clone, Default)]
pub struct Events {
    taken: Arc<Mutex<Vec<(String, api::Any)>>>,
    refusals: Arc<Mutex<usize>>,
}

impl Events {
    /// Listens at `path` until the process ends.
    pub fn listen(path: &Path) -> Self {
        Self::listen_refusing(path, 0)
    }

    /// Listens at `path` and refuses the first events, `refusals` times.
    pub fn listen_refusing(path: &Path, refusals: usize) -> Self {
        let events = Self { taken: Arc::default(), refusals: Arc::new(Mutex::new(refusals)) };
        let listener = UnixListener::bind(path).unwrap();
        let taken = events.clone();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let taken = taken.clone();
                thread::spawn(move || taken.serve(socket));
            }
        });
        events
    }

    fn serve(&self, mut socket: UnixStream) -> Option<()> {
        loop {
            let mut head = [0; HEADER_LEN];
            socket.read_exact(&mut head).ok()?;
            let header = Header::decode(&head).ok()?;
            let mut payload = vec![0; header.length];
            socket.read_exact(&mut payload).ok()?;
            let request = Request::decode(payload.as_slice()).ok()?;
            let forward = ForwardRequest::decode(request.payload.as_slice()).ok()?;
            let envelope = forward.envelope?;
            let refuse = {
                let mut left = self.refusals.lock().unwrap();
                let refuse = *left > 0;
                *left = left.saturating_sub(1);
                refuse
            };
            let answer = if refuse {
                Err(spec::error::Error::unavailable("not now"))
            } else {
                self.taken.lock().unwrap().push((envelope.topic, envelope.event?));
                Ok(vec![])
            };
            let mut out = Vec::new();
            message::append(header.stream, FrameType::Response, &message::response(answer), &mut out).ok()?;
            socket.write_all(&out).ok()?;
        }
    }

    pub fn topics(&self) -> Vec<String> {
        self.taken.lock().unwrap().iter().map(|(topic, _)| topic.clone()).collect()
    }

    /// Waits until `count` events have come; returns their topics.
    pub fn wait_for(&self, count: usize) -> Vec<String> {
        testkit::wait::eventually(Duration::from_secs(20), "events", || {
            let topics = self.topics();
            (topics.len() >= count).then_some(topics)
        })
    }

    /// The payloads of `topic`.
    pub fn payloads<M: Message + Default>(&self, topic: &str) -> Vec<M> {
        let events = self.taken.lock().unwrap();
        events
            .iter()
            .filter(|(found, _)| found == topic)
            .map(|(_, event)| M::decode(event.value.as_slice()).unwrap())
            .collect()
    }
}
