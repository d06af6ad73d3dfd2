//! Connections: straight or through the proxy that the environment names, in clear or by TLS.

use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower::Service;

use super::{RequestError, Tls, tls};

/// The body of a request.
pub type Body = UnsyncBoxBody<bytes::Bytes, std::io::Error>;
/// A client in clear.
pub type Plain = Client<Dial, Body>;
/// A client by TLS.
pub type Secure = Client<HttpsConnector<Dial>, Body>;

/// `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in either case, as the daemon was started with them.
static PROXIES: LazyLock<Arc<Matcher>> = LazyLock::new(|| Arc::new(Matcher::from_env()));

/// A client for plain http.
pub fn plain(connect: Duration) -> Plain {
    builder().build(Dial::new(connect))
}

/// A client for https (and http, which it is never asked for).
pub fn secure(connect: Duration, settings: &Tls) -> Result<Secure, RequestError> {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls::config(settings)?)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(Dial::new(connect));
    Ok(builder().build(connector))
}

fn builder() -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(10))
        // What one read may give: pieces of this size wait in the queues of every layer under way.
        .http1_max_buf_size(128 << 10)
        .http2_adaptive_window(true);
    builder
}

/// The proxy on the way to `origin`, without what it is told of us.
pub fn proxy(origin: &str) -> Option<String> {
    let proxy = PROXIES.intercept(&origin.parse().ok()?)?;
    let uri = proxy.uri();
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}://{}{port}", uri.scheme_str()?, uri.host()?))
}

/// The field by which a plain request through a proxy says who we are.
pub fn proxy_authorization(uri: &Uri) -> Option<HeaderValue> {
    if uri.scheme_str() != Some("http") {
        return None;
    }
    PROXIES.intercept(uri)?.basic_auth().cloned()
}

/// Opens TCP connections.
#[derive(Clone, Debug)]
pub struct Dial {
    direct: HttpConnector,
}

impl Dial {
    fn new(connect: Duration) -> Self {
        let mut direct = HttpConnector::new();
        direct.enforce_http(false);
        direct.set_nodelay(true);
        direct.set_connect_timeout(Some(connect));
        direct.set_keepalive(Some(Duration::from_secs(30)));
        Self { direct }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Dial {
    type Response = Link;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Link, Failure>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.direct.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let mut direct = self.direct.clone();
        Box::pin(async move {
            let Some(proxy) = PROXIES.intercept(&to) else {
                return Ok(Link { io: direct.call(to).await?, proxied: false });
            };
            if to.scheme_str() == Some("http") {
                return Ok(Link { io: direct.call(proxy.uri().clone()).await?, proxied: true });
            }
            let mut tunnel = Tunnel::new(proxy.uri().clone(), direct);
            if let Some(auth) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(auth.clone());
            }
            Ok(Link { io: tunnel.call(to).await?, proxied: false })
        })
    }
}

/// A TCP connection that knows whether an HTTP proxy is at its other end.
pub struct Link {
    io: TokioIo<TcpStream>,
    proxied: bool,
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.proxied)
    }
}

impl Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }
}
