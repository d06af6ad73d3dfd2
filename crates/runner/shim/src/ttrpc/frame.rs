//! The frame: `u32 length, u32 stream, u8 type, u8 flags`, big endian, then `length` bytes.
//!
//! A client numbers its streams 1, 3, 5, ...; a unary call is one request frame and one response frame of the same stream.
//!
//! Invariant: nothing here reads, writes or allocates more than the caller's own buffers.

use spec::error::{HasKind, Kind};

/// Bytes before the payload of every frame.
pub const HEADER_LEN: usize = 10;

/// The longest payload that either end of ttrpc takes.
pub const MAX_PAYLOAD: usize = 4 << 20;

/// Flag of a request or data frame: the sender sends nothing more on this stream.
pub const FLAG_REMOTE_CLOSED: u8 = 1;
/// Flag of a request frame: the sender goes on with data frames.
pub const FLAG_REMOTE_OPEN: u8 = 2;
/// Flag of a data frame: it only closes, there is no message in it.
pub const FLAG_NO_DATA: u8 = 4;

/// What the payload of a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameType {
    /// An `api::ttrpc::Request`, client to server.
    Request,
    /// An `api::ttrpc::Response`, server to client.
    Response,
    /// One message of a stream, either way.
    Data,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header announces more than [`MAX_PAYLOAD`]; nothing after it can be trusted.
    #[error("message of {0} bytes exceeds the maximum of {MAX_PAYLOAD} bytes")]
    TooLong(usize),
    /// The type byte is none of the three.
    #[error("unknown frame type {0}")]
    Type(u8),
}

impl HasKind for FrameError {
    fn kind(&self) -> Kind {
        match self {
            Self::TooLong(_) => Kind::ResourceExhausted,
            Self::Type(_) => Kind::InvalidArgument,
        }
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of payload that follow.
    pub length: usize,
    /// The call this frame belongs to.
    pub stream: u32,
    /// What the payload is.
    pub kind: FrameType,
    /// `FLAG_*` bits.
    pub flags: u8,
}

impl Header {
    /// Reads a header and checks its length and type.
    ///
    /// # Errors
    /// The connection cannot go on: where the next frame starts is unknown or its meaning is.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, flags] = *bytes;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if length > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        let kind = match kind {
            1 => FrameType::Request,
            2 => FrameType::Response,
            3 => FrameType::Data,
            other => return Err(FrameError::Type(other)),
        };
        Ok(Self { length, stream: u32::from_be_bytes([s0, s1, s2, s3]), kind, flags })
    }

    /// Writes the header.
    ///
    /// # Errors
    /// The payload is longer than the other end accepts.
    pub fn encode(&self) -> Result<[u8; HEADER_LEN], FrameError> {
        if self.length > MAX_PAYLOAD {
            return Err(FrameError::TooLong(self.length));
        }
        let [l0, l1, l2, l3] = (self.length as u32).to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        let kind = match self.kind {
            FrameType::Request => 1,
            FrameType::Response => 2,
            FrameType::Data => 3,
        };
        Ok([l0, l1, l2, l3, s0, s1, s2, s3, kind, self.flags])
    }
}

/// Finds the first whole frame in `buffer`: its header and how many bytes it takes, header included.
///
/// `None` asks for more bytes.
///
/// # Errors
/// See [`Header::decode`].
pub fn split(buffer: &[u8]) -> Result<Option<(Header, usize)>, FrameError> {
    let Some(head) = buffer.first_chunk::<HEADER_LEN>() else { return Ok(None) };
    let header = Header::decode(head)?;
    let end = HEADER_LEN + header.length;
    Ok((buffer.len() >= end).then_some((header, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_round_trip() {
        for kind in [FrameType::Request, FrameType::Response, FrameType::Data] {
            let header = Header { length: 70_000, stream: 0x0102_0304, kind, flags: FLAG_REMOTE_OPEN };
            assert_eq!(Header::decode(&header.encode().unwrap()), Ok(header));
        }
    }

    #[test]
    fn the_bytes_are_the_wires() {
        let header = Header { length: 5, stream: 1, kind: FrameType::Request, flags: 0 };
        assert_eq!(header.encode().unwrap(), [0, 0, 0, 5, 0, 0, 0, 1, 1, 0]);
    }

    #[test]
    fn a_length_past_the_limit_is_refused_both_ways() {
        assert_eq!(Header::decode(&[0xff; HEADER_LEN]), Err(FrameError::TooLong(0xffff_ffff)));
        let header = Header { length: MAX_PAYLOAD + 1, stream: 1, kind: FrameType::Response, flags: 0 };
        assert_eq!(header.encode(), Err(FrameError::TooLong(MAX_PAYLOAD + 1)));
    }

    #[test]
    fn an_unknown_type_is_refused() {
        assert_eq!(Header::decode(&[0, 0, 0, 0, 0, 0, 0, 1, 9, 0]), Err(FrameError::Type(9)));
    }

    #[test]
    fn a_frame_is_split_only_when_whole() {
        let bytes = [0, 0, 0, 2, 0, 0, 0, 3, 2, 0, b'h', b'i', b'!'];
        assert_eq!(split(&bytes[..9]), Ok(None));
        assert_eq!(split(&bytes[..11]), Ok(None));
        let (header, end) = split(&bytes).unwrap().unwrap();
        assert_eq!((header.stream, end), (3, 12));
    }
}
