//! Frames of SPDY/3.1: eight bytes of header, then the payload.
//!
//! ```text
//! control  |1| version 15 | type 16 |        data  |0| stream id 31 |
//!          | flags 8 | length 24 |                 | flags 8 | length 24 |
//! ```
//!
//! Invariant: nothing is read into memory that is longer than its bound, whatever a header says.

use tokio::io::{AsyncRead, AsyncReadExt};

use super::headers::{Decoder, Headers};

/// SPDY/3.
const VERSION: u16 = 3;

/// The flag that ends the sender's half of a stream.
const FIN: u8 = 1;

/// The longest payload of a control frame.
const MAX_CONTROL: usize = 64 * 1024;

/// The longest piece in which data is handed on.
const MAX_PIECE: usize = 32 * 1024;

/// What the other end says. Frames that a server may ignore (settings, windows) are not told.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    Open { stream: u32, headers: Headers, fin: bool },
    /// Ends a stream at once.
    Reset { stream: u32 },
    /// Asks for the same back.
    Ping { id: u32 },
    /// No more streams will be opened.
    GoAway,
    /// Bytes of a stream; `fin` with the last.
    Data { stream: u32, bytes: Vec<u8>, fin: bool },
}

/// Why no more frames can be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection failed or ended in the middle of a frame.
    #[error("cannot read a frame")]
    Read(#[from] std::io::Error),
    /// Not SPDY/3.
    #[error("SPDY version {0}")]
    Version(u16),
    /// Longer than anything sensible.
    #[error("a control frame of {0} bytes")]
    TooLong(usize),
    /// The payload is shorter than its type needs.
    #[error("a frame of type {0} is cut short")]
    Short(u16),
    /// The headers are no headers.
    #[error("the headers of stream {stream} do not decode: {reason}")]
    Headers { stream: u32, reason: &'static str },
}

/// Reads frames.
pub struct Reader<R> {
    io: R,
    decoder: Decoder,
    /// What is left of the data frame being read: stream, bytes, whether it is the last.
    rest: Option<(u32, usize, bool)>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads from `io`.
    pub fn new(io: R) -> Self {
        Self { io, decoder: Decoder::default(), rest: None }
    }

    /// The next frame; `None` once the other end has closed between two frames.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some((stream, left, fin)) = self.rest.take() {
                return self.data(stream, left, fin).await.map(Some);
            }
            let mut header = [0; 8];
            let count = self.io.read(&mut header).await?;
            if count == 0 {
                return Ok(None);
            }
            self.io.read_exact(&mut header[count..]).await?;
            let length = usize::from(header[5]) << 16 | usize::from(header[6]) << 8 | usize::from(header[7]);
            let first = word(&header);
            if first & 1 << 31 == 0 {
                self.rest = Some((first, length, header[4] & FIN != 0));
                continue;
            }
            if let Some(frame) = self.control(first, header[4], length).await? {
                return Ok(Some(frame));
            }
        }
    }

    async fn data(&mut self, stream: u32, left: usize, fin: bool) -> Result<Frame, FrameError> {
        let mut bytes = vec![0; left.min(MAX_PIECE)];
        self.io.read_exact(&mut bytes).await?;
        let left = left - bytes.len();
        if left > 0 {
            self.rest = Some((stream, left, fin));
        }
        Ok(Frame::Data { stream, bytes, fin: fin && left == 0 })
    }

    async fn control(&mut self, first: u32, flags: u8, length: usize) -> Result<Option<Frame>, FrameError> {
        let version = (first >> 16 & 0x7fff) as u16;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if length > MAX_CONTROL {
            return Err(FrameError::TooLong(length));
        }
        let mut payload = vec![0; length];
        self.io.read_exact(&mut payload).await?;
        let kind = first as u16;
        let long_enough = |need| if payload.len() < need { Err(FrameError::Short(kind)) } else { Ok(()) };
        Ok(match kind {
            1 => {
                long_enough(10)?;
                let stream = word(&payload) & !(1 << 31);
                let headers = self.decode(stream, &payload[10..])?;
                Some(Frame::Open { stream, headers, fin: flags & FIN != 0 })
            }
            // Replies and later headers mean nothing to a server, but the state of the compression goes on with them.
            2 | 8 => {
                long_enough(4)?;
                self.decode(word(&payload), &payload[4..])?;
                None
            }
            3 => {
                long_enough(8)?;
                Some(Frame::Reset { stream: word(&payload) & !(1 << 31) })
            }
            6 => {
                long_enough(4)?;
                Some(Frame::Ping { id: word(&payload) })
            }
            7 => Some(Frame::GoAway),
            _ => None,
        })
    }

    fn decode(&mut self, stream: u32, block: &[u8]) -> Result<Headers, FrameError> {
        self.decoder.decode(block).map_err(|reason| FrameError::Headers { stream, reason })
    }
}

