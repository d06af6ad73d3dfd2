//! Byte and message streams beside a transfer: the client opens one by a name that it then gives to the transfer.

use std::io::{Read, Write};

use api::Any;
use api::containerd::services::streaming::v1::StreamInit;
use api::containerd::types::transfer::{AuthRequest, AuthResponse, AuthType, Data, WindowUpdate};
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::client::Client;
use crate::failure::{Failure, Result};

/// How many bytes a sender may be ahead of its receiver.
const WINDOW: i32 = 64 << 10;
/// The most that one message carries.
const CHUNK: usize = 32 << 10;

/// An open stream.
pub struct Stream {
    /// Its name.
    pub id: String,
    send: mpsc::Sender<Any>,
    receive: Streaming<Any>,
}

/// Opens a stream under a fresh name and waits until the daemon has it.
pub async fn open(client: &Client, what: &str) -> Result<Stream> {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let serial = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let id = format!("{what}-{}-{serial}-{now:x}", std::process::id());
    let (send, outgoing) = mpsc::channel(8);
    let init = api::encode_any(&StreamInit { id: id.clone() });
    send.send(init).await.map_err(|_| Failure::new("the stream closed at once"))?;
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let mut receive = client.streaming().stream(outgoing).await?.into_inner();
    receive.message().await?.ok_or_else(|| Failure::new("the daemon closed the stream at once"))?;
    Ok(Stream { id, send, receive })
}

fn decode<M: api::Message + api::Name + Default>(any: &Any) -> Result<Option<M>> {
    api::decode_any(any).map_err(|error| Failure::new(format!("malformed stream message: {error}")))
}

impl Stream {
    /// Gives every message of type `M` to `handle` until the stream ends.
    pub async fn each<M: api::Message + api::Name + Default>(mut self, mut handle: impl FnMut(M)) {
        // The transfer itself reports what went wrong; a stream just ends.
        while let Ok(Some(any)) = self.receive.message().await {
            if let Ok(Some(message)) = decode::<M>(&any) {
                handle(message);
            }
        }
    }

    /// Sends what `source` has, as the receiver gives room, or until it wants no more: the transfer tells why.
    ///
    /// # Errors
    /// `source` cannot be read.
    pub async fn send_all(mut self, source: impl Read + Send + 'static) -> Result {
        let (chunks, mut pending) = mpsc::channel::<std::io::Result<Vec<u8>>>(2);
        std::thread::spawn(move || read_chunks(source, &chunks));
        let mut window: i32 = 0;
        while let Some(chunk) = pending.recv().await {
            let mut chunk = &chunk?[..];
            while !chunk.is_empty() {
                while window <= 0 {
                    let Ok(Some(any)) = self.receive.message().await else { return Ok(()) };
                    if let Some(update) = decode::<WindowUpdate>(&any)? {
                        window = window.saturating_add(update.update);
                    }
                }
                let count = chunk.len().min(usize::try_from(window).unwrap_or(0));
                let (now, rest) = chunk.split_at(count);
                let data = api::encode_any(&Data { data: now.to_vec() });
                if self.send.send(data).await.is_err() {
                    return Ok(());
                }
                window -= i32::try_from(count).unwrap_or(i32::MAX);
                chunk = rest;
            }
        }
        // Closing our half says that this was all. Dropping the other half now would reset the stream, and what is still
        // on its way with it; the daemon ends it when it has read everything.
        drop(self.send);
        while let Ok(Some(_)) = self.receive.message().await {}
        Ok(())
    }

    /// Writes what arrives to `sink`, giving room for more as it goes.
    pub async fn receive_all(mut self, mut sink: impl Write) -> Result {
        let mut room = WINDOW;
        loop {
            if room >= WINDOW / 2 {
                let update = api::encode_any(&WindowUpdate { update: room });
                // The last window of a stream may find the sender gone; what it sent is still read.
                let _ended = self.send.send(update).await;
                room = 0;
            }
            let Some(any) = self.receive.message().await? else { return Ok(sink.flush()?) };
            let Some(data) = decode::<Data>(&any)? else { continue };
            sink.write_all(&data.data)?;
            room += i32::try_from(data.data.len()).unwrap_or(i32::MAX);
        }
    }

    /// Answers every question for credentials.
    pub async fn answer(mut self, credentials: Credentials) {
        while let Ok(Some(any)) = self.receive.message().await {
            let Ok(Some(request)) = decode::<AuthRequest>(&any) else { continue };
            let response = credentials.for_host(&request.host);
            if self.send.send(api::encode_any(&response)).await.is_err() {
                return;
            }
        }
    }
}

fn read_chunks(mut source: impl Read, chunks: &mpsc::Sender<std::io::Result<Vec<u8>>>) {
    loop {
        let mut chunk = vec![0; CHUNK];
        let read = source.read(&mut chunk);
        let read = match read {
            Ok(0) => return,
            Ok(count) => {
                chunk.truncate(count);
                Ok(chunk)
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        if chunks.blocking_send(read).is_err() || failed {
            return;
        }
    }
}

/// What `--user` and `--refresh` give, for one registry.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The registry of the reference; no other host is told.
    pub host: String,
    /// User name; empty with a refresh token.
    pub username: String,
    /// Password or refresh token.
    pub secret: String,
}

impl Credentials {
    fn for_host(&self, host: &str) -> AuthResponse {
        let same = |a: &str, b: &str| a == b || (a == "docker.io" && b == "registry-1.docker.io");
        if !same(&self.host, host) {
            return AuthResponse { auth_type: AuthType::None.into(), ..Default::default() };
        }
        let auth_type = if self.username.is_empty() { AuthType::Refresh } else { AuthType::Credentials };
        AuthResponse {
            auth_type: auth_type.into(),
            secret: self.secret.clone(),
            username: self.username.clone(),
            expire_at: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_their_host_only() {
        let credentials = Credentials { host: "a.io".into(), username: "u".into(), secret: "p".into() };
        assert_eq!(credentials.for_host("a.io").auth_type(), AuthType::Credentials);
        assert_eq!(credentials.for_host("b.io").auth_type(), AuthType::None);
        assert_eq!(credentials.for_host("b.io").secret, "");
    }
}
