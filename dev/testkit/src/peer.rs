//! A registry that misbehaves by script: every fault a pull can meet, on loopback, in plain threads.
//!
//! ```no_run
//! use testkit::peer::{Fault, Peer};
//! let peer = Peer::start();
//! let reference = peer.serve("busy", "v1", testkit::image::busybox());
//! peer.fail("GET", "/blobs/", Fault::CutAfter(1000)).times(2);
//! ```
//!
//! Invariant: without a matching fault it is a correct registry, ranges and digests included.

use std::collections::HashMap;
use std::io::{self, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::http::{Request, Response};
use crate::image::{Blob, Image};

/// How a request goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This answer instead of the right one.
    Answer(Response),
    /// The right head, then only so many bytes of the body, then the connection closes.
    CutAfter(usize),
    /// The right head and so many bytes, then silence on an open connection.
    StallAfter(usize),
    /// No answer at all on an open connection.
    Silence,
    /// The right length, wrong bytes.
    Corrupt,
    /// These bytes instead of an HTTP answer.
    Garbage(Vec<u8>),
}

impl Fault {
    /// An answer of `status` with the registry's JSON error body.
    pub fn status(status: u16) -> Self {
        let body = format!(r#"{{"errors":[{{"code":"SCRIPTED","message":"scripted {status}"}}]}}"#);
        Self::Answer(Response::new(status, body).header("content-type", "application/json"))
    }

    /// The answer 200 with `body` as a manifest of `media_type`.
    pub fn manifest(media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::Answer(Response::new(200, body).header("content-type", media_type))
    }
}

/// The running server; it stops answering when dropped.
pub struct Peer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// A fault that waits for its request.
pub struct Armed<'a> {
    shared: &'a Shared,
    id: usize,
}

impl Armed<'_> {
    /// Lets the fault happen so often and no more; without, it happens every time.
    pub fn times(self, count: usize) {
        let mut state = self.shared.lock();
        let id = self.id;
        if let Some(rule) = state.rules.iter_mut().find(|rule| rule.id == id) {
            rule.left = count;
        }
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    objects: HashMap<String, Blob>,
    rules: Vec<Rule>,
    requests: Vec<Request>,
    token: Option<String>,
    stopped: bool,
}

struct Rule {
    id: usize,
    method: String,
    part: String,
    fault: Fault,
    left: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    /// Starts a registry without content.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::<Shared>::default();
        let server = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if server.lock().stopped {
                    return;
                }
                let (Ok(stream), server) = (stream, server.clone()) else { continue };
                std::thread::spawn(move || serve(stream, address, &server));
            }
        });
        Self { address, shared }
    }

    /// `127.0.0.1:PORT`, as it stands in a reference.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Serves `image` as `name:tag` and returns the whole reference.
    pub fn serve(&self, name: &str, tag: &str, image: Image) -> String {
        let mut state = self.shared.lock();
        state.objects.insert(format!("/v2/{name}/manifests/{tag}"), image.top().clone());
        for manifest in image.manifests {
            state.objects.insert(format!("/v2/{name}/manifests/{}", manifest.digest), manifest);
        }
        for blob in image.blobs {
            state.objects.insert(format!("/v2/{name}/blobs/{}", blob.digest), blob);
        }
        format!("{}/{name}:{tag}", self.address)
    }

    /// Makes requests of `method` whose path holds `part` go wrong; the newest matching fault wins.
    pub fn fail(&self, method: &str, part: &str, fault: Fault) -> Armed<'_> {
        let mut state = self.shared.lock();
        let id = state.rules.iter().map(|rule| rule.id + 1).max().unwrap_or(0);
        let rule = Rule { id, method: method.into(), part: part.into(), fault, left: usize::MAX };
        state.rules.insert(0, rule);
        Armed { shared: &self.shared, id }
    }

    /// From now on nothing goes wrong.
    pub fn mend(&self) {
        self.shared.lock().rules.clear();
    }

    /// From now on wants the bearer token that its `/token` hands out.
    pub fn want_token(&self) {
        self.shared.lock().token = Some(crate::place::unique("token-"));
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// How many requests of `method` had `part` in their path.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let fits = |request: &&Request| request.method == method && request.path.contains(part);
        self.shared.lock().requests.iter().filter(fits).count()
    }

    /// Waits until a request of `method` with `part` in its path has come in.
    pub fn waits_for(&self, method: &str, part: &str) {
        let fits = |request: &Request| request.method == method && request.path.contains(part);
        let state = self.shared.lock();
        let limit = Duration::from_secs(30);
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, limit, |state| !state.requests.iter().any(fits))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(state.requests.iter().any(fits), "no {method} with {part:?} came within {limit:?}");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        // Wakes the accepting thread so that it sees the flag.
        let _ = TcpStream::connect(self.address);
    }
}

