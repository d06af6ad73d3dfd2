//! Two connections over one socket: `u32 connection, u32 length`, big endian, then so many bytes of a ttrpc stream.
//!
//! Invariant: no more is kept for a peer than one ttrpc message and one frame, whatever its headers claim.

use std::io;

use shim::ttrpc::frame::{self, FrameError, HEADER_LEN, Header, MAX_PAYLOAD};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The connection on which the plugin serves.
pub const PLUGIN: u32 = 1;
/// The connection on which we serve.
pub const RUNTIME: u32 = 2;

/// Bytes before every frame.
const HEADER: usize = 8;
/// The longest frame: one whole ttrpc message.
const MAX_FRAME: usize = HEADER_LEN + MAX_PAYLOAD;
/// The first frame of a message. Go's plugins read through a buffer of this size and fail on a frame that does not
/// fit, except where they read the rest of a message at once.
const FIRST: usize = 4096;

/// A ttrpc message as frames of `connection`.
pub fn pack(connection: u32, message: &[u8]) -> Vec<u8> {
    let (first, rest) = message.split_at(message.len().min(FIRST));
    let mut out = Vec::with_capacity(message.len() + 2 * HEADER);
    for part in [first, rest].into_iter().filter(|part| !part.is_empty()) {
        out.extend_from_slice(&connection.to_be_bytes());
        // A message is at most MAX_FRAME long.
        out.extend_from_slice(&(part.len() as u32).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// Reads one frame: its connection and its bytes.
///
/// # Errors
/// The socket ended, or a frame is longer than any message.
pub async fn read(socket: &mut (impl AsyncRead + Unpin)) -> io::Result<(u32, Vec<u8>)> {
    let connection = socket.read_u32().await?;
    let length = socket.read_u32().await?;
    if length as usize > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    // Grows with what comes, not with what was announced.
    let mut bytes = Vec::new();
    if socket.take(length.into()).read_to_end(&mut bytes).await? < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((connection, bytes))
}

/// What has come on one connection and is not a whole message yet.
#[derive(Debug, Default)]
pub struct Inbox(Vec<u8>);

impl Inbox {
    /// Takes the bytes of a frame.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole ttrpc message, if there is one.
    ///
    /// # Errors
    /// What has come is none.
    pub fn next(&mut self) -> Result<Option<(Header, Vec<u8>)>, FrameError> {
        let Some((header, end)) = frame::split(&self.0)? else { return Ok(None) };
        let payload = self.0.drain(..end).skip(HEADER_LEN).collect();
        Ok(Some((header, payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shim::ttrpc::frame::FrameType;

    fn message(length: usize) -> Vec<u8> {
        let header = Header { length, stream: 3, kind: FrameType::Request, flags: 0 };
        let mut bytes = header.encode().unwrap().to_vec();
        bytes.resize(HEADER_LEN + length, 7);
        bytes
    }

    #[tokio::test]
    async fn messages_of_every_size_arrive_whole() {
        for length in [0, 1, 4085, 4086, 4087, 70_000, MAX_PAYLOAD] {
            let packed = pack(RUNTIME, &message(length));
            let mut rest = packed.as_slice();
            let mut inbox = Inbox::default();
            let mut sizes = Vec::new();
            while !rest.is_empty() {
                assert_eq!(inbox.next(), Ok(None));
                let (connection, bytes) = read(&mut rest).await.unwrap();
                assert_eq!(connection, RUNTIME);
                sizes.push(bytes.len());
                inbox.push(&bytes);
            }
            assert!(sizes[0] <= FIRST && sizes.len() <= 2, "{sizes:?}");
            let (header, payload) = inbox.next().unwrap().unwrap();
            assert_eq!((header.stream, payload.len()), (3, length));
            assert_eq!(inbox.next(), Ok(None));
        }
    }

    #[tokio::test]
    async fn absurd_lengths_are_refused_and_short_frames_are_an_end() {
        let mut absurd: &[u8] = &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(read(&mut absurd).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut short: &[u8] = &[0, 0, 0, 1, 0, 0, 0, 9, 1, 2];
        assert_eq!(read(&mut short).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut inbox = Inbox::default();
        inbox.push(&[0xff; HEADER_LEN]);
        assert!(inbox.next().is_err());
    }
}
