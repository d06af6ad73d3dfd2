//! Registration and synchronisation against a peer on the other end of a socket pair.

use super::*;
use crate::nri::mux::{self, Inbox};
use crate::nri::wire::RUNTIME_SERVICE;
use api::ttrpc::Request;
use shim::ttrpc::frame::FrameType;
use shim::ttrpc::message;
use tokio::io::AsyncWriteExt as _;

struct Peer(UnixStream, Inbox);

impl Peer {
    async fn next(&mut self) -> (u32, String, Vec<u8>) {
        loop {
            if let Some((header, payload)) = self.1.next().unwrap() {
                if header.kind == FrameType::Request {
                    let request = Request::decode(payload.as_slice()).unwrap();
                    return (header.stream, request.method, request.payload);
                }
                continue;
            }
            let (_, bytes) = mux::read(&mut self.0).await.unwrap();
            self.1.push(&bytes);
        }
    }

    async fn register(&mut self, name: &str, index: &str) {
        let wanted = pb::RegisterPluginRequest {
            plugin_name: name.into(),
            plugin_idx: index.into(),
            nri_version: String::new(),
        };
        let request = message::request(RUNTIME_SERVICE, "RegisterPlugin", "", None, wanted.encode_to_vec());
        let mut bytes = Vec::new();
        message::append(1, FrameType::Request, &request, &mut bytes).unwrap();
        self.0.write_all(&mux::pack(mux::RUNTIME, &bytes)).await.unwrap();
    }

    async fn answer(&mut self, stream: u32, outcome: Result<Vec<u8>>) {
        let mut bytes = Vec::new();
        message::append(stream, FrameType::Response, &message::response(outcome), &mut bytes).unwrap();
        self.0.write_all(&mux::pack(mux::PLUGIN, &bytes)).await.unwrap();
    }
}

fn terms(millis: u64) -> Terms {
    let limit = Duration::from_millis(millis);
    Terms { registration: limit, request: limit, version: "2" }
}

fn pair() -> (UnixStream, Peer) {
    let (near, far) = UnixStream::pair().unwrap();
    (near, Peer(far, Inbox::default()))
}

async fn registered(events: i32) -> (Result<Plugin>, Peer) {
    let (near, mut peer) = pair();
    let plugin = async {
        peer.register("a", "10").await;
        let (stream, method, _) = peer.next().await;
        assert_eq!(method, "Configure");
        peer.answer(stream, Ok(pb::ConfigureResponse { events }.encode_to_vec())).await;
    };
    let terms = terms(20_000);
    let (outcome, ()) = tokio::join!(Plugin::register(near, None, &terms), plugin);
    (outcome.map(|(plugin, _asked)| plugin), peer)
}

#[tokio::test]
async fn a_plugin_says_who_it_is_and_what_it_hears() {
    let (plugin, _peer) = registered(1 << (Event::CreateContainer as i32 - 1)).await;
    let plugin = plugin.unwrap();
    assert_eq!(plugin.name(), "10-a");
    assert!(plugin.hears(Event::CreateContainer) && !plugin.hears(Event::StopContainer));
    let (plugin, _peer) = registered(0).await;
    assert!(plugin.unwrap().hears(Event::ValidateContainerAdjustment));
    assert!(registered(1 << 20).await.0.is_err());
}

#[tokio::test]
async fn bad_names_and_silence_are_turned_away() {
    for (name, index) in [("", "10"), ("a b", "10"), ("a", "1"), ("a", "1x")] {
        let (near, mut peer) = pair();
        peer.register(name, index).await;
        let error = Plugin::register(near, None, &terms(20_000)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{name} {index}");
    }
    let (near, _peer) = pair();
    let error = Plugin::register(near, None, &terms(20)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::DeadlineExceeded);
}

#[tokio::test]
async fn a_synchronisation_that_is_too_long_comes_in_pieces() {
    let (plugin, mut peer) = registered(0).await;
    let plugin = plugin.unwrap();
    // Eight times a megabyte: no message takes them all.
    let container = |number: usize| pb::Container {
        id: number.to_string(),
        status_message: "x".repeat(400_000),
        ..pb::Container::default()
    };
    let containers: Vec<_> = (0..20).map(container).collect();
    let hear = async {
        let (mut seen, mut rounds) = (Vec::new(), 0);
        loop {
            let (stream, method, payload) = peer.next().await;
            assert_eq!(method, "Synchronize");
            let request = pb::SynchronizeRequest::decode(payload.as_slice()).unwrap();
            seen.extend(request.containers.into_iter().map(|container| container.id));
            rounds += 1;
            let reply = pb::SynchronizeResponse { more: request.more, ..Default::default() };
            peer.answer(stream, Ok(reply.encode_to_vec())).await;
            if !request.more {
                return (seen, rounds);
            }
        }
    };
    let (outcome, (seen, rounds)) = tokio::join!(plugin.synchronize(Vec::new(), containers), hear);
    assert!(outcome.unwrap().is_empty());
    assert_eq!(seen, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(rounds > 1);
}

#[tokio::test]
async fn an_older_plugin_hears_of_changes_of_state() {
    let (plugin, mut peer) = registered(0).await;
    let plugin = plugin.unwrap();
    let pod = pb::PodSandbox { id: "p".into(), ..pb::PodSandbox::default() };
    let request = pb::StopPodSandboxRequest { pod: Some(pod.clone()) };
    let old = || pb::StateChangeEvent { pod: Some(pod), ..pb::StateChangeEvent::default() };
    let hear = async {
        let (stream, method, _) = peer.next().await;
        assert_eq!(method, "StopPodSandbox");
        peer.answer(stream, Err(Error::unimplemented("no such method"))).await;
        let (stream, method, payload) = peer.next().await;
        assert_eq!(method, "StateChange");
        peer.answer(stream, Ok(Vec::new())).await;
        pb::StateChangeEvent::decode(payload.as_slice()).unwrap()
    };
    let (outcome, change) =
        tokio::join!(plugin.tell(Event::StopPodSandbox, "StopPodSandbox", &request, old), hear);
    outcome.unwrap();
    assert_eq!((change.event(), change.pod.unwrap().id.as_str()), (Event::StopPodSandbox, "p"));
}
