//! The ttrpc server: shims forward their events here.
//!
//! Invariant: a peer costs at most one frame of memory at a time, and one that sends nonsense is dropped.

use std::io;

use api::Message;
use api::containerd::services::events::ttrpc::v1::ForwardRequest;
use api::ttrpc::Request;
use grpc::convert::required;
use model::event::Exchange;
use shim::ttrpc::frame::{FrameType, HEADER_LEN, Header};
use shim::ttrpc::message;
use spec::{Error, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::service::events::envelope;

/// The one service that shims call.
const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

/// Serves until `stop` turns true; whoever is connected then is cut off, and tries again with the next daemon.
pub async fn serve(exchange: Exchange, listener: UnixListener, stop: watch::Receiver<bool>) {
    let told = told(stop);
    tokio::pin!(told);
    let mut peers = JoinSet::new();
    loop {
        // Each arm is cancel-safe: a connection is accepted or not, a peer that ended stays ended.
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => { peers.spawn(peer(exchange.clone(), socket)); }
                Err(error) => {
                    tracing::error!(%error, "ttrpc: cannot accept");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            },
            Some(_) = peers.join_next() => {}
            () = &mut told => return,
        }
    }
}

/// Returns once the daemon stops.
async fn told(mut stop: watch::Receiver<bool>) {
    // An error means that the other end is gone, which is a stop too.
    let _told = stop.wait_for(|stop| *stop).await;
}

async fn peer(exchange: Exchange, mut socket: UnixStream) {
    if let Err(error) = answer_all(&exchange, &mut socket).await
        && error.kind() != io::ErrorKind::UnexpectedEof
    {
        tracing::debug!(%error, "ttrpc: dropping a peer");
    }
}

async fn answer_all(exchange: &Exchange, socket: &mut UnixStream) -> io::Result<()> {
    loop {
        let mut head = [0; HEADER_LEN];
        socket.read_exact(&mut head).await?;
        let header = Header::decode(&head).map_err(io::Error::other)?;
        let mut payload = vec![0; header.length];
        socket.read_exact(&mut payload).await?;
        if header.kind != FrameType::Request {
            continue;
        }
        let result = handle(exchange, &payload);
        let mut out = Vec::new();
        message::append(header.stream, FrameType::Response, &message::response(result), &mut out)
            .map_err(io::Error::other)?;
        socket.write_all(&out).await?;
    }
}

fn handle(exchange: &Exchange, payload: &[u8]) -> Result<Vec<u8>> {
    let decode = |error: api::DecodeError| Error::invalid(error);
    let request = Request::decode(payload).map_err(decode)?;
    if request.service != SERVICE || request.method != "Forward" {
        let name = format!("/{}/{}", request.service, request.method);
        return Err(Error::unimplemented(name));
    }
    let forward = ForwardRequest::decode(request.payload.as_slice()).map_err(decode)?;
    exchange.forward(envelope(required(forward.envelope, "envelope")?)?);
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::containerd::types::Envelope;
    use shim::ttrpc::client::Client;
    use std::time::Duration;

    #[tokio::test]
    async fn a_forwarded_event_reaches_subscribers_and_nonsense_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.ttrpc");
        let exchange = Exchange::default();
        let mut subscription = exchange.subscribe();
        let (_go_on, stop) = watch::channel(false);
        let listener = crate::server::unix::listen(&path, 0, 0).unwrap();
        tokio::spawn(serve(exchange, listener, stop));
        let shim = std::thread::spawn(move || {
            let mut client = Client::connect(&path, "ns", Duration::from_secs(20)).unwrap();
            let envelope = Envelope {
                timestamp: Some(api::timestamp(std::time::SystemTime::now())),
                namespace: "ns".into(),
                topic: "/tasks/start".into(),
                event: Some(api::Any::default()),
            };
            let bad = ForwardRequest { envelope: Some(Envelope { topic: "x".into(), ..envelope.clone() }) };
            assert!(client.call::<_, ()>(SERVICE, "Forward", &bad).is_err());
            assert!(client.call::<_, ()>(SERVICE, "Nope", &bad).is_err());
            let good = ForwardRequest { envelope: Some(envelope) };
            client.call::<_, ()>(SERVICE, "Forward", &good).unwrap();
        });
        assert_eq!(subscription.next().await.topic, "/tasks/start");
        shim.join().unwrap();
    }
}
