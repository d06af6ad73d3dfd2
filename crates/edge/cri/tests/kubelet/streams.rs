//! Streams over WebSocket in each of its protocols, against the daemon's own streaming server.

use api::runtime::v1;
use futures_util::{SinkExt as _, StreamExt as _};
use testkit::{needs, wait};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::client::{Kubelet, call};

/// Opens `url` with `protocol`.
async fn open(url: &str, protocol: &str) -> Result<WebSocketStream<TcpStream>, String> {
    let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    let mut request = url.replace("http://", "ws://").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    let opened = tokio_tungstenite::client_async(request, socket).await;
    opened.map(|(stream, _)| stream).map_err(|error| error.to_string())
}

/// Opens `url` with `protocol` and answers every message until the end, after sending `messages`.
async fn talk(url: &str, protocol: &str, messages: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, String> {
    let mut stream = open(url, protocol).await?;
    for message in messages {
        stream.send(Message::binary(message)).await.unwrap();
    }
    let mut received = Vec::new();
    while let Some(Ok(message)) = stream.next().await {
        if let Message::Binary(bytes) = message {
            received.push(bytes.to_vec());
        }
    }
    Ok(received)
}

/// Everything that came on one channel.
fn channel(messages: &[Vec<u8>], number: u8) -> Vec<u8> {
    messages
        .iter()
        .filter(|message| message.first() == Some(&number))
        .flat_map(|message| message[1..].to_vec())
        .collect()
}

#[test]
fn an_exec_has_its_streams_and_its_exit_code_and_its_token_is_good_once() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("exec");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    let request = v1::ExecRequest {
        container_id: id.clone(),
        cmd: ["/bin/sh", "-c", "cat; echo bad >&2; exit 4"].map(str::to_owned).to_vec(),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let url = call!(kubelet, exec, request).unwrap().url;
    let typed = vec![b"\0typed".to_vec(), vec![255, 0]];
    let messages = kubelet.run(talk(&url, "v5.channel.k8s.io", typed)).unwrap();
    assert_eq!(channel(&messages, 1), b"typed");
    assert_eq!(channel(&messages, 2), b"bad\n");
    let status: serde_json::Value = serde_json::from_slice(&channel(&messages, 3)).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "4");
    let again = kubelet.run(talk(&url, "v5.channel.k8s.io", Vec::new())).unwrap_err();
    assert!(again.contains("404"), "{again}");
    let guessed = url.replace(url.rsplit('/').next().unwrap(), "AAAAAAAA");
    assert!(kubelet.run(talk(&guessed, "v5.channel.k8s.io", Vec::new())).unwrap_err().contains("404"));
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn what_a_commands_streams_go_through_is_gone_whatever_ended_it() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("pipes");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    let dir = kubelet.daemon.dir().join("state/io.containerd.grpc.v1.cri/containers").join(&id).join("io");
    let left = || std::fs::read_dir(&dir).map(|entries| entries.count()).unwrap_or(0);
    let begin = |words: &[&str]| {
        let request = v1::ExecRequest {
            container_id: id.clone(),
            cmd: words.iter().map(|&word| word.to_owned()).collect(),
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
        };
        call!(kubelet, exec, request).unwrap().url
    };
    let patience = std::time::Duration::from_secs(20);
    let settled = |what: &str| wait::eventually(patience, what, || (left() == 0).then_some(()));
    assert_eq!(left(), 0);
    let url = begin(&["sleep", "1000"]);
    let stream = kubelet.run(open(&url, "v5.channel.k8s.io")).unwrap();
    wait::eventually(patience, "the streams", || (left() == 1).then_some(()));
    drop(stream);
    settled("the end of a client that leaves");
    for (words, expected) in [(["true", ""], true), (["/no/such/program", ""], false)] {
        let messages = kubelet.run(talk(&begin(&words), "v5.channel.k8s.io", Vec::new())).unwrap();
        let status: serde_json::Value = serde_json::from_slice(&channel(&messages, 3)).unwrap();
        assert_eq!(status["status"] == "Success", expected, "{status}");
        settled(words[0]);
    }
    // Those of ExecSync have no names.
    assert_eq!(kubelet.exec(&id, "ls /proc/self/fd >/dev/null", 30).unwrap().exit_code, 0);
    kubelet.exec(&id, "exec sleep 1000", 1).unwrap_err();
    assert_eq!(left(), 0);
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn an_attached_client_hears_what_the_container_says() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("attach");
    let pod = kubelet.run_pod(&config).unwrap();
    let mut wanted = kubelet.container("one", "read line; echo heard $line");
    wanted.stdin = true;
    wanted.stdin_once = true;
    let id = kubelet.start(&pod, &config, wanted);
    let request =
        v1::AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: false, tty: false };
    let url = call!(kubelet, attach, request).unwrap().url;
    let messages = kubelet.run(talk(&url, "v4.channel.k8s.io", vec![b"\0you\n".to_vec()])).unwrap();
    assert_eq!(channel(&messages, 1), b"heard you\n");
    assert_eq!(kubelet.ended(&id).exit_code, 0);
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_client_that_has_said_all_leaves_a_container_that_goes_on() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("detach");
    let pod = kubelet.run_pod(&config).unwrap();
    // On a terminal the input is not closed even where the container asked for it, so that one can come back.
    for (name, tty, stdin_once) in [("pipe", false, false), ("terminal", true, true)] {
        let mut wanted = kubelet.container(name, "while read line; do echo heard $line; done; exit 3");
        (wanted.stdin, wanted.stdin_once, wanted.tty) = (true, stdin_once, tty);
        let id = kubelet.start(&pod, &config, wanted);
        for _ in 0..2 {
            let request =
                v1::AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: false, tty };
            let url = call!(kubelet, attach, request).unwrap().url;
            // Nothing else ends this conversation.
            let typed = vec![b"\0you\n".to_vec(), vec![255, 0]];
            kubelet.run(talk(&url, "v5.channel.k8s.io", typed)).unwrap();
            assert_eq!(kubelet.status(&id).state(), v1::ContainerState::ContainerRunning, "{name}");
        }
        let log = kubelet.logs().join(format!("{name}.log"));
        testkit::wait::eventually(std::time::Duration::from_secs(20), "both lines are heard", || {
            let log = std::fs::read_to_string(&log).unwrap();
            (log.matches("heard you").count() == 2).then_some(())
        });
    }
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn streams_that_make_no_sense_are_refused() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("refuse");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    let request = |stdout, stderr, tty| v1::ExecRequest {
        container_id: id.clone(),
        cmd: vec!["true".into()],
        stdin: false,
        stdout,
        stderr,
        tty,
    };
    assert_eq!(
        call!(kubelet, exec, request(true, true, true)).unwrap_err().code(),
        tonic::Code::InvalidArgument
    );
    assert_eq!(
        call!(kubelet, exec, request(false, false, false)).unwrap_err().code(),
        tonic::Code::InvalidArgument
    );
    let url = call!(kubelet, exec, request(true, false, false)).unwrap().url;
    assert!(kubelet.run(talk(&url, "v9.channel.k8s.io", Vec::new())).unwrap_err().contains("403"));
    kubelet.remove_pod(&pod);
}