/// The first four bytes as a number; the callers have made sure of them.
fn word(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// A control frame.
pub fn control(kind: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(8 + payload.len());
    frame.extend((1 << 15 | VERSION).to_be_bytes());
    frame.extend(kind.to_be_bytes());
    // Ours are a few bytes long.
    frame.extend((u32::from(flags) << 24 | payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame
}

/// The acceptance of a stream; `block` is its compressed headers.
pub fn reply(stream: u32, block: &[u8]) -> Vec<u8> {
    control(2, 0, &[&stream.to_be_bytes(), block].concat())
}

/// The end of a stream; protocol error (1), refused (3), cancel (5), ...
pub fn reset(stream: u32, status: u32) -> Vec<u8> {
    control(3, 0, &[stream.to_be_bytes(), status.to_be_bytes()].concat())
}

/// The answer to a ping.
pub fn ping(id: u32) -> Vec<u8> {
    control(6, 0, &id.to_be_bytes())
}

/// The end of the connection: `last` is the last stream that was accepted.
pub fn go_away(last: u32) -> Vec<u8> {
    control(7, 0, &[last.to_be_bytes(), [0; 4]].concat())
}

/// The header of a data frame; at most 2^24-1 bytes follow.
pub fn data_header(stream: u32, length: usize, fin: bool) -> [u8; 8] {
    let (id, rest) =
        (stream.to_be_bytes(), (length as u32 & 0x00ff_ffff | u32::from(fin) << 24).to_be_bytes());
    [id[0], id[1], id[2], id[3], rest[0], rest[1], rest[2], rest[3]]
}

#[cfg(test)]
mod tests {
    use super::super::headers::Encoder;
    use super::*;
    use proptest::prelude::*;

    async fn all(bytes: &[u8]) -> (Vec<Frame>, Option<FrameError>) {
        let mut reader = Reader::new(bytes);
        let mut frames = Vec::new();
        loop {
            match reader.next().await {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, None),
                Err(error) => return (frames, Some(error)),
            }
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_stream_opens_carries_data_and_ends() {
        let headers = Headers::from([("streamtype".to_owned(), "stdin".to_owned())]);
        let mut bytes = control(
            1,
            0,
            &[&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &Encoder::default().encode(&headers)].concat(),
        );
        bytes.extend(control(4, 0, &[0, 0, 0, 0]));
        bytes.extend(data_header(1, 2, true));
        bytes.extend(b"hi");
        bytes.extend(ping(7));
        bytes.extend(go_away(0));
        let (frames, error) = run(all(&bytes));
        assert!(error.is_none());
        assert_eq!(
            frames,
            [
                Frame::Open { stream: 1, headers, fin: false },
                Frame::Data { stream: 1, bytes: b"hi".to_vec(), fin: true },
                Frame::Ping { id: 7 },
                Frame::GoAway,
            ]
        );
    }

    #[test]
    fn long_data_comes_in_pieces_of_which_only_the_last_is_the_end() {
        let mut bytes = data_header(3, MAX_PIECE + 1, true).to_vec();
        bytes.extend(vec![7; MAX_PIECE + 1]);
        let (frames, _) = run(all(&bytes));
        let told: Vec<_> = frames
            .iter()
            .map(|frame| match frame {
                Frame::Data { bytes, fin, .. } => (bytes.len(), *fin),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, [(MAX_PIECE, false), (1, true)]);
    }

    #[test]
    fn what_is_no_spdy_is_refused() {
        for (bytes, expected) in [
            (&b"\x80\x02\0\x06\0\0\0\x04\0\0\0\x01"[..], "SPDY version 2"),
            (b"\x80\x03\0\x06\0\xff\xff\xff", "a control frame of 16777215 bytes"),
            (b"\x80\x03\0\x06\0\0\0\x01\0", "a frame of type 6 is cut short"),
            (b"\x80\x03\0", "cannot read a frame"),
            (
                b"\x80\x03\0\x01\0\0\0\x0c\0\0\0\x01\0\0\0\0\0\0ab",
                "the headers of stream 1 do not decode: not zlib",
            ),
        ] {
            let (frames, error) = run(all(bytes));
            assert!(frames.is_empty());
            assert_eq!(error.unwrap().to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512), kind in 0u8..10) {
            let mut framed = vec![0x80, 3, 0, kind];
            framed.extend(&bytes);
            let _frames = run(all(&framed));
            let _frames = run(all(&bytes));
        }
    }
}
