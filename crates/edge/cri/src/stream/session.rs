//! One client with a token: which protocol it speaks, its streams, and what was agreed.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming as Body};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::channel::{Channels, Outgoing, Wanted};
use super::spdy::{self, Opened};
use super::websocket::{self, Protocol};
use super::{Agreed, CREATION_TIMEOUT, attach, exec, port_forward};
use crate::Cri;

/// What is asked and answered for SPDY's protocols.
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
/// What is answered when none fits.
const ACCEPTED: &str = "x-accepted-stream-protocol-versions";

/// Protocols of exec and attach over SPDY, the best first.
const REMOTE: &[&str] = &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// Protocols of port-forward over SPDY.
const FORWARD: &[&str] = &["portforward.k8s.io"];

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// What goes on behind an answer, once the connection is the session's.
pub type Session = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// A plain answer.
pub fn refuse(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    answer
}

/// Answers `request`, which came with a token for `agreed`, and what goes on behind the answer.
pub fn begin(cri: &Arc<Cri>, agreed: Agreed, request: Request<Body>) -> (Answer, Option<Session>) {
    let idle = cri.config.stream.idle_timeout;
    let upgrade =
        request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let asked = has_word(request.headers(), header::CONNECTION, "upgrade");
    if asked && upgrade.eq_ignore_ascii_case("websocket") {
        return web_socket(cri, agreed, request, idle);
    }
    let forward = matches!(agreed, Agreed::PortForward { .. });
    let known = if forward { FORWARD } else { REMOTE };
    let protocol = match negotiate(request.headers(), known) {
        Ok(protocol) => protocol,
        Err(answer) => return (*answer, None),
    };
    if !asked || !upgrade.eq_ignore_ascii_case("SPDY/3.1") {
        return (
            refuse(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request"),
            None,
        );
    }
    let mut answer = switch("SPDY/3.1");
    answer.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    let cri = Arc::clone(cri);
    let session =
        upgraded(request, move |io| async move { over_spdy(&cri, agreed, protocol, io, idle).await });
    (answer, Some(session))
}

/// Whether one of the comma-separated words of a header is `word`.
fn has_word(headers: &HeaderMap, name: header::HeaderName, word: &str) -> bool {
    let words = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    words.flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(word))
}

