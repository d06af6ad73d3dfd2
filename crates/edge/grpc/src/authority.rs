//! A connection whose client may name any authority.
//!
//! Clients of a unix socket name its path as their authority, with its slashes percent-encoded:
//! `run%2Fcontainerd%2Fcontainerd.sock` from gRPC's library for C++, Python, Ruby and PHP,
//! `%2Frun%2Fcontainerd%2Fcontainerd.sock` from Go's where it was given a bare path. `http` refuses such a name by
//! RFC 3986, and with it h2 every request and without a way to allow it, while Go's server takes any. No service here
//! uses the authority, so each header block is decoded on its way in and written again with an authority that is valid.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::uri::Authority;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use crate::hpack::{Decoder, Field};

/// What every HTTP/2 client begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Bytes of a frame's header.
const HEAD_LEN: usize = 9;
/// The longest frame that a server takes that announced no other (RFC 9113, 4.2).
const MAX_FRAME_LEN: usize = 1 << 14;
/// The longest block collected, in bytes: more than h2 takes in its frames.
const MAX_BLOCK_LEN: usize = 128 << 10;
/// Bytes of a block after which its fields are dropped: h2 refuses the request at 16 KiB already.
const MAX_FIELDS_LEN: usize = 64 << 10;
/// A field that no decoder takes, in place of a block that cannot be decoded.
const INVALID_FIELD: u8 = 0x80;
const NAME: &[u8] = b":authority";
/// What replaces an authority that h2 would refuse.
const SUBSTITUTE: &[u8] = b"localhost";

/// A connection with the invalid authorities of its requests replaced.
#[derive(Debug)]
pub struct AnyAuthority<S> {
    stream: S,
    rewriter: Rewriter,
    /// Bytes that were read and rewritten and that the reader has no room for yet.
    ready: Vec<u8>,
    /// How many of them the reader has.
    taken: usize,
}

