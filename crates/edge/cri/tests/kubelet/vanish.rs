//! Clients of streams that vanish, that say nothing, or that come with what was not agreed.

use std::io::Read as _;
use std::net::TcpListener;
use std::time::Duration;

use api::runtime::v1;
use futures_util::{SinkExt as _, StreamExt as _};
use testkit::{needs, wait};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::client::{Kubelet, call};

/// How long anything that must come may take.
const HANG: Duration = Duration::from_secs(30);

/// A client at `url`.
pub async fn open(url: &str, protocol: &str) -> Result<WebSocketStream<TcpStream>, String> {
    let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    let mut request = url.replace("http://", "ws://").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    let opened = tokio_tungstenite::client_async(request, socket).await;
    opened.map(|(stream, _)| stream).map_err(|error| error.to_string())
}

/// The next bytes that come on `channel`; none at the connection's end.
pub async fn next(stream: &mut WebSocketStream<TcpStream>, channel: u8) -> Option<Vec<u8>> {
    loop {
        let message = tokio::time::timeout(HANG, stream.next()).await.expect("a message");
        match message {
            Some(Ok(Message::Binary(bytes))) if bytes.first() == Some(&channel) && bytes.len() > 1 => {
                return Some(bytes[1..].to_vec());
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}

fn exec_url(kubelet: &Kubelet, id: &str, script: &str) -> String {
    let request = v1::ExecRequest {
        container_id: id.into(),
        cmd: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        stdout: true,
        ..v1::ExecRequest::default()
    };
    call!(kubelet, exec, request).unwrap().url
}

/// Waits until no command line in the container has `part` in it, and the daemon has no more descriptors than before.
fn settles(kubelet: &Kubelet, id: &str, part: &str, descriptors: usize) {
    wait::eventually(HANG, "the end of what was left", || {
        let list = kubelet.exec(id, "ps -o args", 30).unwrap().stdout;
        (!String::from_utf8_lossy(&list).contains(part)).then_some(())
    });
    wait::eventually(HANG, "the daemon's descriptors", || {
        (kubelet.daemon.traces().descriptors <= descriptors).then_some(())
    });
    let io = kubelet.daemon.dir().join("state/io.containerd.grpc.v1.cri/containers").join(id).join("io");
    wait::eventually(HANG, "the FIFOs' end", || {
        std::fs::read_dir(&io).map_or(0, Iterator::count).eq(&0).then_some(())
    });
}

#[test]
fn a_command_whose_client_has_gone_is_hung_up_and_what_ignores_that_is_killed() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("exec");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    kubelet.exec(&id, "true", 30).unwrap();
    let before = kubelet.daemon.traces().descriptors;
    let scripts = [
        // Ends by the signal, and can say so; what it has left behind on purpose goes on.
        "trap 'echo hung > /hung; exit 0' HUP; setsid sleep 9000 & echo ready; while :; do sleep 0.05; done",
        // Does not hear it, nor do its children.
        "trap '' HUP TERM INT; sleep 6001 & echo ready; sleep 6002; sleep 6003",
        // Floods a client that is not there.
        "trap '' HUP PIPE; echo ready; exec cat /dev/zero",
    ];
    for script in scripts {
        let url = exec_url(&kubelet, &id, script);
        kubelet.run(async {
            let mut stream = open(&url, "v5.channel.k8s.io").await.unwrap();
            assert!(next(&mut stream, 1).await.unwrap().starts_with(b"ready\n"));
            // No farewell: the connection is cut.
            drop(stream);
        });
    }
    for part in ["sleep 600", "cat /dev/zero", "sleep 0.05"] {
        settles(&kubelet, &id, part, before);
    }
    let told = kubelet.exec(&id, "cat /hung; ps -o args", 30).unwrap().stdout;
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(told.starts_with("hung\n") && told.contains("sleep 9000"), "{told}");
    assert_eq!(kubelet.status(&id).state(), v1::ContainerState::ContainerRunning);
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_container_goes_on_whose_attached_client_has_gone() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("attach");
    let pod = kubelet.run_pod(&config).unwrap();
    let script = "while [ ! -e /go ]; do echo tick; sleep 0.05; done; exit 3";
    let id = kubelet.start(&pod, &config, kubelet.container("one", script));
    kubelet.exec(&id, "true", 30).unwrap();
    let before = kubelet.daemon.traces().descriptors;
    for _ in 0..3 {
        let request = v1::AttachRequest { container_id: id.clone(), stdout: true, ..Default::default() };
        let url = call!(kubelet, attach, request).unwrap().url;
        kubelet.run(async {
            let mut stream = open(&url, "v4.channel.k8s.io").await.unwrap();
            assert!(next(&mut stream, 1).await.unwrap().starts_with(b"tick\n"));
            drop(stream);
        });
    }
    settles(&kubelet, &id, "no such command", before);
    kubelet.exec(&id, "touch /go", 30).unwrap();
    assert_eq!(kubelet.ended(&id).exit_code, 3);
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_port_is_let_go_with_its_client_and_one_that_nobody_serves_is_told() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("ports");
    let pod = kubelet.run_pod(&config).unwrap();
    // The pod is on the host's network, and so is this case.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let url = |port: u16| {
        let request = v1::PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![port.into()] };
        call!(kubelet, port_forward, request).unwrap().url
    };
    let first = url(port);
    let client = kubelet.run(async {
        let mut stream = open(&first, "v4.channel.k8s.io").await.unwrap();
        assert_eq!(next(&mut stream, 0).await.unwrap(), port.to_le_bytes());
        stream.send(Message::binary(b"\0hello".to_vec())).await.unwrap();
        stream
    });
    let (mut accepted, _) = server.accept().unwrap();
    accepted.set_read_timeout(Some(HANG)).unwrap();
    let mut heard = [0; 5];
    accepted.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
    kubelet.run(async move { drop(client) });
    assert_eq!(accepted.read(&mut heard).unwrap(), 0, "the pod's end is closed");
    drop((accepted, server));
    let second = url(port);
    let told = kubelet.run(async {
        let mut stream = open(&second, "v4.channel.k8s.io").await.unwrap();
        assert_eq!(next(&mut stream, 1).await.unwrap(), port.to_le_bytes());
        next(&mut stream, 1).await.unwrap()
    });
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains(&format!("failed to connect to localhost:{port}")), "{told}");
    for wrong in [0, -1, 65536] {
        let request = v1::PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![wrong] };
        let error = call!(kubelet, port_forward, request).unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument, "{wrong}");
    }
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_connection_on_which_nothing_is_said_for_too_long_ends_with_its_command() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::with("[plugins.'io.containerd.grpc.v1.cri']\nstream_idle_timeout = '2s'");
    let config = kubelet.pod("idle");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    kubelet.exec(&id, "true", 30).unwrap();
    let before = kubelet.daemon.traces().descriptors;
    let (silent, busy) = (
        exec_url(&kubelet, &id, "exec sleep 5001"),
        // Longer than the limit in all, but never silent for as long.
        exec_url(&kubelet, &id, "for n in 1 2 3 4 5 6 7 8; do echo $n; sleep 0.5; done; echo done"),
    );
    kubelet.run(async {
        let mut silent = open(&silent, "v5.channel.k8s.io").await.unwrap();
        let mut busy = open(&busy, "v5.channel.k8s.io").await.unwrap();
        assert_eq!(next(&mut silent, 1).await, None, "the connection has ended");
        let mut last = Vec::new();
        while let Some(bytes) = next(&mut busy, 1).await {
            last = bytes;
        }
        assert!(last.ends_with(b"done\n"), "{}", String::from_utf8_lossy(&last));
    });
    settles(&kubelet, &id, "sleep 5001", before);
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_token_is_for_one_client_and_for_what_was_agreed() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("tokens");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    let url = exec_url(&kubelet, &id, "echo once >> /ran");
    let outcomes = kubelet.run(async {
        let all = (0..16).map(|_| async {
            let mut stream = open(&url, "v5.channel.k8s.io").await?;
            while next(&mut stream, 1).await.is_some() {}
            Ok::<(), String>(())
        });
        futures_util::future::join_all(all).await
    });
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert_eq!(kubelet.exec(&id, "cat /ran", 30).unwrap().stdout, b"once\n");
    // A token of an exec is none of an attach or of a port, whatever comes behind it.
    for (from, to) in [("/exec/", "/attach/"), ("/exec/", "/portforward/"), ("/exec/", "/exec/../exec/x/")] {
        let url = exec_url(&kubelet, &id, "echo twice >> /ran").replace(from, to);
        let refused = kubelet.run(open(&url, "v5.channel.k8s.io"));
        assert!(refused.is_err(), "{to}");
    }
    assert_eq!(kubelet.exec(&id, "cat /ran", 30).unwrap().stdout, b"once\n");
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}