/// One connection, request by request.
fn serve(mut stream: TcpStream, address: SocketAddr, shared: &Shared) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
    let Ok(clone) = stream.try_clone() else { return };
    let mut reader = BufReader::new(clone);
    while let Ok(Some(request)) = Request::read(&mut reader) {
        let (fault, answer) = {
            let mut state = shared.lock();
            state.requests.push(request.clone());
            shared.changed.notify_all();
            (state.fault(&request), state.answer(&request, address))
        };
        let body = if request.method == "HEAD" { &[][..] } else { &answer.body };
        let done = match fault {
            None => send(&mut stream, &answer, body),
            Some(Fault::Answer(wrong)) => {
                let body = if request.method == "HEAD" { &[][..] } else { &wrong.body };
                send(&mut stream, &wrong, body)
            }
            Some(Fault::Corrupt) => {
                let wrong: Vec<u8> = body.iter().map(|byte| byte ^ 0x55).collect();
                send(&mut stream, &answer, &wrong)
            }
            Some(Fault::CutAfter(count)) => {
                let _ = send(&mut stream, &answer, &body[..count.min(body.len())]);
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            Some(Fault::StallAfter(count)) => {
                let _ = send(&mut stream, &answer, &body[..count.min(body.len())]);
                return stall(shared);
            }
            Some(Fault::Silence) => return stall(shared),
            Some(Fault::Garbage(bytes)) => {
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
        };
        let last = request.headers.get("connection").is_some_and(|value| value == "close");
        if done.is_err() || last {
            return;
        }
    }
}

fn send(stream: &mut TcpStream, answer: &Response, body: &[u8]) -> io::Result<()> {
    stream.write_all(answer.head().as_bytes())?;
    stream.write_all(body)?;
    stream.flush()
}

/// Keeps the connection open, saying nothing, until the server ends.
fn stall(shared: &Shared) {
    let state = shared.lock();
    let limit = Duration::from_secs(600);
    drop(shared.changed.wait_timeout_while(state, limit, |state| !state.stopped));
}

impl State {
    fn fault(&mut self, request: &Request) -> Option<Fault> {
        let rule = self.rules.iter_mut().find(|rule| {
            rule.left > 0 && rule.method == request.method && request.path.contains(&rule.part)
        })?;
        rule.left = rule.left.saturating_sub(usize::from(rule.left != usize::MAX));
        Some(rule.fault.clone())
    }

    fn answer(&self, request: &Request, address: SocketAddr) -> Response {
        let path = request.path.split('?').next().unwrap_or_default();
        if let Some(token) = &self.token {
            if path == "/token" {
                let body = format!(r#"{{"token":"{token}","expires_in":300}}"#);
                return Response::new(200, body).header("content-type", "application/json");
            }
            if request.headers.get("authorization") != Some(&format!("Bearer {token}")) {
                let field = format!(r#"Bearer realm="http://{address}/token",service="peer""#);
                return Response::new(401, "{}").header("www-authenticate", &field);
            }
        }
        if path == "/v2/" || path == "/v2" {
            return Response::new(200, "{}");
        }
        match self.objects.get(path) {
            None => Response::new(404, r#"{"errors":[{"code":"NOT_FOUND"}]}"#),
            Some(blob) => ranged(blob, request.headers.get("range").map(String::as_str)),
        }
    }
}

/// The blob, or the part of it that a `bytes=FIRST-[LAST]` range asks for.
fn ranged(blob: &Blob, range: Option<&str>) -> Response {
    let with = |answer: Response| {
        answer
            .header("content-type", &blob.media_type)
            .header("docker-content-digest", &blob.digest)
            .header("accept-ranges", "bytes")
    };
    let size = blob.bytes.len();
    let Some((first, last)) = range.and_then(|text| text.strip_prefix("bytes=")?.split_once('-')) else {
        return with(Response::new(200, blob.bytes.clone()));
    };
    let first: usize = first.parse().unwrap_or(usize::MAX);
    let last = last.parse().unwrap_or(usize::MAX).min(size.saturating_sub(1));
    if first >= size || last < first {
        return Response::new(416, "").header("content-range", &format!("bytes */{size}"));
    }
    with(Response::new(206, &blob.bytes[first..=last]))
        .header("content-range", &format!("bytes {first}-{last}/{size}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Build, Layer};
    use crate::tar::Archive;

    fn peer() -> (Peer, Blob) {
        let peer = Peer::start();
        let image = Build::new().layer(Layer::plain(Archive::new().file("a", 0o644, b"b").finish())).build();
        let layer = image.blobs[0].clone();
        peer.serve("x", "v1", image);
        (peer, layer)
    }

    #[test]
    fn a_range_is_served_as_asked() {
        let (peer, layer) = peer();
        let get = Request::new("GET", &format!("/v2/x/blobs/{}", layer.digest));
        let answer = get.clone().header("range", "bytes=512-1023").send(peer.address).unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (206, &layer.bytes[512..1024]));
        assert_eq!(get.header("range", "bytes=99999-").send(peer.address).unwrap().status, 416);
        assert_eq!(peer.count("GET", "/blobs/"), 2);
    }

    #[test]
    fn a_stranger_is_sent_for_a_token() {
        let (peer, _) = peer();
        peer.want_token();
        let get = Request::new("GET", "/v2/x/manifests/v1");
        let turned_away = get.send(peer.address).unwrap();
        assert_eq!(turned_away.status, 401);
        assert!(turned_away.headers["www-authenticate"].starts_with("Bearer realm="));
        let token = Request::new("GET", "/token").send(peer.address).unwrap().body;
        let token: serde_json::Value = serde_json::from_slice(&token).unwrap();
        let field = format!("Bearer {}", token["token"].as_str().unwrap());
        assert_eq!(get.header("authorization", &field).send(peer.address).unwrap().status, 200);
    }

    #[test]
    fn a_cut_body_is_shorter_than_it_claims() {
        let (peer, layer) = peer();
        peer.fail("GET", "/blobs/", Fault::CutAfter(100)).times(1);
        let get = Request::new("GET", &format!("/v2/x/blobs/{}", layer.digest));
        assert_eq!(get.send(peer.address).unwrap().body.len(), 100);
        assert_eq!(get.send(peer.address).unwrap().body, layer.bytes);
    }

    #[test]
    fn a_fault_happens_as_often_as_told() {
        let mut state = State::default();
        let fault = Fault::status(503);
        state.rules.push(Rule { id: 0, method: "GET".into(), part: "/blobs/".into(), fault, left: 2 });
        let request = Request::new("GET", "/v2/x/blobs/sha256:0");
        assert!(state.fault(&request).is_some() && state.fault(&request).is_some());
        assert!(state.fault(&request).is_none());
        assert!(state.fault(&Request::new("HEAD", "/v2/x/blobs/sha256:0")).is_none());
    }
}