impl<S> AnyAuthority<S> {
    /// The connection `stream`, of which nothing has been read yet.
    pub fn new(stream: S) -> Self {
        Self { stream, rewriter: Rewriter::default(), ready: Vec::new(), taken: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AnyAuthority<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.taken < this.ready.len() {
                let rest = &this.ready[this.taken..];
                let count = rest.len().min(buffer.remaining());
                buffer.put_slice(&rest[..count]);
                this.taken += count;
                if this.taken == this.ready.len() {
                    (this.ready, this.taken) = (Vec::new(), 0); // an idle connection keeps no memory
                }
                return Poll::Ready(Ok(()));
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            let read = buffer.filled().len() - before;
            if read == 0 {
                return Poll::Ready(Ok(()));
            }
            // The rest of a data frame stays where it was read.
            let passed = this.rewriter.pass(read);
            this.rewriter.rewrite(&buffer.filled()[before + passed..], &mut this.ready);
            buffer.set_filled(before + passed);
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
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

/// Rewrites the bytes of a connection as they come.
#[derive(Debug, Default)]
struct Rewriter {
    at: At,
    /// What has come of the frame that is being collected, its header first.
    frame: Vec<u8>,
    /// The header block that is being collected.
    block: Option<Block>,
    decoder: Decoder,
}

/// Where in the sequence of frames the next byte is (RFC 9113, section 4.1).
#[derive(Clone, Copy, Debug)]
enum At {
    /// In the preface, after so many bytes.
    Preface(usize),
    /// In a frame that is collected, of so many bytes with its header; [`HEAD_LEN`] while its length is unknown.
    Collect(usize),
    /// In a frame that passes as it is, before its last so many bytes.
    Pass(usize),
    /// After something that h2 closes the connection for: everything passes.
    Broken,
}

impl Default for At {
    fn default() -> Self {
        Self::Preface(0)
    }
}

const NEXT_FRAME: At = At::Collect(HEAD_LEN);

/// A header block that is not complete.
#[derive(Debug)]
struct Block {
    stream: [u8; 4],
    flags: u8,
    bytes: Vec<u8>,
}

impl Rewriter {
    /// How many of the next `count` bytes pass as they are, counted as passed.
    fn pass(&mut self, count: usize) -> usize {
        match self.at {
            At::Broken => count,
            At::Pass(left) if left > count => {
                self.at = At::Pass(left - count);
                count
            }
            At::Pass(left) => {
                self.at = NEXT_FRAME;
                left
            }
            At::Preface(_) | At::Collect(_) => 0,
        }
    }

    /// Appends to `out` what the reader is to see of `bytes`, which came next.
    fn rewrite(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let taken = match self.at {
                At::Pass(_) | At::Broken => {
                    let passed = self.pass(bytes.len());
                    out.extend_from_slice(&bytes[..passed]);
                    passed
                }
                At::Preface(seen) => {
                    out.push(bytes[0]);
                    self.at = match seen + 1 {
                        _ if bytes[0] != PREFACE[seen] => At::Broken,
                        seen if seen == PREFACE.len() => NEXT_FRAME,
                        seen => At::Preface(seen),
                    };
                    1
                }
                At::Collect(length) => {
                    let taken = bytes.len().min(length - self.frame.len());
                    self.frame.extend_from_slice(&bytes[..taken]);
                    if self.frame.len() == length {
                        self.collected(out);
                    }
                    taken
                }
            };
            bytes = &bytes[taken..];
        }
    }

    /// A frame's header is here, or a whole frame.
    fn collected(&mut self, out: &mut Vec<u8>) {
        let frame = &self.frame;
        let payload = usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]);
        let is_expected = match &self.block {
            Some(block) => frame[3] == CONTINUATION && frame[5..HEAD_LEN] == block.stream,
            None => frame[3] != CONTINUATION,
        };
        if !is_expected {
            return self.broken(out);
        }
        if !matches!(frame[3], HEADERS | CONTINUATION) || payload > MAX_FRAME_LEN {
            out.append(&mut self.frame);
            self.at = if payload > 0 { At::Pass(payload) } else { NEXT_FRAME };
            return;
        }
        if frame.len() < HEAD_LEN + payload {
            self.at = At::Collect(HEAD_LEN + payload);
            return;
        }
        self.at = NEXT_FRAME;
        let frame = std::mem::take(&mut self.frame);
        let flags = frame[4];
        let Some(fragment) = fragment(frame[3], flags, &frame[HEAD_LEN..]) else {
            self.frame = frame;
            return self.broken(out);
        };
        let stream = [frame[5], frame[6], frame[7], frame[8]];
        let block = self.block.get_or_insert_with(|| Block { stream, flags, bytes: Vec::new() });
        block.bytes.extend_from_slice(fragment);
        if block.bytes.len() > MAX_BLOCK_LEN {
            block.bytes = vec![INVALID_FIELD];
        } else if flags & END_HEADERS == 0 {
            return;
        }
        if let Some(block) = self.block.take() {
            self.finish(&block, out);
        }
    }

    /// Passes a frame that h2 closes the connection for, behind the beginning of the block that it interrupts.
    fn broken(&mut self, out: &mut Vec<u8>) {
        if let Some(block) = self.block.take() {
            put_frame(out, HEADERS, 0, block.stream, &[]);
        }
        out.append(&mut self.frame);
        self.at = At::Broken;
    }

    /// Writes a complete block.
    fn finish(&mut self, block: &Block, out: &mut Vec<u8>) {
        let mut fields = Vec::with_capacity(block.bytes.len() * 2);
        let decoded = self.decoder.decode(&block.bytes, |field| {
            if fields.len() <= MAX_FIELDS_LEN {
                with_valid_authority(field).encode(&mut fields);
            }
        });
        if decoded.is_err() {
            fields = vec![INVALID_FIELD];
        }
        let (first, mut rest) = fields.split_at(fields.len().min(MAX_FRAME_LEN));
        let end = |rest: &[u8]| if rest.is_empty() { END_HEADERS } else { 0 };
        put_frame(out, HEADERS, block.flags & END_STREAM | end(rest), block.stream, first);
        while !rest.is_empty() {
            let (next, after) = rest.split_at(rest.len().min(MAX_FRAME_LEN));
            rest = after;
            put_frame(out, CONTINUATION, end(rest), block.stream, next);
        }
    }
}

/// The part of a header block in a frame, without padding and priority; `None` where they are longer than the frame.
fn fragment(kind: u8, flags: u8, payload: &[u8]) -> Option<&[u8]> {
    if kind != HEADERS {
        return Some(payload);
    }
    let (padding, payload) = match payload.split_first() {
        Some((&padding, rest)) if flags & PADDED != 0 => (usize::from(padding), rest),
        _ if flags & PADDED != 0 => return None,
        _ => (0, payload),
    };
    let payload = if flags & PRIORITY != 0 { payload.get(5..)? } else { payload };
    payload.get(..payload.len().checked_sub(padding)?)
}

fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: [u8; 4], payload: &[u8]) {
    let length = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind, flags]);
    out.extend_from_slice(&stream);
    out.extend_from_slice(payload);
}

