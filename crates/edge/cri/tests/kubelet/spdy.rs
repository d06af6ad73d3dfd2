//! Streams over SPDY/3.1, as kubectl and crictl speak it by default.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use api::runtime::v1;
use flate2::{Compress, Compression, FlushCompress};
use testkit::needs;

use crate::client::{Kubelet, call};

/// How long anything that must come may take.
const HANG: Duration = Duration::from_secs(30);

/// The end of a stream.
const FIN: u8 = 1;

/// A client of SPDY, no more than these cases need: it opens streams, sends bytes and hears everything to the end.
#[derive(Debug)]
struct Client {
    socket: TcpStream,
    deflate: Compress,
}

impl Client {
    /// Upgrades a connection to `url`; the answer's head when it is refused.
    fn open(url: &str, protocols: &[&str]) -> Result<(Self, String), String> {
        let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(HANG)).unwrap();
        let asked: String =
            protocols.iter().map(|name| format!("X-Stream-Protocol-Version: {name}\r\n")).collect();
        let request = format!(
            "POST /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n{asked}\r\n"
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        if !head.starts_with("http/1.1 101 ") {
            return Err(head);
        }
        // Without the dictionary, which a client may leave out.
        Ok((Self { socket, deflate: Compress::new(Compression::fast(), true) }, head))
    }

    fn stream(&mut self, id: u32, headers: &[(&str, &str)]) {
        let mut plain = u32::try_from(headers.len()).unwrap().to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            plain.extend(text.as_bytes());
        }
        let mut block = Vec::with_capacity(plain.len() + 64);
        self.deflate.compress_vec(&plain, &mut block, FlushCompress::Sync).unwrap();
        let payload = [&id.to_be_bytes()[..], &[0; 6], &block].concat();
        self.frame([0x80, 3, 0, 1], 0, &payload);
    }

    fn send(&mut self, id: u32, bytes: &[u8], flags: u8) {
        self.frame(id.to_be_bytes(), flags, bytes);
    }

    fn frame(&mut self, first: [u8; 4], flags: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&first[..], &[flags], &length[1..]].concat();
        self.socket.write_all(&[&head[..], payload].concat()).unwrap();
    }

    /// Everything that comes on each stream, up to the end of the connection or of all the streams `until`.
    fn hear(&mut self, until: &[u32]) -> Vec<(u32, Vec<u8>)> {
        let (mut heard, mut open) = (Vec::new(), until.to_vec());
        let mut head = [0; 8];
        while !open.is_empty() && self.socket.read_exact(&mut head).is_ok() {
            let length = u32::from_be_bytes([0, head[5], head[6], head[7]]);
            let mut payload = vec![0; length as usize];
            self.socket.read_exact(&mut payload).unwrap();
            if head[0] & 0x80 == 0 {
                let id = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
                heard.push((id, payload));
                open.retain(|one| *one != id || head[4] & FIN == 0);
            }
        }
        heard
    }
}

/// What came on one stream.
fn on(heard: &[(u32, Vec<u8>)], id: u32) -> Vec<u8> {
    heard.iter().filter(|(of, _)| *of == id).flat_map(|(_, bytes)| bytes.clone()).collect()
}

fn exec_url(kubelet: &Kubelet, id: &str, script: &str, tty: bool) -> String {
    let request = v1::ExecRequest {
        container_id: id.into(),
        cmd: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        stdin: true,
        stdout: true,
        stderr: !tty,
        tty,
    };
    call!(kubelet, exec, request).unwrap().url
}

