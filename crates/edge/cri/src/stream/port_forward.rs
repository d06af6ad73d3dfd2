//! A pod's ports: bytes between a client's streams and sockets made in the pod's network.
//!
//! Over SPDY a client opens a pair of streams for each connection, `data` and `error`; over WebSocket the ports were
//! agreed on before, and channels 2n and 2n+1 are a pair whose first message is the port.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use ::spec::Error;
use api::runtime::v1;
use model::{Lane, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use super::Agreed;
use super::channel::{Incoming, Outgoing};
use super::spdy::{Connection, Opened};
use crate::Cri;

/// How long a connection inside the pod may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How long the other direction may go on once one has ended.
const GRACE: Duration = Duration::from_secs(1);

/// How many pairs may be half open.
const MAX_HALVES: usize = 256;

impl Cri {
    /// Answers a URL at which a pod's ports can be reached.
    pub(crate) async fn port_forward(
        self: &Arc<Self>,
        request: v1::PortForwardRequest,
    ) -> Result<v1::PortForwardResponse> {
        if request.pod_sandbox_id.is_empty() {
            return Err(Error::invalid("missing required pod_sandbox_id"));
        }
        let pod = self.pods.get(&request.pod_sandbox_id)?;
        if pod.now().phase != crate::state::PodPhase::Ready {
            return Err(Error::failed_precondition("sandbox container is not running"));
        }
        let ports: Option<Vec<u16>> =
            request.port.iter().map(|port| u16::try_from(*port).ok().filter(|port| *port > 0)).collect();
        let ports = ports.ok_or_else(|| Error::invalid(format!("invalid port in {:?}", request.port)))?;
        let agreed = Agreed::PortForward { pod: pod.record.id.clone(), ports };
        Ok(v1::PortForwardResponse { url: self.streaming.url(agreed)? })
    }
}

/// One of a pair that waits for the other.
#[derive(Default)]
struct Half {
    data: Option<(Incoming, Outgoing, u16)>,
    error: Option<Outgoing>,
}

/// Forwards every pair that the client opens, until it leaves.
pub async fn run_spdy(cri: &Arc<Cri>, pod: &str, connection: &mut Connection) {
    let mut halves: BTreeMap<String, Half> = BTreeMap::new();
    let mut running = JoinSet::new();
    loop {
        let opened = tokio::select! {
            // Cancel-safe: a stream that was not received stays queued.
            opened = connection.opened.recv() => opened,
            // Reaps pairs that have ended.
            Some(_) = running.join_next(), if !running.is_empty() => continue,
        };
        let Some(stream) = opened else { break };
        let Some((request, kind, port)) = describe(&stream) else {
            connection.refuse(stream.id).await;
            continue;
        };
        if !halves.contains_key(&request) && halves.len() >= MAX_HALVES {
            connection.refuse(stream.id).await;
            continue;
        }
        connection.accept(stream.id).await;
        let half = halves.entry(request.clone()).or_default();
        match kind {
            Kind::Data => half.data = Some((stream.incoming, stream.outgoing, port)),
            Kind::Error => half.error = Some(stream.outgoing),
        }
        if half.data.is_some()
            && half.error.is_some()
            && let Some(Half { data: Some((incoming, outgoing, port)), error: Some(error) }) =
                halves.remove(&request)
        {
            let (cri, pod) = (Arc::clone(cri), pod.to_owned());
            running.spawn(async move { pair(&cri, &pod, port, incoming, outgoing, error).await });
        }
    }
    // The client has gone: nobody is left to forward for.
    running.shutdown().await;
}

enum Kind {
    Data,
    Error,
}

/// Which request a stream is of, what it carries, and for which port.
fn describe(stream: &Opened) -> Option<(String, Kind, u16)> {
    let header = |name: &str| stream.headers.get(name).map(String::as_str);
    let port: u16 = header("port")?.parse().ok().filter(|port| *port > 0)?;
    let (kind, first) = match header("streamtype")? {
        // Clients of before 1.3 name no request; their error stream comes first and the data stream two later.
        "error" => (Kind::Error, stream.id),
        "data" => (Kind::Data, stream.id.checked_sub(2).unwrap_or(stream.id)),
        _ => return None,
    };
    let request = header("requestid").filter(|id| !id.is_empty() && id.len() <= 64);
    Some((request.map_or_else(|| format!("stream {first}"), str::to_owned), kind, port))
}

/// Forwards the agreed ports over WebSocket channels, until each has ended.
pub async fn run_websocket(cri: &Arc<Cri>, pod: &str, pairs: Vec<(u16, Incoming, Outgoing, Outgoing)>) {
    let mut running = JoinSet::new();
    for (port, incoming, data, error) in pairs {
        let (cri, pod) = (Arc::clone(cri), pod.to_owned());
        running.spawn(async move {
            for stream in [&data, &error] {
                // A client that has gone is noticed below.
                let _gone = stream.send(port.to_le_bytes().to_vec()).await;
            }
            pair(&cri, &pod, port, incoming, data, error).await;
        });
    }
    while running.join_next().await.is_some() {}
}

/// Forwards one connection, tells what went wrong, and ends both streams.
async fn pair(cri: &Arc<Cri>, pod: &str, port: u16, incoming: Incoming, data: Outgoing, error: Outgoing) {
    let outcome = forward(cri, pod, port, incoming, &data).await;
    let told = async {
        if let Err(failure) = outcome {
            let text = format!("error forwarding port {port} to pod {pod}, uid : {}", failure.text());
            tracing::debug!("{text}");
            error.send(text.into_bytes()).await?;
            data.reset().await?;
            return error.close().await;
        }
        data.close().await?;
        error.close().await
    };
    // A client that has gone needs no telling.
    let _gone = told.await;
}

async fn forward(
    cri: &Arc<Cri>,
    pod: &str,
    port: u16,
    mut incoming: Incoming,
    data: &Outgoing,
) -> Result<()> {
    let pod = cri.pods.get(pod)?;
    let netns = pod.record.netns.clone();
    let place = netns.as_ref().map_or_else(|| "host".to_owned(), |path| path.display().to_string());
    let ctx = cri.ctx();
    let connected = ctx.blocking(Lane::Wait, move |_| match &netns {
        None => connect(port),
        Some(path) => {
            let fd = net::netns::open(path).map_err(|error| Error::unavailable(error.to_string()))?;
            let ran = net::netns::run(fd.as_fd(), move || connect(port));
            ran.map_err(|error| Error::internal(error.to_string()))?
        }
    });
    let in_namespace =
        |error: Error| error.context(format!("failed to execute portforward in network namespace {place:?}"));
    let socket = connected.await.map_err(in_namespace)?;
    let failed = |error: std::io::Error| Error::internal(error.to_string());
    socket.set_nonblocking(true).map_err(failed)?;
    let mut socket = tokio::net::TcpStream::from_std(socket).map_err(failed)?;
    let (mut read, mut write) = socket.split();
    let to_pod = async {
        while let Some(bytes) = incoming.recv().await {
            write.write_all(&bytes).await?;
        }
        write.shutdown().await
    };
    let to_client = async {
        let mut piece = vec![0; 32 * 1024];
        loop {
            let count = read.read(&mut piece).await?;
            if count == 0 || data.send(piece[..count].to_vec()).await.is_err() {
                return Ok(());
            }
        }
    };
    let (mut to_pod, mut to_client) = (std::pin::pin!(to_pod), std::pin::pin!(to_client));
    // Each direction is polled on after the other has ended, for a moment.
    let outcome: std::io::Result<()> = tokio::select! {
        outcome = &mut to_pod => match outcome {
            // The client has said all; the pod may still answer for as long as it likes.
            Ok(()) => tokio::select! {
                answered = &mut to_client => answered,
                () = data.gone() => Ok(()),
            },
            failed => failed,
        },
        outcome = &mut to_client => {
            let _late = tokio::time::timeout(GRACE, &mut to_pod).await;
            outcome
        }
    };
    outcome.map_err(|error| in_namespace(Error::internal(error.to_string())))
}

/// A socket to the loopback address of this thread's network: IPv4 first, then IPv6.
fn connect(port: u16) -> Result<TcpStream> {
    let dial = |address| TcpStream::connect_timeout(&SocketAddr::new(address, port), CONNECT);
    dial(IpAddr::V4(Ipv4Addr::LOCALHOST)).or_else(|first| {
        dial(IpAddr::V6(Ipv6Addr::LOCALHOST)).map_err(|second| {
            Error::unavailable(format!("failed to connect to localhost:{port}, IPv4: {first} IPv6: {second}"))
        })
    })
}
