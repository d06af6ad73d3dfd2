//! A server's end of a SPDY/3.1 connection.
//!
//! ```text
//! reader ──frames──► the streams' queues        writer ◄──commands── Outgoing of every stream
//!    └──new streams──► whoever takes them
//! ```
//!
//! No flow control: the clients of Kubernetes (moby/spdystream) have none; a full queue stops the reader, and TCP does
//! the rest.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::super::channel::{COMMANDS, Clock, Command, Incoming, Outgoing, PIECES};
use super::frame::{self, Frame, Reader};
use super::headers::{Encoder, Headers};

/// How many streams may be open at once on one connection.
const MAX_STREAMS: usize = 1000;

/// The status of a stream that breaks the protocol.
const PROTOCOL_ERROR: u32 = 1;
/// The status of a stream that nobody wants.
const REFUSED: u32 = 3;
/// The status of a stream that is given up.
const CANCEL: u32 = 5;

/// A stream that the client has opened.
#[derive(Debug)]
pub struct Opened {
    /// Its number.
    pub id: u32,
    /// What it is for.
    pub headers: Headers,
    /// What comes on it.
    pub incoming: Incoming,
    /// Answers on it.
    pub outgoing: Outgoing,
}

/// The user's end of a connection.
#[derive(Debug)]
pub struct Connection {
    /// Streams as they are opened; `None` once the connection has ended. Each is accepted by [`Connection::accept`].
    pub opened: mpsc::Receiver<Opened>,
    commands: mpsc::Sender<Command>,
}

impl Connection {
    /// Tells the client that a stream is accepted.
    pub async fn accept(&self, id: u32) {
        // A client that has gone is noticed at `opened`.
        let _gone = self.commands.send(Command::Accept(id)).await;
    }

    /// Tells the client that a stream is not wanted.
    pub async fn refuse(&self, id: u32) {
        let _gone = self.commands.send(Command::Refuse(id)).await;
    }

    /// Sends what is queued and ends the connection.
    pub async fn end(&self) {
        let _gone = self.commands.send(Command::End).await;
    }
}

/// Makes a connection of `io`: the user's end, and what must be driven for as long as it lasts.
pub fn serve<T>(io: T, idle_timeout: Duration) -> (Connection, impl Future<Output = ()> + Send)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let (commands, orders) = mpsc::channel(COMMANDS);
    let (open, opened) = mpsc::channel(1);
    let (read, write) = tokio::io::split(io);
    let clock = Clock::new(idle_timeout);
    let reading = read_frames(Reader::new(Box::pin(read)), open, commands.clone(), clock.clone());
    let writing = write_frames(Box::pin(write), orders, clock);
    let drive = async move {
        // Whichever ends first ends the connection; neither is resumed.
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    };
    (Connection { opened, commands }, drive)
}

async fn read_frames<R: AsyncRead + Unpin>(
    mut reader: Reader<R>,
    open: mpsc::Sender<Opened>,
    commands: mpsc::Sender<Command>,
    clock: Clock,
) {
    let mut streams: BTreeMap<u32, mpsc::Sender<Vec<u8>>> = BTreeMap::new();
    let mut last = 0;
    loop {
        let Some(frame) = clock.bound(reader.next()).await else { return };
        match frame {
            Ok(Some(Frame::Open { stream, headers, fin })) => {
                streams.retain(|_, queue| !queue.is_closed());
                if stream.is_multiple_of(2) || stream <= last || streams.len() >= MAX_STREAMS {
                    let _gone = commands.send(Command::Refuse(stream)).await;
                    continue;
                }
                last = stream;
                let (queue, incoming) = mpsc::channel(PIECES);
                if !fin {
                    streams.insert(stream, queue);
                }
                let outgoing = Outgoing::new(stream, commands.clone());
                if open.send(Opened { id: stream, headers, incoming, outgoing }).await.is_err() {
                    // Nobody takes streams any more; the ones that are open go on.
                    let _gone = commands.send(Command::Refuse(stream)).await;
                }
            }
            Ok(Some(Frame::Data { stream, bytes, fin })) => {
                if let Some(queue) = streams.get(&stream)
                    && !bytes.is_empty()
                {
                    // A reader that has left wants no more of it.
                    let _left = queue.send(bytes).await;
                }
                if fin {
                    streams.remove(&stream);
                }
            }
            Ok(Some(Frame::Reset { stream })) => drop(streams.remove(&stream)),
            Ok(Some(Frame::Ping { id })) => {
                if id % 2 == 1 && commands.send(Command::Pong(id)).await.is_err() {
                    return;
                }
            }
            // Open streams go on; the client closes when it has what it wants.
            Ok(Some(Frame::GoAway)) => {}
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "a SPDY connection ends");
                return;
            }
        }
    }
}

