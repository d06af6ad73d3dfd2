//! WebSocket channels as Kubernetes' clients speak them: the first byte of a message says which channel it is of.
//!
//! Protocols: `channel.k8s.io` and nothing (binary), `base64.channel.k8s.io` (text), their `v4.` forms (the outcome is
//! JSON), and `v5.channel.k8s.io` (the client can close a channel by the message 255, channel).

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::channel::{COMMANDS, Clock, Command, Incoming, Outgoing, PIECES};

/// The longest message of a client.
const MAX_MESSAGE: usize = 4 << 20;

/// The channel that closes others, since v5.
const CLOSE: u8 = 255;

/// How long a client may take to answer the end of a connection.
const FAREWELL: Duration = Duration::from_secs(1);

/// How a connection ends whose work is done.
const NORMAL: CloseFrame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") };

/// How channels are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Its name; empty when the client asked for none.
    pub name: &'static str,
    /// Whether messages are base64 text.
    base64: bool,
    /// Whether the outcome is JSON.
    pub json_status: bool,
    /// Whether the client can close a channel.
    closes: bool,
}

/// What exec and attach can speak.
const REMOTE: &[Protocol] = &[
    Protocol { name: "v5.channel.k8s.io", base64: false, json_status: true, closes: true },
    Protocol { name: "v4.channel.k8s.io", base64: false, json_status: true, closes: false },
    Protocol { name: "v4.base64.channel.k8s.io", base64: true, json_status: true, closes: false },
    Protocol { name: "channel.k8s.io", base64: false, json_status: false, closes: false },
    Protocol { name: "base64.channel.k8s.io", base64: true, json_status: false, closes: false },
    Protocol { name: "", base64: false, json_status: false, closes: false },
];

/// What port-forward can speak.
const FORWARD: &[Protocol] = &[
    Protocol { name: "v4.channel.k8s.io", base64: false, json_status: true, closes: false },
    Protocol { name: "v4.base64.channel.k8s.io", base64: true, json_status: true, closes: false },
    Protocol { name: "", base64: false, json_status: true, closes: false },
];

/// The first protocol that the client wants (a list with commas) and we have.
pub fn negotiate(asked: Option<&str>, forward: bool) -> Option<Protocol> {
    let known = if forward { FORWARD } else { REMOTE };
    let mut asked = asked.unwrap_or_default().split(',').map(str::trim);
    asked.find_map(|name| known.iter().find(|protocol| protocol.name == name).copied())
}

/// The user's end of a connection: channels by number.
#[derive(Debug)]
pub struct Connection {
    commands: mpsc::Sender<Command>,
}

impl Connection {
    /// The channel `number`, to be written.
    pub fn outgoing(&self, number: u8) -> Outgoing {
        Outgoing::new(number.into(), self.commands.clone())
    }

    /// Sends what is queued and ends the connection.
    pub async fn end(&self) {
        let _gone = self.commands.send(Command::End).await;
    }
}

/// Makes a connection of `io`, of which the channels `read` are read: the user's end, these channels, and what must be
/// driven for as long as it lasts.
pub async fn serve<T>(
    io: T,
    protocol: Protocol,
    read: &[u8],
    idle_timeout: Duration,
) -> (Connection, BTreeMap<u8, Incoming>, impl Future<Output = ()> + Send + use<T>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let (sink, source) = socket.split();
    let (commands, orders) = mpsc::channel(COMMANDS);
    let (mut queues, mut channels) = (BTreeMap::new(), BTreeMap::new());
    for number in read {
        let (queue, incoming) = mpsc::channel(PIECES);
        queues.insert(*number, queue);
        channels.insert(*number, incoming);
    }
    let clock = Clock::new(idle_timeout);
    let drive = async move {
        let mut reading = pin!(read_messages(source, protocol, queues, &clock));
        // Whichever ends first ends the connection; what was written is resumed by nobody.
        tokio::select! {
            () = &mut reading => {}
            () = write_messages(sink, protocol, orders, &clock) => {
                // A socket that is closed over unread bytes takes back what the client has not read of ours.
                let _silent = tokio::time::timeout(FAREWELL, reading).await;
            }
        }
    };
    (Connection { commands }, channels, drive)
}

