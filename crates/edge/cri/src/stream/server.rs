//! The HTTP server of streams.
//!
//! ```text
//! accept ─► newcomer: TLS, one request, within TOKEN_TIMEOUT ─► token ─► session, for as long as it lasts
//! ```
//!
//! Invariant: a connection without a token lives for [`TOKEN_TIMEOUT`] at most, and such connections never keep one with
//! a token from being served.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use ::spec::Error;
use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming as Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use model::{Ctx, Lane, Result};
use net::netlink::{Connection, Protocol, address, link};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::newcomers::{MAX_NEWCOMERS, Newcomers, Number};
use super::session::{self, Answer, Session, refuse};
use super::tls;
use crate::Cri;

/// How many sessions run at once; more clients wait to be accepted.
const MAX_SESSIONS: usize = 4096;

/// How long a client may take to show a token, its TLS handshake included.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait when no connection can be accepted.
const RETRY: Duration = Duration::from_millis(50);

/// The running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Server {
    /// Listens and serves what `cri` agrees to from now on.
    ///
    /// # Errors
    /// The address cannot be listened on, or the certificate cannot be used.
    pub async fn start(cri: &Arc<Cri>) -> Result<Self> {
        let config = &cri.config.stream;
        let acceptor = tls::acceptor(&config.tls).await?;
        let address = match config.address.as_str() {
            "" => first_address().await?,
            text => named_address(text).await?,
        };
        let address = SocketAddr::new(address, config.port);
        let failed = |error| Error::unavailable(format!("cannot listen on {address} for streams: {error}"));
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        // Only one server is started for one `Cri`.
        let _first = cri.streaming.base.set(format!("{scheme}://{local}"));
        tracing::info!(address = %local, "streaming server listens");
        Ok(Self(tokio::spawn(accept(Arc::downgrade(cri), listener, acceptor))))
    }
}

/// An address, or the first one of a name.
async fn named_address(text: &str) -> Result<IpAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let wrong = |why: String| Error::invalid(format!("stream_server_address {text:?}: {why}"));
    let mut found = tokio::net::lookup_host((text, 0)).await.map_err(|error| wrong(error.to_string()))?;
    found.next().map(|address| address.ip()).ok_or_else(|| wrong("no such host".into()))
}

/// The first address of this host that is not loopback, as containerd takes it; IPv4 before IPv6.
async fn first_address() -> Result<IpAddr> {
    let addresses = addresses().await?;
    let found = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()).copied();
    found.ok_or_else(|| Error::unavailable("this host has no address to listen on for streams"))
}

/// The addresses by which others may reach this host.
pub async fn addresses() -> Result<Vec<IpAddr>> {
    let list = |_: &model::Cx<'_>| {
        let mut connection = Connection::open(Protocol::Route)?;
        let mut found = Vec::new();
        for link in link::list(&mut connection)? {
            found.extend(address::list(&mut connection, link.index)?);
        }
        Ok(found)
    };
    let failed =
        |error: net::netlink::Error| Error::internal(format!("cannot list this host's addresses: {error}"));
    let found = Ctx::background().blocking(Lane::Disk, move |cx| list(cx).map_err(failed)).await?;
    let reachable = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    Ok(found.into_iter().map(|found| found.net.address).filter(reachable).collect())
}

/// Clients without a token; what ends one is its task.
type Waiting = Arc<Mutex<Newcomers<AbortHandle>>>;

/// Accepts clients until the daemon ends; every client's task ends with this one.
async fn accept(cri: Weak<Cri>, listener: TcpListener, acceptor: Option<TlsAcceptor>) {
    let mut clients = JoinSet::new();
    let waiting = Waiting::default();
    loop {
        while clients.try_join_next().is_some() {}
        if clients.len() >= MAX_SESSIONS + MAX_NEWCOMERS {
            clients.join_next().await;
            continue;
        }
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection for streams");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        // Its task asks for the lock before it becomes a session, so it is known here by then.
        let evicted = waiting.lock().unwrap_or_else(PoisonError::into_inner).add(peer.ip(), |number| {
            let door = Door { cri: cri.clone(), waiting: Arc::clone(&waiting), number };
            clients.spawn(client(door, socket, acceptor.clone()))
        });
        if let Some(evicted) = evicted {
            tracing::debug!("a client of streams that shows no token makes room for another");
            evicted.abort();
        }
    }
}

/// What a client is let in by.
struct Door {
    cri: Weak<Cri>,
    waiting: Waiting,
    number: Number,
}

impl Door {
    /// The client waits no longer; says whether it may go on.
    fn pass(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(self.number)
    }
}

/// Serves one client: its request, and when that shows a token the session to its end.
async fn client(door: Door, socket: TcpStream, acceptor: Option<TlsAcceptor>) {
    // Small pieces of a terminal shall not wait for each other.
    let _slower = socket.set_nodelay(true);
    let begun = async {
        match acceptor {
            None => serve(&door, socket).await,
            Some(acceptor) => match acceptor.accept(socket).await {
                Ok(socket) => serve(&door, socket).await,
                Err(error) => {
                    tracing::debug!(%error, "a TLS handshake for a stream failed");
                    None
                }
            },
        }
    };
    let begun = tokio::time::timeout(TOKEN_TIMEOUT, begun).await;
    let _no_longer = door.pass();
    match begun {
        Ok(Some(session)) => session.await,
        Ok(None) => {}
        Err(_) => tracing::debug!("a client of streams showed no token in time"),
    }
}

/// Answers one request; what comes back is the session that it began.
async fn serve<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    door: &Door,
    socket: T,
) -> Option<Session> {
    let begun: Arc<Mutex<Option<Session>>> = Arc::default();
    let service = service_fn(|request| {
        let (mut answer, session) = answer(door, request);
        if session.is_some() {
            *begun.lock().unwrap_or_else(PoisonError::into_inner) = session;
        } else {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        std::future::ready(Ok::<Answer, Infallible>(answer))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(TOKEN_TIMEOUT)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a client of streams left");
    }
    begun.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Answers one request: `/exec/TOKEN`, `/attach/TOKEN`, `/portforward/TOKEN`.
fn answer(door: &Door, request: Request<Body>) -> (Answer, Option<Session>) {
    let not_found = || (refuse(StatusCode::NOT_FOUND, "404 page not found"), None);
    let stopping = || (refuse(StatusCode::SERVICE_UNAVAILABLE, "stopping"), None);
    let Some(cri) = door.cri.upgrade() else { return stopping() };
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return (refuse(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"), None);
    }
    let mut parts = request.uri().path().trim_start_matches('/').split('/');
    let (Some(kind), Some(token), None) = (parts.next(), parts.next(), parts.next()) else {
        return not_found();
    };
    // A token that is tried at the wrong path is used up too.
    match cri.streaming.tokens.take(token) {
        // One that was evicted in this very moment cannot be answered any more.
        Some(agreed) if agreed.path() == kind && door.pass() => session::begin(&cri, agreed, request),
        _ => not_found(),
    }
}