async fn write_frames<W: AsyncWrite + Unpin>(mut io: W, mut orders: mpsc::Receiver<Command>, clock: Clock) {
    let mut encoder = Encoder::default();
    let mut last = 0;
    while let Some(command) = orders.recv().await {
        let end = matches!(command, Command::End);
        let (head, data) = match command {
            Command::Accept(id) => {
                last = id;
                (frame::reply(id, &encoder.encode(&Headers::new())), Vec::new())
            }
            Command::Refuse(id) => {
                let status = if id.is_multiple_of(2) { PROTOCOL_ERROR } else { REFUSED };
                (frame::reset(id, status), Vec::new())
            }
            Command::Reset(id) => (frame::reset(id, CANCEL), Vec::new()),
            Command::Pong(id) => (frame::ping(id), Vec::new()),
            Command::Close(id) => (frame::data_header(id, 0, true).to_vec(), Vec::new()),
            Command::Data(id, bytes) => (frame::data_header(id, bytes.len(), false).to_vec(), bytes),
            Command::End => (frame::go_away(last), Vec::new()),
        };
        let written = async {
            io.write_all(&head).await?;
            io.write_all(&data).await?;
            io.flush().await
        };
        if written.await.is_err() {
            return;
        }
        clock.touch();
        if end {
            // The client sees the end of the stream behind everything that was sent.
            let _gone = io.shutdown().await;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, DuplexStream};

    /// A client's end, which writes frames and reads them byte by byte.
    struct Client {
        io: DuplexStream,
        encoder: Encoder,
    }

    impl Client {
        async fn open(&mut self, id: u32, kind: &str) {
            let headers = Headers::from([("streamtype".to_owned(), kind.to_owned())]);
            let payload = [&id.to_be_bytes()[..], &[0; 6], &self.encoder.encode(&headers)].concat();
            self.io.write_all(&frame::control(1, 0, &payload)).await.unwrap();
        }

        async fn send(&mut self, id: u32, bytes: &[u8], fin: bool) {
            self.io.write_all(&frame::data_header(id, bytes.len(), fin)).await.unwrap();
            self.io.write_all(bytes).await.unwrap();
        }

        /// The first eight bytes of the next frame, and its payload.
        async fn receive(&mut self) -> ([u8; 8], Vec<u8>) {
            let mut header = [0; 8];
            self.io.read_exact(&mut header).await.unwrap();
            let length = usize::from(header[6]) << 8 | usize::from(header[7]);
            let mut payload = vec![0; length];
            self.io.read_exact(&mut payload).await.unwrap();
            (header, payload)
        }
    }

    fn pair(idle: Duration) -> (Client, Connection, tokio::task::JoinHandle<()>) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (connection, drive) = serve(ours, idle);
        (Client { io: theirs, encoder: Encoder::default() }, connection, tokio::spawn(drive))
    }

    #[tokio::test]
    async fn streams_carry_bytes_both_ways_and_end_apart() {
        let (mut client, mut connection, drive) = pair(Duration::from_secs(60));
        client.open(1, "stdin").await;
        client.open(3, "stdout").await;
        let mut stdin = connection.opened.recv().await.unwrap();
        let stdout = connection.opened.recv().await.unwrap();
        assert_eq!((stdin.id, stdin.headers["streamtype"].as_str()), (1, "stdin"));
        connection.accept(1).await;
        assert_eq!(client.receive().await.0[..4], [0x80, 3, 0, 2]);
        client.send(1, b"typed", true).await;
        assert_eq!(stdin.incoming.recv().await.unwrap(), b"typed");
        assert_eq!(stdin.incoming.recv().await, None);
        stdout.outgoing.send(b"shown".to_vec()).await.unwrap();
        stdout.outgoing.close().await.unwrap();
        let (header, payload) = client.receive().await;
        assert_eq!((header[..5].to_vec(), payload), (vec![0, 0, 0, 3, 0], b"shown".to_vec()));
        let (header, payload) = client.receive().await;
        assert_eq!((header, payload), ([0, 0, 0, 3, 1, 0, 0, 0], vec![]));
        connection.end().await;
        assert_eq!(client.receive().await.0[..4], [0x80, 3, 0, 7]);
        drive.await.unwrap();
        assert!(stdout.outgoing.send(b"late".to_vec()).await.is_err());
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_noticed_by_every_stream() {
        let (mut client, mut connection, drive) = pair(Duration::from_secs(60));
        client.open(1, "stdin").await;
        let mut stdin = connection.opened.recv().await.unwrap();
        drop(client);
        assert_eq!(stdin.incoming.recv().await, None);
        drive.await.unwrap();
        stdin.outgoing.gone().await;
    }

    #[tokio::test]
    async fn numbers_that_go_back_or_are_even_are_refused_and_pings_answered() {
        let (mut client, mut connection, _drive) = pair(Duration::from_secs(60));
        client.open(5, "data").await;
        connection.opened.recv().await.unwrap();
        for id in [3, 6] {
            client.open(id, "data").await;
            let (header, payload) = client.receive().await;
            assert_eq!((header[3], &payload[..4]), (3, &[0, 0, 0, id as u8][..]));
        }
        client.io.write_all(&frame::ping(9)).await.unwrap();
        assert_eq!(client.receive().await, (frame::ping(9)[..8].try_into().unwrap(), vec![0, 0, 0, 9]));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection_but_not_while_something_is_sent() {
        let (mut client, mut connection, drive) = pair(Duration::from_secs(10));
        client.open(1, "stdout").await;
        let stdout = connection.opened.recv().await.unwrap();
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(6)).await;
            stdout.outgoing.send(b"x".to_vec()).await.unwrap();
            client.receive().await;
        }
        tokio::time::advance(Duration::from_secs(11)).await;
        drive.await.unwrap();
    }
}
