//! Connections: straight or through the proxy that the environment names, in clear or by TLS.

use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower::Service;

use super::proxy::{Proxies, Proxy, ProxyKind};
use super::{RequestError, Tls, tls};

/// The body of a request.
pub type Body = UnsyncBoxBody<bytes::Bytes, std::io::Error>;
/// A client in clear.
pub type Plain = Client<Dial, Body>;
/// A client by TLS.
pub type Secure = Client<HttpsConnector<Dial>, Body>;

/// The proxies of the environment that the daemon was started with.
static PROXIES: LazyLock<Arc<Proxies>> =
    LazyLock::new(|| Arc::new(Proxies::from_variables(|name| std::env::var(name).ok())));

/// A client for plain http; `settings` are for a proxy that is spoken to by TLS.
pub fn plain(connect: Duration, settings: &Tls) -> Result<Plain, RequestError> {
    plain_through(&PROXIES, connect, settings)
}

/// A client for https (and http, which it is never asked for).
pub fn secure(connect: Duration, settings: &Tls) -> Result<Secure, RequestError> {
    secure_through(&PROXIES, connect, settings)
}

fn plain_through(proxies: &Arc<Proxies>, connect: Duration, settings: &Tls) -> Result<Plain, RequestError> {
    Ok(builder().build(Dial::new(proxies, connect, settings)?))
}

fn secure_through(proxies: &Arc<Proxies>, connect: Duration, settings: &Tls) -> Result<Secure, RequestError> {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls::config(settings)?)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(Dial::new(proxies, connect, settings)?);
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

/// The proxy on the way to `origin`, without its user and password.
pub fn proxy(origin: &str) -> Option<String> {
    PROXIES.of(&origin.parse().ok()?).map(Proxy::shown)
}

/// The field by which a plain request through a proxy says who we are.
pub fn proxy_authorization(uri: &Uri) -> Option<HeaderValue> {
    if uri.scheme_str() != Some("http") {
        return None;
    }
    PROXIES.of(uri)?.authorization()
}

/// Opens TCP connections.
#[derive(Clone, Debug)]
pub struct Dial {
    first: FirstHop,
    proxies: Arc<Proxies>,
}

impl Dial {
    fn new(proxies: &Arc<Proxies>, connect: Duration, settings: &Tls) -> Result<Self, RequestError> {
        let mut direct = HttpConnector::new();
        direct.enforce_http(false);
        direct.set_nodelay(true);
        direct.set_connect_timeout(Some(connect));
        direct.set_keepalive(Some(Duration::from_secs(30)));
        let secure = if proxies.any_by_tls() {
            let builder = HttpsConnectorBuilder::new().with_tls_config(tls::config(settings)?).https_only();
            Some(builder.enable_http1().wrap_connector(direct.clone()))
        } else {
            None
        };
        Ok(Self { first: FirstHop { direct, secure }, proxies: Arc::clone(proxies) })
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Dial {
    type Response = Link;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Link, Failure>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.first.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let mut first = self.first.clone();
        let proxy = self.proxies.of(&to).cloned();
        Box::pin(async move {
            let Some(proxy) = proxy else {
                let io = first.direct.call(to).await?;
                return Ok(Link { io: MaybeHttpsStream::Http(io), proxied: false });
            };
            let plain = to.scheme_str() == Some("http");
            if proxy.kind == ProxyKind::Socks5 {
                let mut connected = Some(first.call(proxy.uri.clone()).await?);
                // Connected before, because the library's error would not say why it failed.
                let connected = tower::service_fn(move |_: Uri| {
                    let io = connected.take();
                    async move { io.ok_or_else(|| Failure::from("the connection to the proxy is used up")) }
                });
                let mut socks = SocksV5::new(proxy.uri, connected);
                if let Some((user, password)) = proxy.login {
                    socks = socks.with_auth(user, password);
                }
                let to = with_port(&to, if plain { 80 } else { 443 })?;
                return Ok(Link { io: socks.call(to).await?, proxied: false });
            }
            if plain {
                return Ok(Link { io: first.call(proxy.uri).await?, proxied: true });
            }
            let auth = proxy.authorization();
            let mut tunnel = Tunnel::new(proxy.uri, first);
            if let Some(auth) = auth {
                tunnel = tunnel.with_auth(auth);
            }
            Ok(Link { io: tunnel.call(to).await?, proxied: false })
        })
    }
}

/// `to` with its port written out; SOCKS would take 443 for one that is not.
fn with_port(to: &Uri, port: u16) -> Result<Uri, http::Error> {
    let port = to.port_u16().unwrap_or(port);
    let host = to.host().unwrap_or_default();
    Uri::builder()
        .scheme(to.scheme_str().unwrap_or("http"))
        .authority(format!("{host}:{port}"))
        .path_and_query("/")
        .build()
}

/// Connects to the proxy, or without one to the registry.
#[derive(Clone, Debug)]
struct FirstHop {
    direct: HttpConnector,
    /// For proxies that are spoken to by TLS; none when there is no such.
    secure: Option<HttpsConnector<HttpConnector>>,
}

impl Service<Uri> for FirstHop {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.direct.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        match &mut self.secure {
            Some(secure) if to.scheme_str() == Some("https") => Box::pin(secure.call(to)),
            _ => {
                let connecting = self.direct.call(to);
                Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
            }
        }
    }
}

/// A connection that knows whether an HTTP proxy is at its other end.
pub struct Link {
    io: MaybeHttpsStream<TokioIo<TcpStream>>,
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

#[cfg(test)]
mod tests;
