//! An NRI plugin in small, on the daemon's real socket: blocking, in a thread of its own.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use api::Message;
use api::nri::pkg::api::v1alpha1 as pb;
use api::ttrpc::{Request, Response};
use shim::ttrpc::frame::{self, FrameType, HEADER_LEN};
use shim::ttrpc::message;
use spec::Error;

use crate::client::Kubelet;

const LIMIT: Duration = Duration::from_secs(20);

/// What a plugin answers to a method: bytes, an error, or nothing at all.
pub type Answer = Option<Result<Vec<u8>, Error>>;

/// A method that was called, and its request.
type Heard = (String, Vec<u8>);

/// A plugin that is registered and synchronized.
pub struct Plugin {
    socket: UnixStream,
    seen: Arc<Mutex<Vec<Heard>>>,
    replies: Receiver<Response>,
    thread: Option<JoinHandle<()>>,
}

impl Plugin {
    /// Connects, registers as `index`-`name`, hears everything but judges nothing, and answers by `answer`.
    pub fn connect(
        kubelet: &Kubelet,
        index: &str,
        name: &str,
        mut answer: impl FnMut(&str, &[u8]) -> Answer + Send + 'static,
    ) -> Self {
        let path = kubelet.daemon.dir().join("nri.sock");
        let socket = testkit::wait::eventually(LIMIT, "the NRI socket", || UnixStream::connect(&path).ok());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (hand, replies) = channel();
        let (mut reading, noting) = (socket.try_clone().unwrap(), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            serve(&mut reading, &hand, |method, payload| {
                let answer = match method {
                    "Configure" => {
                        // All but the last, which is for validators.
                        Some(Ok(pb::ConfigureResponse { events: (1 << 13) - 1 }.encode_to_vec()))
                    }
                    _ => answer(method, payload),
                };
                noting.lock().unwrap().push((method.to_owned(), payload.to_owned()));
                answer
            });
        });
        let plugin = Self { socket, seen, replies, thread: Some(thread) };
        let register = pb::RegisterPluginRequest {
            plugin_name: name.into(),
            plugin_idx: index.into(),
            nri_version: "v0.12.0".into(),
        };
        plugin.call("RegisterPlugin", &register);
        testkit::wait::eventually(LIMIT, "the synchronisation", || {
            plugin.methods().iter().any(|method| method == "Synchronize").then_some(())
        });
        plugin
    }

    /// Calls the runtime.
    pub fn call(&self, method: &str, request: &impl Message) -> Vec<u8> {
        let request =
            message::request("nri.pkg.api.v1alpha1.Runtime", method, "", None, request.encode_to_vec());
        put(&mut self.socket.try_clone().unwrap(), 2, 1, FrameType::Request, &request);
        message::reply(self.replies.recv_timeout(LIMIT).unwrap()).unwrap()
    }

    /// The methods that were called, in their order.
    pub fn methods(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(method, _)| method.clone()).collect()
    }

    /// The first request of `method`.
    pub fn request<M: Message + Default>(&self, method: &str) -> M {
        let seen = self.seen.lock().unwrap();
        let (_, payload) = seen.iter().find(|(name, _)| name == method).unwrap();
        M::decode(payload.as_slice()).unwrap()
    }

    /// Waits until the daemon has ended the connection.
    pub fn dropped(mut self) {
        let thread = self.thread.take().unwrap();
        testkit::wait::eventually(LIMIT, "the plugin's end", || thread.is_finished().then_some(()));
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _gone = self.socket.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn put(socket: &mut UnixStream, connection: u32, stream: u32, kind: FrameType, message: &impl Message) {
    let mut bytes = Vec::new();
    message::append(stream, kind, message, &mut bytes).unwrap();
    let mut packed = connection.to_be_bytes().to_vec();
    packed.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
    packed.extend_from_slice(&bytes);
    // The daemon may have ended the connection.
    let _gone = socket.write_all(&packed);
}

/// Answers what comes on the first connection and hands over what comes on the second.
fn serve(socket: &mut UnixStream, hand: &Sender<Response>, mut answer: impl FnMut(&str, &[u8]) -> Answer) {
    let mut inboxes = [Vec::new(), Vec::new()];
    let mut header = [0; 8];
    while socket.read_exact(&mut header).is_ok() {
        let [c0, c1, c2, c3, l0, l1, l2, l3] = header;
        let connection = u32::from_be_bytes([c0, c1, c2, c3]);
        let mut bytes = vec![0; u32::from_be_bytes([l0, l1, l2, l3]) as usize];
        if socket.read_exact(&mut bytes).is_err() {
            return;
        }
        let inbox = &mut inboxes[connection as usize - 1];
        inbox.extend_from_slice(&bytes);
        while let Some((header, end)) = frame::split(inbox).unwrap() {
            let payload: Vec<u8> = inbox.drain(..end).skip(HEADER_LEN).collect();
            if connection == 2 {
                let _left = hand.send(Response::decode(payload.as_slice()).unwrap());
                continue;
            }
            let request = Request::decode(payload.as_slice()).unwrap();
            assert_eq!(request.service, "nri.pkg.api.v1alpha1.Plugin");
            if let Some(outcome) = answer(&request.method, &request.payload) {
                put(socket, 1, header.stream, FrameType::Response, &message::response(outcome));
            }
        }
    }
}
