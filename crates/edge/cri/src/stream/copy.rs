//! Copies between a process's FIFOs and a client's streams.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;

use super::channel::{Incoming, Outgoing};

/// How many bytes go in one piece.
const PIECE: usize = 32 * 1024;

/// Sends what `fifo` gives until its end. A client that has gone is read for to the end all the same, so that the
/// process is never stopped by it; answers whether the client stayed.
pub async fn output(fifo: Option<pipe::Receiver>, client: Option<Outgoing>) -> bool {
    let Some(mut fifo) = fifo else { return true };
    let mut there = client.is_some();
    let mut piece = vec![0; PIECE];
    loop {
        match fifo.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                if let Some(client) = client.as_ref().filter(|_| there) {
                    there = client.send(piece[..count].to_vec()).await.is_ok();
                }
            }
        }
    }
    there
}

/// The same, but ends as soon as the client has gone.
pub async fn output_while_there(fifo: Option<pipe::Receiver>, client: Option<Outgoing>) {
    let (Some(mut fifo), Some(client)) = (fifo, client) else { return std::future::pending().await };
    let mut piece = vec![0; PIECE];
    while let Ok(count) = fifo.read(&mut piece).await {
        if count == 0 || client.send(piece[..count].to_vec()).await.is_err() {
            return;
        }
    }
}

/// Feeds what the client sends to `fifo` until the client's end.
pub async fn input(client: &mut Incoming, fifo: &mut pipe::Sender) {
    while let Some(bytes) = client.recv().await {
        if fifo.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
