//! A plugin in small, on the other end of a socket pair.

use super::*;
use api::nri::pkg::api::v1alpha1 as pb;

const LIMIT: Duration = Duration::from_secs(20);

/// Reads the next ttrpc message of the other end.
async fn next(far: &mut UnixStream) -> (u32, Header, Vec<u8>) {
    let mut inbox = Inbox::default();
    loop {
        let (connection, bytes) = mux::read(far).await.unwrap();
        inbox.push(&bytes);
        if let Some((header, payload)) = inbox.next().unwrap() {
            return (connection, header, payload);
        }
    }
}

async fn put<M: Message>(far: &mut UnixStream, connection: u32, stream: u32, kind: FrameType, message: &M) {
    let mut bytes = Vec::new();
    message::append(stream, kind, message, &mut bytes).unwrap();
    far.write_all(&mux::pack(connection, &bytes)).await.unwrap();
}

async fn configure(wire: &Wire, limit: Duration) -> Result<pb::ConfigureResponse, CallError> {
    wire.call("Configure", limit, &pb::ConfigureRequest { config: "x".repeat(9000), ..Default::default() })
        .await
}

#[tokio::test]
async fn calls_go_both_ways_over_one_socket() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let (wire, mut asked) = Wire::over(near);
    let plugin = async {
        let (connection, header, payload) = next(&mut far).await;
        assert_eq!(connection, mux::PLUGIN);
        let request = Request::decode(payload.as_slice()).unwrap();
        assert_eq!((request.service.as_str(), request.method.as_str()), (PLUGIN_SERVICE, "Configure"));
        let wanted = pb::RegisterPluginRequest { plugin_name: "p".into(), ..Default::default() };
        let register = message::request(RUNTIME_SERVICE, "RegisterPlugin", "", None, wanted.encode_to_vec());
        put(&mut far, mux::RUNTIME, 1, FrameType::Request, &register).await;
        let (connection, answered, _) = next(&mut far).await;
        assert_eq!((connection, answered.stream, answered.kind), (mux::RUNTIME, 1, FrameType::Response));
        let reply = pb::ConfigureResponse { events: 5 }.encode_to_vec();
        put(&mut far, mux::PLUGIN, header.stream, FrameType::Response, &message::response(Ok(reply))).await;
    };
    let serve = async {
        let asked = asked.recv().await.unwrap();
        assert!(asked.decode::<pb::Empty>("UpdateContainers").is_err());
        assert_eq!(asked.decode::<pb::RegisterPluginRequest>("RegisterPlugin").unwrap().plugin_name, "p");
        wire.answer(&asked, Ok(Vec::new()));
    };
    let (reply, (), ()) = tokio::join!(configure(&wire, LIMIT), plugin, serve);
    assert_eq!(reply.unwrap().events, 5);
}

#[tokio::test]
async fn a_silent_plugin_costs_its_deadline_and_one_that_ends_ends_its_calls() {
    let (near, far) = UnixStream::pair().unwrap();
    let (wire, _asked) = Wire::over(near);
    let error = configure(&wire, Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(error, CallError::Deadline { .. }) && error.is_fatal());
    drop(far);
    assert!(matches!(configure(&wire, LIMIT).await.unwrap_err(), CallError::Closed));
    assert!(wire.is_closed());
}

#[tokio::test]
async fn nonsense_and_floods_close_the_connection() {
    let nonsense = mux::pack(mux::PLUGIN, &[0xff; 32]);
    let mut flood = Vec::new();
    let request = message::request(RUNTIME_SERVICE, "UpdateContainers", "", None, Vec::new());
    for _ in 0..=QUEUE {
        let mut bytes = Vec::new();
        message::append(1, FrameType::Request, &request, &mut bytes).unwrap();
        flood.extend(mux::pack(mux::RUNTIME, &bytes));
    }
    for bytes in [nonsense, flood] {
        let (near, mut far) = UnixStream::pair().unwrap();
        let (wire, _asked) = Wire::over(near);
        far.write_all(&bytes).await.unwrap();
        tokio::time::timeout(LIMIT, told(&wire.closed)).await.unwrap();
        assert!(matches!(configure(&wire, LIMIT).await.unwrap_err(), CallError::Closed));
    }
}