/// Everything that comes on each channel, by its number, of an exec that is fed `typed`; the text forms are base64.
async fn every(url: &str, protocol: &str, typed: &[u8]) -> Vec<(u8, Vec<u8>)> {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut request = url.replace("http://", "ws://").into_client_request().unwrap();
    if !protocol.is_empty() {
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    }
    let (mut stream, answer) = tokio_tungstenite::client_async(request, socket).await.unwrap();
    let agreed = answer.headers().get("sec-websocket-protocol").map(|value| value.to_str().unwrap());
    assert_eq!(agreed.unwrap_or_default(), protocol);
    let text = protocol.contains("base64");
    let message = match text {
        true => Message::text(format!("0{}", BASE64_STANDARD.encode(typed))),
        false => Message::binary([b"\0", typed].concat()),
    };
    stream.send(message).await.unwrap();
    let mut heard = Vec::new();
    while let Some(Ok(message)) = stream.next().await {
        match message {
            Message::Binary(bytes) if !text => heard.push((bytes[0], bytes[1..].to_vec())),
            Message::Text(bytes) if text => {
                let channel = bytes.as_bytes()[0] - b'0';
                heard.push((channel, BASE64_STANDARD.decode(&bytes.as_bytes()[1..]).unwrap()));
            }
            // Go's clients take anything else for a failure.
            Message::Close(frame) => assert_eq!(frame.unwrap().code, CloseCode::Normal),
            other => panic!("{protocol}: {other:?}"),
        }
    }
    heard
}