fn with_valid_authority(field: Field<'_>) -> Field<'_> {
    match field {
        Field::Pair { name: NAME, value, is_sensitive } if Authority::try_from(value).is_err() => {
            Field::Pair { name: NAME, value: SUBSTITUTE, is_sensitive }
        }
        Field::Static(1) => Field::Pair { name: NAME, value: SUBSTITUTE, is_sensitive: false }, // an empty authority
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        put_frame(&mut frame, kind, flags, [0, 0, 0, 1], payload);
        frame
    }

    /// A literal that enters the dynamic table.
    fn literal(name: &str, value: &str) -> Vec<u8> {
        let mut field = Vec::new();
        Field::Pair { name: name.as_bytes(), value: value.as_bytes(), is_sensitive: false }
            .encode(&mut field);
        field[0] = 0x40;
        field
    }

    /// Rewrites `bytes` that come in pieces of `size`.
    fn rewritten(bytes: &[u8], size: usize) -> Vec<u8> {
        let (mut rewriter, mut out) = (Rewriter::default(), Vec::new());
        for piece in bytes.chunks(size) {
            let passed = rewriter.pass(piece.len());
            out.extend_from_slice(&piece[..passed]);
            rewriter.rewrite(&piece[passed..], &mut out);
        }
        out
    }

    /// Names and values of a header block.
    type Fields = Vec<(String, String)>;

    /// The frames of a connection that are no header frames, and the fields of its blocks.
    fn parsed(mut bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<Fields>) {
        bytes = bytes.strip_prefix(PREFACE).unwrap();
        let (mut others, mut blocks, mut block) = (Vec::new(), Vec::new(), Vec::new());
        let mut decoder = Decoder::default();
        while !bytes.is_empty() {
            let length = HEAD_LEN + usize::from(bytes[1]) * 256 + usize::from(bytes[2]);
            let (frame, rest) = bytes.split_at(length);
            bytes = rest;
            if !matches!(frame[3], HEADERS | CONTINUATION) {
                others.push(frame.to_vec());
                continue;
            }
            block.extend_from_slice(&frame[HEAD_LEN..]);
            if frame[4] & END_HEADERS != 0 {
                let mut fields = Vec::new();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let take = |field: Field<'_>| match field {
                    Field::Static(index) => fields.push((index.to_string(), String::new())),
                    Field::Pair { name, value, .. } => fields.push((text(name), text(value))),
                };
                decoder.decode(&std::mem::take(&mut block), take).unwrap();
                blocks.push(fields);
            }
        }
        (others, blocks)
    }

    fn authorities(connection: &[u8]) -> Vec<String> {
        let fields = parsed(connection).1.concat();
        fields.into_iter().filter(|(name, _)| name == ":authority").map(|(_, value)| value).collect()
    }

    #[test]
    fn invalid_authorities_alone_are_replaced_wherever_a_read_ends() {
        let path = "run%2Fcontainerd%2F".to_owned() + &"x".repeat(200);
        let own = literal(":authority", &path);
        let (half, rest) = own.split_at(9);
        let fields = [literal(":path", "/a%b/C"), own.clone(), vec![0x83, 0x86], literal("te", "%")].concat();
        let short = [&[0x01, 4][..], b"a%2F"].concat(); // its name by the index of the static table
        let padded = [&[3, 0, 0, 0, 0, 9][..], &short, b"%%%"].concat();
        let sent = [
            PREFACE.to_vec(),
            frame(4, 0, b"%%%%%%"),
            frame(HEADERS, END_HEADERS, &fields),
            frame(0, 0, b"%2F:authority"),
            frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &padded),
            frame(HEADERS, END_STREAM, half),
            frame(CONTINUATION, END_HEADERS, &[rest, &literal("x", "%")].concat()),
            frame(HEADERS, END_HEADERS, &literal(":authority", "unix:3")),
        ]
        .concat();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let local = pair(":authority", "localhost");
        let expected = (
            vec![frame(4, 0, b"%%%%%%"), frame(0, 0, b"%2F:authority")],
            vec![
                vec![pair(":path", "/a%b/C"), local.clone(), pair("3", ""), pair("6", ""), pair("te", "%")],
                vec![local.clone()],
                vec![local, pair("x", "%")],
                vec![pair(":authority", "unix:3")],
            ],
        );
        for size in 1..sent.len() {
            assert_eq!(parsed(&rewritten(&sent, size)), expected, "reads of {size} bytes");
        }
    }

    /// `%2Frun%2Fx` as Go's encoder sends it, in Huffman's code and into the dynamic table, which later requests use.
    #[test]
    fn huffman_coded_authority_is_replaced_in_later_requests_too() {
        let coded = [0x41, 0x88, 0x54, 0x58, 0x6c, 0xb6, 0xa5, 0x45, 0x87, 0xcf];
        let mut plain = Vec::new();
        Decoder::default()
            .decode(&coded, |field| {
                if let Field::Pair { value, .. } = field {
                    plain = value.to_vec();
                }
            })
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&plain), "%2Frun%2Fx");
        let again = [literal("other", "field"), vec![0xbf]].concat();
        let by_name = [&[0x7f, 0x00, 3][..], b"%2F"].concat(); // its name by the index of the dynamic table
        let sent = [
            PREFACE.to_vec(),
            frame(HEADERS, END_HEADERS, &coded),
            frame(HEADERS, END_HEADERS, &again),
            frame(HEADERS, END_HEADERS, &by_name),
        ];
        assert_eq!(authorities(&rewritten(&sent.concat(), 7)), ["localhost"; 3]);
    }

    #[test]
    fn authority_that_http_refuses_is_replaced() {
        for (authority, expected) in [
            ("localhost", "localhost"),
            ("a.example:443", "a.example:443"),
            ("/run/x.sock", "localhost"),
            ("unix:%2F%2F%2Frun%2Fx", "localhost"),
            ("a:b:c", "localhost"),
            ("[", "localhost"),
            ("user@", "localhost"),
            ("\u{e4}", "localhost"),
            ("", "localhost"),
        ] {
            let sent = [PREFACE.to_vec(), frame(HEADERS, END_HEADERS, &literal(":authority", authority))];
            assert_eq!(authorities(&rewritten(&sent.concat(), 64)), [expected], "{authority:?}");
        }
    }

    #[test]
    fn other_protocols_and_broken_frames_pass_as_they_are() {
        for nonsense in [
            b"GET /%2F HTTP/1.1\r\n".to_vec(),
            [PREFACE.to_vec(), frame(HEADERS, PRIORITY, b"%"), frame(HEADERS, 0, b"%")].concat(),
            [PREFACE.to_vec(), frame(HEADERS, PADDED, &[200, b'%'])].concat(),
            [PREFACE.to_vec(), frame(HEADERS, PADDED, b"")].concat(),
            [PREFACE.to_vec(), frame(CONTINUATION, END_HEADERS, b"%")].concat(),
            [PREFACE.to_vec(), frame(HEADERS, 0, b""), frame(0, 0, b"%2F"), frame(HEADERS, 0, b"%")].concat(),
            [PREFACE.to_vec(), vec![0xff, 0xff, 0xff, HEADERS, END_HEADERS, 0, 0, 0, 1, b'%']].concat(),
        ] {
            assert_eq!(rewritten(&nonsense, 3), nonsense);
        }
    }

    #[test]
    fn block_that_cannot_be_decoded_stays_undecodable() {
        let endless = vec![frame(CONTINUATION, 0, &[0x82; MAX_FRAME_LEN]); 9].concat();
        for sent in [frame(HEADERS, END_HEADERS, &[0xbe]), [frame(HEADERS, 0, &[]), endless].concat()] {
            let out = rewritten(&[PREFACE.to_vec(), sent].concat(), 1000);
            assert!(
                out[PREFACE.len()..].starts_with(&frame(HEADERS, END_HEADERS, &[INVALID_FIELD])),
                "{out:?}"
            );
        }
    }

    #[test]
    fn fields_without_end_are_cut_where_h2_refuses_them_already() {
        let large = literal("a", &"v".repeat(3000));
        let sent = [&large[..], &[0xbe; 10_000]].concat(); // 30 MB by references to the table
        let out = rewritten(&[PREFACE.to_vec(), frame(HEADERS, END_HEADERS, &sent)].concat(), 1 << 20);
        assert!((MAX_FIELDS_LEN..MAX_FIELDS_LEN + 4096).contains(&out.len()), "{}", out.len());
        assert!(parsed(&out).1[0].len() > 20);
    }
}