async fn read_messages<T: AsyncRead + AsyncWrite + Unpin>(
    mut source: SplitStream<WebSocketStream<T>>,
    protocol: Protocol,
    mut queues: BTreeMap<u8, mpsc::Sender<Vec<u8>>>,
    clock: &Clock,
) {
    while let Some(Some(Ok(message))) = clock.bound(source.next()).await {
        let bytes = match &message {
            Message::Binary(bytes) => bytes.as_ref(),
            Message::Text(text) => text.as_bytes(),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        match (protocol.closes, bytes) {
            (_, []) => {}
            (true, [CLOSE, number]) => drop(queues.remove(number)),
            // containerd ends the connection too.
            (true, [CLOSE, ..]) => return,
            (_, [number, rest @ ..]) => {
                let Some((number, bytes)) = decode(protocol, *number, rest) else { continue };
                if let Some(queue) = queues.get(&number)
                    && !bytes.is_empty()
                {
                    // A reader that has left wants no more of it.
                    let _left = queue.send(bytes).await;
                }
            }
        }
    }
}

fn decode(protocol: Protocol, number: u8, rest: &[u8]) -> Option<(u8, Vec<u8>)> {
    match protocol.base64 {
        true => Some((number.checked_sub(b'0')?, BASE64_STANDARD.decode(rest).ok()?)),
        false => Some((number, rest.to_vec())),
    }
}

async fn write_messages<T: AsyncRead + AsyncWrite + Unpin>(
    mut sink: SplitSink<WebSocketStream<T>, Message>,
    protocol: Protocol,
    mut orders: mpsc::Receiver<Command>,
    clock: &Clock,
) {
    while let Some(command) = orders.recv().await {
        match command {
            Command::Data(number, bytes) => {
                if sink.send(encode(protocol, number as u8, &bytes)).await.is_err() {
                    return;
                }
                clock.touch();
            }
            Command::End => {
                // Go's clients take anything but a normal closure for a failure. The client may have gone.
                let _gone = sink.send(Message::Close(Some(NORMAL))).await;
                return;
            }
            // Channels are not opened or closed one by one by the server, and pings answer themselves.
            _ => {}
        }
    }
}

fn encode(protocol: Protocol, number: u8, bytes: &[u8]) -> Message {
    match protocol.base64 {
        true => Message::text(format!("{}{}", char::from(b'0' + number), BASE64_STANDARD.encode(bytes))),
        false => Message::binary([&[number][..], bytes].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_protocol_that_both_have_is_spoken() {
        let name = |asked, forward| negotiate(asked, forward).map(|protocol| protocol.name);
        assert_eq!(
            name(Some("v9.channel.k8s.io, v4.channel.k8s.io,channel.k8s.io"), false),
            Some("v4.channel.k8s.io")
        );
        assert_eq!(name(None, false), Some(""));
        assert_eq!(name(Some("v5.channel.k8s.io"), true), None);
        assert_eq!(name(Some("SPDY/3.1+portforward.k8s.io"), true), None);
    }

    #[test]
    fn messages_begin_with_their_channel() {
        let base64 = negotiate(Some("base64.channel.k8s.io"), false).unwrap();
        assert_eq!(encode(base64, 1, b"\n"), Message::text("1Cg=="));
        assert_eq!(decode(base64, b'0', b"Zm9vCgo="), Some((0, b"foo\n\n".to_vec())));
        assert_eq!(decode(base64, b'0', b"no base64!"), None);
        assert_eq!(decode(base64, b'!', b""), None);
        let binary = negotiate(None, false).unwrap();
        assert_eq!(encode(binary, 2, b"x"), Message::binary(vec![2, b'x']));
    }
}