#[test]
fn an_exec_over_every_version_has_its_streams_and_its_outcome() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("spdy");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    for version in ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"] {
        let url = exec_url(&kubelet, &id, "cat; echo bad >&2; exit 4", false);
        let (mut client, head) = Client::open(&url, &["v9.channel.k8s.io", version]).unwrap();
        assert!(head.contains(&format!("x-stream-protocol-version: {version}\r\n")), "{head}");
        for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
            client.stream(stream, &[("streamtype", kind)]);
        }
        client.send(3, b"typed", FIN);
        let heard = client.hear(&[1]);
        assert_eq!(on(&heard, 5), b"typed", "{version}");
        assert_eq!(on(&heard, 7), b"bad\n", "{version}");
        let outcome = String::from_utf8(on(&heard, 1)).unwrap();
        match version {
            "v4.channel.k8s.io" => {
                let status: serde_json::Value = serde_json::from_str(&outcome).unwrap();
                assert_eq!(status["details"]["causes"][0]["message"], "4");
            }
            _ => assert!(outcome.contains("exit code 4"), "{version}: {outcome}"),
        }
        assert!(Client::open(&url, &[version]).unwrap_err().starts_with("http/1.1 404 "), "a token used");
    }
    for (protocols, code) in [(&["v9.channel.k8s.io"][..], "403"), (&[], "400")] {
        let url = exec_url(&kubelet, &id, "true", false);
        let refused = Client::open(&url, protocols).unwrap_err();
        assert!(refused.starts_with(&format!("http/1.1 {code} ")), "{refused}");
    }
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_terminal_over_spdy_has_the_size_that_its_client_tells() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("terminal");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    let script = "while [ \"$(stty size)\" != '33 77' ]; do sleep 0.05; done; stty size; read line; exit 0";
    let url = exec_url(&kubelet, &id, script, true);
    let (mut client, _) = Client::open(&url, &["v4.channel.k8s.io"]).unwrap();
    for (stream, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "resize")] {
        client.stream(stream, &[("streamtype", kind)]);
    }
    // Sizes that are none are passed over.
    client.send(7, b"{\"Width\":-1}{{", 0);
    client.send(7, b"\n{\"Width\":77,\"Height\":33}\n", 0);
    client.send(3, b"\n", 0);
    let heard = client.hear(&[1]);
    let shown = String::from_utf8(on(&heard, 5)).unwrap();
    assert!(shown.contains("33 77"), "{shown:?}");
    let status: serde_json::Value = serde_json::from_slice(&on(&heard, 1)).unwrap();
    assert_eq!(status["status"], "Success");
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn ports_over_spdy_are_forwarded_side_by_side_and_one_that_fails_ends_alone() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("ports");
    let pod = kubelet.run_pod(&config).unwrap();
    // The pod is on the host's network, and so is this case.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    let unserved = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let request = v1::PortForwardRequest { pod_sandbox_id: pod.clone(), port: Vec::new() };
    let url = call!(kubelet, port_forward, request).unwrap().url;
    let (mut client, _) = Client::open(&url, &["portforward.k8s.io"]).unwrap();
    for (first, port, request) in [(1, &unserved, "0"), (5, &port, "1"), (9, &port, "2")] {
        for (id, kind) in [(first, "error"), (first + 2, "data")] {
            client.stream(id, &[("streamtype", kind), ("port", port.as_str()), ("requestid", request)]);
        }
    }
    client.send(7, b"one", FIN);
    client.send(11, b"two", FIN);
    let mut said = Vec::new();
    for _ in 0..2 {
        let (mut accepted, _) = server.accept().unwrap();
        accepted.set_read_timeout(Some(HANG)).unwrap();
        let mut text = String::new();
        accepted.read_to_string(&mut text).unwrap();
        accepted.write_all(format!("heard {text}").as_bytes()).unwrap();
        said.push(text);
    }
    said.sort();
    assert_eq!(said, ["one", "two"]);
    let heard = client.hear(&[1, 5, 9]);
    assert_eq!(on(&heard, 7), b"heard one");
    assert_eq!(on(&heard, 11), b"heard two");
    let failure = String::from_utf8(on(&heard, 1)).unwrap();
    assert!(failure.contains(&format!("failed to connect to localhost:{unserved}")), "{failure}");
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn frames_that_lie_end_their_connection_and_nothing_else() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("lies");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    kubelet.exec(&id, "true", 30).unwrap();
    let before = kubelet.daemon.traces().descriptors;
    let lies: [(&str, [u8; 4], Vec<u8>); 5] = [
        (
            "headers that are not deflated",
            [0x80, 3, 0, 1],
            [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &[0xff; 64]].concat(),
        ),
        ("a stream without a number", [0x80, 3, 0, 1], vec![0; 3]),
        ("another version", [0x80, 2, 0, 1], vec![0; 10]),
        ("a kind that nobody knows", [0x80, 3, 0x7f, 0xff], vec![0; 10]),
        ("data of no stream", [0, 0, 0, 99], vec![0; 1 << 20]),
    ];
    for (what, first, payload) in lies {
        let url = exec_url(&kubelet, &id, "true", false);
        let (mut client, _) = Client::open(&url, &["v4.channel.k8s.io"]).unwrap();
        client.frame(first, 0, &payload);
        // A length without its bytes, and the client has gone; the server may have gone before.
        let _ended = client.socket.write_all(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]);
        drop(client);
        assert_eq!(kubelet.exec(&id, "echo here", 30).unwrap().stdout, b"here\n", "{what}");
    }
    testkit::wait::eventually(HANG, "the daemon's descriptors", || {
        (kubelet.daemon.traces().descriptors <= before).then_some(())
    });
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}
