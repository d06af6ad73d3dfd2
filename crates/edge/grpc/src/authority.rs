//! A connection whose client may name any authority.
//!
//! The gRPC library of C++, Python, Ruby and PHP names the path of a unix socket as its authority, with its slashes
//! percent-encoded: `run%2Fcontainerd%2Fcontainerd.sock`. By RFC 3986 no authority that has a port may look so, `http`
//! refuses it, and with it h2 every request, while Go's server takes any. Nothing here asks for the authority, so
//! that the sign is replaced on its way in. These clients send the name plain, not in Huffman's code, and the bytes
//! keep their number: nothing of HPACK (RFC 7541) needs to be undone, only followed.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// What every HTTP/2 client begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const NAME: &[u8] = b":authority";
/// The place of [`NAME`] in HPACK's static table.
const NAME_INDEX: u8 = 1;
/// What stands for a percent sign.
const SUBSTITUTE: u8 = b'-';

/// A connection with the percent signs of its authorities replaced.
#[derive(Debug)]
pub struct AnyAuthority<S> {
    stream: S,
    walk: Walk,
}

impl<S> AnyAuthority<S> {
    /// The connection `stream`, of which nothing has been read yet.
    pub fn new(stream: S) -> Self {
        Self { stream, walk: Walk::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AnyAuthority<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let done = Pin::new(&mut self.stream).poll_read(context, buffer);
        if matches!(done, Poll::Ready(Ok(()))) {
            self.walk.over(&mut buffer.filled_mut()[before..]);
        }
        done
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnyAuthority<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: Connected> Connected for AnyAuthority<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

/// How far the bytes of a connection have been followed.
#[derive(Debug, Default)]
struct Walk {
    at: At,
    field: Field,
}

/// Where in the sequence of frames the next byte is (RFC 9113, section 4.1).
#[derive(Clone, Copy, Debug)]
enum At {
    /// In the preface, after so many bytes.
    Preface(usize),
    /// In a frame's header, after so many bytes.
    Head([u8; 9], usize),
    /// In what is of no concern.
    Skip(usize),
    /// At the length of the padding of a header frame.
    PadLength { left: usize, priority: bool },
    /// In the priority of a header frame.
    Priority { skip: usize, left: usize, padding: usize },
    /// In the fields of a header frame.
    Fields { left: usize, padding: usize },
    /// Somewhere unknown: it is no HTTP/2. The server will say so.
    Lost,
}

impl Default for At {
    fn default() -> Self {
        Self::Preface(0)
    }
}

/// Where in the fields the next byte is (RFC 7541, section 6). A field may go on in the next frame.
#[derive(Clone, Copy, Debug, Default)]
enum Field {
    /// At its first byte.
    #[default]
    Begin,
    /// In the rest of an index; a value may follow.
    Index { value: bool },
    /// At the length of its name.
    NameLength,
    /// In the rest of the length of its name.
    NameLengthRest(Length),
    /// In its name: so many bytes are left, and so many were those of [`NAME`]; `None` for another name.
    Name { left: usize, matched: Option<usize> },
    /// At the length of its value.
    ValueLength { authority: bool },
    /// In the rest of the length of its value.
    ValueLengthRest { length: Length, authority: bool },
    /// In its value.
    Value { left: usize, authority: bool },
}

/// A length of several bytes.
#[derive(Clone, Copy, Debug)]
struct Length {
    so_far: usize,
    shift: u32,
    coded: bool,
}

impl Length {
    fn new(coded: bool) -> Self {
        Self { so_far: 0x7f, shift: 0, coded }
    }

    /// With one more byte: the length when that was the last, and no sense when it is absurdly long.
    fn with(mut self, byte: u8) -> Result<(Self, bool), Nonsense> {
        if self.shift > 21 {
            return Err(Nonsense);
        }
        self.so_far += usize::from(byte & 0x7f) << self.shift;
        self.shift += 7;
        Ok((self, byte & 0x80 == 0))
    }
}

/// What no HTTP/2 client says.
struct Nonsense;

impl Walk {
    /// Follows `bytes`, which came next, and replaces what is to be replaced in them.
    fn over(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = match self.at {
                At::Lost => return,
                At::Skip(left) => {
                    let taken = left.min(bytes.len());
                    self.at = if taken == left { At::Head([0; 9], 0) } else { At::Skip(left - taken) };
                    taken
                }
                _ => {
                    if self.byte(&mut bytes[0]).is_err() {
                        self.at = At::Lost;
                    }
                    1
                }
            };
            bytes = &mut bytes[taken..];
        }
    }

    fn byte(&mut self, byte: &mut u8) -> Result<(), Nonsense> {
        self.at = match self.at {
            At::Preface(seen) if *byte != PREFACE[seen] => return Err(Nonsense),
            At::Preface(seen) if seen + 1 == PREFACE.len() => At::Head([0; 9], 0),
            At::Preface(seen) => At::Preface(seen + 1),
            At::Head(mut head, seen) => {
                head[seen] = *byte;
                if seen + 1 < head.len() { At::Head(head, seen + 1) } else { payload(head) }
            }
            At::PadLength { left, priority } => {
                let padding = usize::from(*byte);
                let left = left.checked_sub(padding).ok_or(Nonsense)?;
                if priority { after_padding(left, padding)? } else { fields(left, padding) }
            }
            At::Priority { skip: 1, left, padding } => fields(left, padding),
            At::Priority { skip, left, padding } => At::Priority { skip: skip - 1, left, padding },
            At::Fields { left, padding } => {
                self.field = self.field.next(byte)?;
                fields(left - 1, padding)
            }
            other @ (At::Skip(_) | At::Lost) => other,
        };
        Ok(())
    }
}

/// What follows the header of a frame.
fn payload(head: [u8; 9]) -> At {
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let (kind, flags) = (head[3], head[4]);
    match kind {
        HEADERS if flags & PADDED != 0 && length > 0 => {
            At::PadLength { left: length - 1, priority: flags & PRIORITY != 0 }
        }
        HEADERS if flags & PRIORITY != 0 => after_padding(length, 0).unwrap_or(At::Lost),
        HEADERS | CONTINUATION => fields(length, 0),
        _ => skip(length),
    }
}

/// The five bytes of a priority, of `left` with the fields.
fn after_padding(left: usize, padding: usize) -> Result<At, Nonsense> {
    Ok(At::Priority { skip: 5, left: left.checked_sub(5).ok_or(Nonsense)?, padding })
}

fn fields(left: usize, padding: usize) -> At {
    if left > 0 { At::Fields { left, padding } } else { skip(padding) }
}

fn skip(length: usize) -> At {
    if length > 0 { At::Skip(length) } else { At::Head([0; 9], 0) }
}

impl Field {
    /// What comes after `byte`, which is replaced if it is to be.
    fn next(self, byte: &mut u8) -> Result<Self, Nonsense> {
        Ok(match self {
            Self::Begin => begin(*byte),
            Self::Index { value } if *byte & 0x80 != 0 => Self::Index { value },
            Self::Index { value: true } => Self::ValueLength { authority: false },
            Self::Index { value: false } => Self::Begin,
            Self::NameLength if *byte & 0x7f == 0x7f => Self::NameLengthRest(Length::new(*byte & 0x80 != 0)),
            Self::NameLength => name(usize::from(*byte & 0x7f), *byte & 0x80 != 0),
            Self::NameLengthRest(length) => match length.with(*byte)? {
                (length, true) => name(length.so_far, length.coded),
                (length, false) => Self::NameLengthRest(length),
            },
            Self::Name { left, matched } => {
                let matched = matched.filter(|&at| NAME.get(at) == Some(byte)).map(|at| at + 1);
                match left {
                    1 => Self::ValueLength { authority: matched == Some(NAME.len()) },
                    _ => Self::Name { left: left - 1, matched },
                }
            }
            Self::ValueLength { authority } if *byte & 0x7f == 0x7f => {
                Self::ValueLengthRest { length: Length::new(*byte & 0x80 != 0), authority }
            }
            Self::ValueLength { authority } => {
                value(usize::from(*byte & 0x7f), authority && *byte & 0x80 == 0)
            }
            Self::ValueLengthRest { length, authority } => match length.with(*byte)? {
                (length, true) => value(length.so_far, authority && !length.coded),
                (length, false) => Self::ValueLengthRest { length, authority },
            },
            Self::Value { left, authority } => {
                if authority && *byte == b'%' {
                    *byte = SUBSTITUTE;
                }
                value(left - 1, authority)
            }
        })
    }
}

/// What follows the first byte of a field.
fn begin(byte: u8) -> Field {
    let (mask, value) = match byte {
        0x80.. => (0x7f, false),
        0x40.. => (0x3f, true),
        0x20.. => (0x1f, false), // a new size of the dynamic table
        _ => (0x0f, true),
    };
    match byte & mask {
        index if index == mask => Field::Index { value },
        _ if !value => Field::Begin,
        0 => Field::NameLength,
        index => Field::ValueLength { authority: index == NAME_INDEX },
    }
}

fn name(length: usize, coded: bool) -> Field {
    match length {
        0 => Field::ValueLength { authority: false },
        left => Field::Name { left, matched: (!coded).then_some(0) },
    }
}

fn value(left: usize, authority: bool) -> Field {
    if left > 0 { Field::Value { left, authority } } else { Field::Begin }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn literal(name: &str, value: &str) -> Vec<u8> {
        let length = |text: &str| match text.len() {
            short @ ..0x7f => vec![u8::try_from(short).unwrap()],
            long => vec![0x7f, u8::try_from(long - 0x7f).unwrap()],
        };
        [vec![0x40], length(name), name.into(), length(value), value.into()].concat()
    }

    /// Follows `bytes` in pieces of `size`.
    fn walked(bytes: &[u8], size: usize) -> Vec<u8> {
        let (mut bytes, mut walk) = (bytes.to_vec(), Walk::default());
        bytes.chunks_mut(size).for_each(|piece| walk.over(piece));
        bytes
    }

    #[test]
    fn percent_signs_of_authorities_alone_are_replaced_wherever_a_read_ends() {
        let path = "run%2Fcontainerd%2F".to_owned() + &"x".repeat(200);
        let connection = |authority: &str| {
            let own = literal(":authority", authority);
            let (half, rest) = own.split_at(9);
            let short = [&[0x01, 4][..], &authority.as_bytes()[..4]].concat(); // by its index in the static table
            let fields =
                [literal(":path", "/a%b/C"), own.clone(), vec![0x83, 0x86], literal("te", "%")].concat();
            let padded = [&[3, 0, 0, 0, 0, 9][..], &short, &[0xff, 0x80, 0x01], b"%%%"].concat();
            [
                PREFACE.to_vec(),
                frame(4, 0, b"%%%%%%"),
                frame(HEADERS, 4, &fields),
                frame(0, 0, b"%2F:authority"),
                frame(HEADERS, 4 | PADDED | PRIORITY, &padded),
                frame(HEADERS, 0, half),
                frame(CONTINUATION, 4, &[rest, &literal("x", "%")].concat()),
            ]
            .concat()
        };
        let (sent, expected) = (connection(&path), connection(&path.replace('%', "-")));
        assert_ne!(sent, expected);
        for size in 1..sent.len() {
            assert_eq!(walked(&sent, size), expected, "reads of {size} bytes");
        }
    }

    #[test]
    fn what_is_no_http2_passes_as_it_is() {
        for nonsense in [
            b"GET /%2F HTTP/1.1\r\n".to_vec(),
            [
                PREFACE.to_vec(),
                frame(HEADERS, PRIORITY, b"%"),
                frame(HEADERS, 0, &literal(":authority", "%")),
            ]
            .concat(),
            [PREFACE.to_vec(), frame(HEADERS, PADDED, &[200, b'%'])].concat(),
            [PREFACE.to_vec(), frame(HEADERS, 0, &[0x01, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, b'%'])].concat(),
        ] {
            assert_eq!(walked(&nonsense, 3), nonsense);
        }
    }
}
