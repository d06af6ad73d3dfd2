//! Archive bytes on a stream: `Data` messages of at most 32 KiB, as far ahead as the receiver's `WindowUpdate`s allow.
//!
//! The archive code reads and writes on blocking threads; a task beside it speaks to the stream.

use std::io::{self, Read, Write};
use std::time::Duration;

use api::containerd::types::transfer::{Data, WindowUpdate};
use api::{decode_any, encode_any};
use model::{Error, Kind, Result};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::stream::Stream;

/// The most that one message carries.
const CHUNK: usize = 32 << 10;
/// How far a sender may be ahead of its receiver.
const WINDOW: i32 = 64 << 10;
/// How long the client may say nothing while we wait for it.
const IDLE: Duration = Duration::from_secs(300);
/// How many chunks wait between the stream and the archive.
const QUEUE: usize = 4;

type Chunk = io::Result<Vec<u8>>;

/// The bytes that a client sends.
pub struct Reader {
    chunks: mpsc::Receiver<Chunk>,
    left: Vec<u8>,
    at: usize,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.left.len() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => (self.left, self.at) = (chunk?, 0),
            }
        }
        let count = buffer.len().min(self.left.len() - self.at);
        buffer[..count].copy_from_slice(&self.left[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Reads what the client sends on `stream`.
pub fn reader(mut stream: Stream) -> Reader {
    let (send, chunks) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        if let Err(error) = receive(&mut stream, &send).await {
            // A reader that is gone needs no error.
            let _gone = send.send(Err(io::Error::other(error))).await;
        }
    });
    Reader { chunks, left: Vec::new(), at: 0 }
}

async fn receive(stream: &mut Stream, chunks: &mpsc::Sender<Chunk>) -> Result<()> {
    let mut window: i32 = 0;
    loop {
        if window < WINDOW {
            let update = encode_any(&WindowUpdate { update: WINDOW });
            // At the end of its data a client may have gone already; what it sent is still read.
            if stream.outgoing.send(Ok(update)).await.is_ok() {
                window += WINDOW;
            }
        }
        // Each arm is cancel-safe for its use: after the second nothing is read any more.
        let any = tokio::select! {
            message = tokio::time::timeout(IDLE, stream.incoming.message()) => message.map_err(|_| idle())?,
            () = chunks.closed() => return Ok(()),
        };
        let any = any.map_err(|status| grpc::status::from_status(&status))?;
        let Some(any) = any else { return Ok(()) };
        let Some(data) = decode_any::<Data>(&any).map_err(Error::invalid)? else { continue };
        window = window.saturating_sub(i32::try_from(data.data.len()).unwrap_or(i32::MAX));
        if chunks.send(Ok(data.data)).await.is_err() {
            return Ok(());
        }
    }
}

fn idle() -> Error {
    Error::new(Kind::DeadlineExceeded, "the client of the stream said nothing for too long")
}

/// Takes bytes for a client. Dropping it ends them.
pub struct Writer {
    chunks: mpsc::Sender<Vec<u8>>,
    pending: Vec<u8>,
}

impl Writer {
    fn send(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.pending, Vec::with_capacity(CHUNK));
        self.chunks.blocking_send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK - self.pending.len());
        self.pending.extend_from_slice(&bytes[..count]);
        if self.pending.len() == CHUNK {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A client that left does not want the rest.
        let _left = self.send();
    }
}

/// Writes to the client of `stream`; the handle tells when the last byte is on its way.
pub fn writer(stream: Stream) -> (Writer, JoinHandle<Result<()>>) {
    let (chunks, queue) = mpsc::channel(QUEUE);
    let sent = tokio::spawn(send(stream, queue));
    (Writer { chunks, pending: Vec::with_capacity(CHUNK) }, sent)
}

async fn send(mut stream: Stream, mut chunks: mpsc::Receiver<Vec<u8>>) -> Result<()> {
    let gone = || Error::new(Kind::Unavailable, "the client stopped reading");
    let mut window: i32 = 0;
    while let Some(chunk) = chunks.recv().await {
        let mut chunk = chunk.as_slice();
        while !chunk.is_empty() {
            while window <= 0 {
                let message = tokio::time::timeout(IDLE, stream.incoming.message()).await;
                let message = message.map_err(|_| idle())?.ok().flatten().ok_or_else(gone)?;
                if let Some(update) = decode_any::<WindowUpdate>(&message).map_err(Error::invalid)? {
                    window = window.saturating_add(update.update);
                }
            }
            let count = chunk.len().min(usize::try_from(window).unwrap_or(0));
            let (now, rest) = chunk.split_at(count);
            let data = encode_any(&Data { data: now.to_vec() });
            stream.outgoing.send(Ok(data)).await.map_err(|_| gone())?;
            window -= i32::try_from(count).unwrap_or(i32::MAX);
            chunk = rest;
        }
    }
    Ok(())
}
