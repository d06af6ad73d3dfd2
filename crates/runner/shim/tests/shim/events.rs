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
pub struct Events(Arc<Mutex<Vec<(String, api::Any)>>>);

impl Events {
    /// Listens at `path` until the process ends.
    pub fn listen(path: &Path) -> Self {
        let events = Self::default();
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
            self.0.lock().unwrap().push((envelope.topic, envelope.event?));
            let mut out = Vec::new();
            message::append(header.stream, FrameType::Response, &message::response(Ok(vec![])), &mut out)
                .ok()?;
            socket.write_all(&out).ok()?;
        }
    }

    pub fn topics(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(topic, _)| topic.clone()).collect()
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
        let events = self.0.lock().unwrap();
        events
            .iter()
            .filter(|(found, _)| found == topic)
            .map(|(_, event)| M::decode(event.value.as_slice()).unwrap())
            .collect()
    }
}