#[test]
fn an_exec_over_every_protocol_of_websocket_has_its_streams_and_its_outcome() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("protocols");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    for protocol in [
        "v5.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "channel.k8s.io",
        "base64.channel.k8s.io",
        "",
    ] {
        let request = v1::ExecRequest {
            container_id: id.clone(),
            cmd: ["/bin/sh", "-c", "read line; echo heard $line; echo bad >&2; exit 4"]
                .map(str::to_owned)
                .to_vec(),
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
        };
        let url = call!(kubelet, exec, request).unwrap().url;
        let heard = kubelet.run(every(&url, protocol, b"you\n"));
        let on = |channel: u8| -> Vec<u8> {
            heard.iter().filter(|(of, _)| *of == channel).flat_map(|(_, bytes)| bytes.clone()).collect()
        };
        assert_eq!((on(1), on(2)), (b"heard you\n".to_vec(), b"bad\n".to_vec()), "{protocol:?}");
        let outcome = String::from_utf8(on(3)).unwrap();
        match protocol.starts_with('v') {
            true => {
                let status: serde_json::Value = serde_json::from_str(&outcome).unwrap();
                assert_eq!(status["details"]["causes"][0]["message"], "4", "{protocol}");
            }
            false => assert!(outcome.contains("exit code 4"), "{protocol:?}: {outcome}"),
        }
    }
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn idle_clients_without_a_token_keep_out_nobody_and_are_disconnected() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("idle");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    let url = || {
        let request = v1::ExecRequest {
            container_id: id.clone(),
            cmd: vec!["echo".into(), "here".into()],
            stdout: true,
            ..v1::ExecRequest::default()
        };
        call!(kubelet, exec, request).unwrap().url
    };
    let address = url().strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    let before = kubelet.daemon.traces().descriptors;
    // As many as sessions may run at once, half of them with the beginning of a request.
    let mut idle = Vec::new();
    for number in 0..4096 {
        let mut socket = std::net::TcpStream::connect(&address).unwrap();
        if number % 2 == 0 {
            // It may be disconnected already.
            let _gone = std::io::Write::write_all(&mut socket, b"GET /exec/");
        }
        idle.push(socket);
    }
    let messages = kubelet.run(talk(&url(), "v5.channel.k8s.io", Vec::new())).unwrap();
    assert_eq!(channel(&messages, 1), b"here\n");
    assert!(kubelet.daemon.traces().descriptors < before + 200, "idle clients are few");
    // The daemon ends all of them, without a byte from us.
    for mut socket in idle {
        socket.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        let end = std::io::Read::read(&mut socket, &mut [0; 256]);
        let reset = end.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
        assert!(reset || end.is_ok(), "{end:?}");
    }
    // A wrong token ends its connection too.
    let mut wrong = std::net::TcpStream::connect(&address).unwrap();
    std::io::Write::write_all(&mut wrong, b"GET /exec/AAAAAAAA HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut wrong, &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}