/// The first protocol that the client wants and we know.
fn negotiate(headers: &HeaderMap, known: &[&'static str]) -> Result<&'static str, Box<Answer>> {
    let asked = headers.get_all(STREAM_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let mut asked =
        asked.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty()).peekable();
    if asked.peek().is_none() {
        let text = "unable to upgrade: header X-Stream-Protocol-Version does not exist in request";
        return Err(Box::new(refuse(StatusCode::BAD_REQUEST, text)));
    }
    let found = asked.find_map(|name| known.iter().find(|known| **known == name).copied());
    found.ok_or_else(|| {
        let mut answer = refuse(StatusCode::FORBIDDEN, "unable to upgrade: unable to negotiate protocol");
        for name in known {
            answer.headers_mut().append(ACCEPTED, HeaderValue::from_static(name));
        }
        Box::new(answer)
    })
}

/// The answer that hands the connection over.
fn switch(to: &'static str) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(to));
    answer
}

type Io = TokioIo<hyper::upgrade::Upgraded>;

/// Runs `session` over the connection once it is handed over.
fn upgraded<F, Fut>(request: Request<Body>, session: F) -> Session
where
    F: FnOnce(Io) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    Box::pin(async move {
        match hyper::upgrade::on(request).await {
            Ok(connection) => session(TokioIo::new(connection)).await,
            Err(error) => tracing::debug!(%error, "a client left before its stream began"),
        }
    })
}

async fn over_spdy(cri: &Arc<Cri>, agreed: Agreed, protocol: &str, io: Io, idle: Duration) {
    let (mut connection, drive) = spdy::serve(io, idle);
    let work = async {
        match agreed {
            Agreed::PortForward { pod, .. } => port_forward::run_spdy(cri, &pod, &mut connection).await,
            Agreed::Exec { wanted, .. } | Agreed::Attach { wanted, .. } => {
                let wait = gather(&mut connection, wanted, protocol);
                match tokio::time::timeout(CREATION_TIMEOUT, wait).await {
                    Ok(Some(channels)) => remote(cri, agreed, channels).await,
                    _ => tracing::debug!("timed out waiting for client to create streams"),
                }
            }
        }
        connection.end().await;
    };
    // A client that leaves ends `drive`; the work notices at its streams and ends as it must.
    tokio::join!(drive, work);
}

/// Takes the streams of an exec or attach as the client opens them; `None` when it leaves first.
async fn gather(connection: &mut spdy::Connection, wanted: Wanted, protocol: &str) -> Option<Channels> {
    let resizes = matches!(protocol, "v3.channel.k8s.io" | "v4.channel.k8s.io");
    let mut missing = 1
        + usize::from(wanted.stdin)
        + usize::from(wanted.stdout)
        + usize::from(wanted.stderr)
        + usize::from(wanted.tty && resizes);
    let (mut stdin, mut stdout, mut stderr, mut resize, mut error) = (None, None, None, None, None);
    while missing > 0 {
        let Opened { id, headers, incoming, outgoing } = connection.opened.recv().await?;
        let new = match headers.get("streamtype").map(String::as_str) {
            Some("stdin") if wanted.stdin => stdin.replace(incoming).is_none(),
            Some("stdout") if wanted.stdout => stdout.replace(outgoing).is_none(),
            Some("stderr") if wanted.stderr => stderr.replace(outgoing).is_none(),
            Some("resize") if wanted.tty && resizes => resize.replace(incoming).is_none(),
            Some("error") => error.replace(outgoing).is_none(),
            _ => {
                connection.refuse(id).await;
                continue;
            }
        };
        connection.accept(id).await;
        missing -= usize::from(new);
    }
    let json_status = protocol == "v4.channel.k8s.io";
    Some(Channels { stdin, stdout, stderr, resize, error: error?, json_status })
}

/// Does what was agreed and tells how it ended.
async fn remote(cri: &Arc<Cri>, agreed: Agreed, mut channels: Channels) {
    let outcome = match agreed {
        Agreed::Exec { container, command, wanted } => {
            exec::run(cri, &container, command, wanted, &mut channels).await
        }
        Agreed::Attach { container, wanted } => attach::run(cri, &container, wanted, &mut channels).await,
        Agreed::PortForward { .. } => return,
    };
    let told = async {
        if let Some(bytes) = outcome.encode(channels.json_status) {
            channels.error.send(bytes).await?;
        }
        for stream in
            [channels.stdout.as_ref(), channels.stderr.as_ref(), Some(&channels.error)].into_iter().flatten()
        {
            stream.close().await?;
        }
        Ok::<(), super::channel::Gone>(())
    };
    // A client that has gone needs no telling.
    let _gone = told.await;
}

fn web_socket(
    cri: &Arc<Cri>,
    agreed: Agreed,
    request: Request<Body>,
    idle: Duration,
) -> (Answer, Option<Session>) {
    let bad = |text| (refuse(StatusCode::BAD_REQUEST, text), None);
    let Some(key) = request.headers().get("sec-websocket-key") else {
        return bad("missing Sec-WebSocket-Key");
    };
    let accept = derive_accept_key(key.as_bytes());
    if request.headers().get("sec-websocket-version").is_none_or(|version| version != "13") {
        return bad("Sec-WebSocket-Version must be 13");
    }
    let asked = request.headers().get("sec-websocket-protocol").and_then(|value| value.to_str().ok());
    let forward = matches!(agreed, Agreed::PortForward { .. });
    let Some(protocol) = websocket::negotiate(asked, forward) else {
        return (refuse(StatusCode::FORBIDDEN, "requested protocol(s) are not supported"), None);
    };
    let mut answer = switch("websocket");
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        answer.headers_mut().insert("sec-websocket-accept", accept);
    }
    if !protocol.name.is_empty() {
        answer.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(protocol.name));
    }
    let cri = Arc::clone(cri);
    let session =
        upgraded(request, move |io| async move { over_websocket(&cri, agreed, protocol, io, idle).await });
    (answer, Some(session))
}

async fn over_websocket(cri: &Arc<Cri>, agreed: Agreed, protocol: Protocol, io: Io, idle: Duration) {
    let read: Vec<u8> = match &agreed {
        // Data channels are even; a client that asks for more ports than there are channels gets the first.
        Agreed::PortForward { ports, .. } => {
            (0..ports.len().min(100) as u8).map(|number| number * 2).collect()
        }
        Agreed::Exec { .. } | Agreed::Attach { .. } => vec![0, 4],
    };
    let (connection, mut incoming, drive) = websocket::serve(io, protocol, &read, idle).await;
    let work = async {
        match agreed {
            Agreed::PortForward { pod, ports } => {
                let pairs = ports.into_iter().zip(0u8..).filter_map(|(port, number)| {
                    let (data, error) = (number.checked_mul(2)?, number.checked_mul(2)?.checked_add(1)?);
                    Some((
                        port,
                        incoming.remove(&data)?,
                        connection.outgoing(data),
                        connection.outgoing(error),
                    ))
                });
                port_forward::run_websocket(cri, &pod, pairs.collect()).await;
            }
            Agreed::Exec { wanted, .. } | Agreed::Attach { wanted, .. } => {
                let output = |wanted: bool, number| wanted.then(|| connection.outgoing(number));
                let channels = Channels {
                    stdin: incoming.remove(&0).filter(|_| wanted.stdin),
                    stdout: output(wanted.stdout, 1),
                    stderr: output(wanted.stderr, 2),
                    resize: incoming.remove(&4).filter(|_| wanted.tty),
                    error: connection.outgoing(3),
                    json_status: protocol.json_status,
                };
                greet(&channels).await;
                remote(cri, agreed, channels).await;
            }
        }
        connection.end().await;
    };
    tokio::join!(drive, work);
}

/// An empty message tells the client that its streams are there.
async fn greet(channels: &Channels) {
    let first: &Outgoing = channels.stdout.as_ref().or(channels.stderr.as_ref()).unwrap_or(&channels.error);
    // A client that has gone is noticed later.
    let _gone = first.send(Vec::new()).await;
}
