//! The metrics server: `/v1/metrics` over HTTP for Prometheus, at the address of `io.containerd.server.v1.metrics`.
//!
//! Invariant: a scrape asks each shim once, with its usual deadline; scrapes follow each other and never pile up.

mod container;
mod process;
mod text;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::containerd::task::v3::StatsRequest;
use futures_util::StreamExt;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::{Ctx, Error, Lane, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};

use crate::engine::Engine;
use text::Text;

/// How many connections are served at once; more wait to be accepted.
const CONNECTIONS: usize = 16;

/// How long a client may take to send its request, and a connection may live.
const PATIENCE: Duration = Duration::from_secs(10);
const LIFE: Duration = Duration::from_secs(120);

/// How many shims are asked at once.
const AT_ONCE: usize = 32;

/// What is served.
struct Server {
    engine: Arc<Engine>,
    /// Whether containers are left out.
    daemon_only: bool,
    scrape: Mutex<()>,
}

/// Listens at `address`, `HOST:PORT`.
///
/// # Errors
/// The address is none, or is taken.
pub async fn listen(address: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| {
        Error::new(
            spec::Kind::from_errno(error.raw_os_error().unwrap_or(0)),
            format!("metrics at {address}: {error}"),
        )
    })
}

/// Serves for the rest of the daemon's life; `daemon_only` leaves containers out.
pub async fn serve(engine: Arc<Engine>, listener: TcpListener, daemon_only: bool) {
    let server = Arc::new(Server { engine, daemon_only, scrape: Mutex::new(()) });
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(seat) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((socket, peer)) => {
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    let _seat = seat;
                    // Whoever takes longer is cut off.
                    let _late = tokio::time::timeout(LIFE, connection(server, socket, peer)).await;
                });
            }
            Err(error) => {
                tracing::error!(%error, "metrics: cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(server: Arc<Server>, socket: TcpStream, peer: SocketAddr) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(&request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(socket), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, %peer, "metrics: dropping a client");
    }
}

impl Server {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let reply = |status: StatusCode, body: String| {
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = status;
            let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        };
        if request.uri().path() != "/v1/metrics" {
            return reply(StatusCode::NOT_FOUND, "404 page not found\n".into());
        }
        if request.method() != Method::GET {
            return reply(StatusCode::METHOD_NOT_ALLOWED, String::new());
        }
        match self.collect().await {
            Ok(text) => reply(StatusCode::OK, text),
            Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    async fn collect(&self) -> Result<String> {
        let _alone = self.scrape.lock().await;
        let mut text = Text::default();
        let build = [("revision", crate::REVISION), ("version", crate::VERSION)];
        text.counter("containerd_build_info_total", "containerd build information", &build, 1.0);
        let own = Ctx::background().blocking(Lane::Disk, |_| Ok(process::Own::read())).await?;
        own.tell(&mut text);
        if !self.daemon_only {
            self.containers(&mut text).await?;
        }
        Ok(text.finish())
    }

    /// What the containers of every namespace use. A shim that does not answer is left out.
    async fn containers(&self, text: &mut Text) -> Result<()> {
        let engine = Arc::clone(&self.engine);
        let work = move |cx: &model::Cx<'_>| engine.store.namespaces().list(cx);
        let namespaces = Ctx::background().blocking(Lane::Disk, work).await?;
        let mut tasks = Vec::new();
        for (name, _) in namespaces {
            if let Ok(namespace) = name.parse() {
                tasks.extend(self.engine.tasks.list(&namespace).into_iter().map(|task| (name.clone(), task)));
            }
        }
        let mut asked = futures_util::stream::iter(tasks)
            .map(|(namespace, task)| async move {
                let stats = task.stats(StatsRequest { id: task.id().into() }).await;
                (namespace, task, stats)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((namespace, task, stats)) = asked.next().await {
            let labels = [("container_id", task.id()), ("namespace", namespace.as_str())];
            match stats {
                Ok(stats) => {
                    if let Some(stats) = stats.stats {
                        container::tell(text, &labels, &stats);
                    }
                }
                Err(error) => tracing::debug!(id = task.id(), %error, "metrics: no answer of a shim"),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Settings, defaults};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn prometheus_gets_text_at_one_path_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(&defaults()).unwrap();
        (settings.root, settings.state) = (dir.path().join("root"), dir.path().join("state"));
        std::fs::create_dir(&settings.root).unwrap();
        let engine = Arc::new(crate::daemon::open(&settings, "/bin/false".into()).unwrap());
        let listener = listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(listen(&address.to_string()).await.unwrap_err().text().contains("metrics at 127.0.0.1:"));
        let server = tokio::spawn(serve(engine, listener, false));
        let answer = get(address, "/v1/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains("# TYPE containerd_build_info_total counter\n"), "{answer}");
        assert!(answer.contains(&format!("version=\"{}\"}} 1\n", crate::VERSION)), "{answer}");
        assert!(answer.contains("\nprocess_open_fds "), "{answer}");
        assert!(get(address, "/").await.starts_with("HTTP/1.1 404 "));
        server.abort();
    }
}
