//! Frames of the second copy: changes of rows, each frame with a checksum that covers all frames before it.
//!
//! ```text
//! length of the payload    checksum               payload
//! 4 bytes, little endian   8 bytes, little endian protobuf message Frame
//! ```
//!
//! Invariant: a frame is read only when it and every frame before it in its file are as they were written.

use std::io::{self, Read};

use prost::Message;

use crate::table::{self, Table};

/// Bytes before a payload: length and checksum.
const HEAD: usize = 12;
/// Checksum that the first frame of a file continues.
const SEED: u64 = 0x6265_7274_682e_6a31;
/// Payload size at which a frame of a copy ends, in bytes.
const FULL: usize = 256 * 1024;

/// One change of a row.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Change {
    /// Name of the table.
    #[prost(string, tag = "1")]
    table: String,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    /// None when the row was removed.
    #[prost(bytes = "vec", optional, tag = "3")]
    bytes: Option<Vec<u8>>,
}

impl Change {
    /// The row `key` of `table` becomes `row`, or is removed.
    pub(super) fn new(table: Table, key: &[u8], row: Option<&[u8]>) -> Self {
        Self { table: table.0.to_owned(), key: key.to_owned(), bytes: row.map(<[u8]>::to_owned) }
    }

    /// The table; none for one that this program does not know.
    pub(super) fn table(&self) -> Option<Table> {
        table::ALL.into_iter().find(|table| table.0 == self.table)
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The row's bytes; none when it was removed.
    pub(super) fn row(&self) -> Option<&[u8]> {
        self.bytes.as_deref()
    }
}

/// The changes of one transaction, or a part of a copy.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Frame {
    /// Number of the transaction; in a copy, of the last one that it contains.
    #[prost(uint64, tag = "1")]
    pub(super) sequence: u64,
    #[prost(message, repeated, tag = "2")]
    pub(super) changes: Vec<Change>,
    /// Whether a copy ends here: one without such a frame was cut off.
    #[prost(bool, tag = "3")]
    pub(super) is_last: bool,
}

impl Frame {
    /// Whether it has grown enough to be written.
    pub(super) fn is_full(&self) -> bool {
        let bytes = |change: &Change| change.key.len() + change.bytes.as_ref().map_or(0, Vec::len);
        self.changes.iter().map(bytes).sum::<usize>() >= FULL
    }
}

/// The checksum of the frames so far, of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain(u64);

impl Default for Chain {
    fn default() -> Self {
        Self(SEED)
    }
}

impl Chain {
    /// The bytes of `frame` in the file, as the next one.
    pub(super) fn encode(&mut self, frame: &Frame) -> io::Result<Vec<u8>> {
        let payload = frame.encode_to_vec();
        let length = u32::try_from(payload.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a transaction of 4 GiB"))?;
        self.advance(&payload);
        let mut bytes = Vec::with_capacity(HEAD + payload.len());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&self.0.to_le_bytes());
        bytes.extend_from_slice(&payload);
        Ok(bytes)
    }

    /// The next frame of `file`, of which `left` bytes are unread. `None` at its end, and from the first damage on.
    pub(super) fn decode(&mut self, file: &mut impl Read, left: &mut u64) -> io::Result<Option<Frame>> {
        let mut head = [0; HEAD];
        if *left < HEAD as u64 {
            return Ok(None);
        }
        file.read_exact(&mut head)?;
        *left -= HEAD as u64;
        let (length, checksum) = head.split_at(4);
        let length = u32::from_le_bytes(length.try_into().unwrap_or_default());
        if u64::from(length) > *left {
            return Ok(None);
        }
        let mut payload = vec![0; length as usize];
        file.read_exact(&mut payload)?;
        *left -= u64::from(length);
        let before = *self;
        self.advance(&payload);
        if self.0.to_le_bytes() != checksum {
            *self = before;
            return Ok(None);
        }
        Ok(Frame::decode(payload.as_slice()).ok())
    }

    /// Each step is a bijection of the state, so that one changed word always changes the result.
    fn advance(&mut self, bytes: &[u8]) {
        let mut state = self.0 ^ bytes.len() as u64;
        for word in bytes.chunks(8) {
            let mut padded = [0; 8];
            padded[..word.len()].copy_from_slice(word);
            state = (state ^ u64::from_le_bytes(padded)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            state ^= state >> 29;
        }
        self.0 = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sequence: u64) -> Frame {
        let changes = vec![
            Change::new(table::IMAGES, b"ns\0app", Some(&[1; 700])),
            Change::new(table::HELD, b"ns\0l", None),
        ];
        Frame { sequence, changes, is_last: false }
    }

    fn decode(bytes: &[u8]) -> Vec<Frame> {
        let (mut chain, mut left, mut rest) = (Chain::default(), bytes.len() as u64, bytes);
        std::iter::from_fn(|| chain.decode(&mut rest, &mut left).unwrap()).collect()
    }

    #[test]
    fn frames_round_trip_and_a_flipped_bit_ends_them() {
        let mut chain = Chain::default();
        let parts: Vec<Vec<u8>> = (1..=3).map(|at| chain.encode(&frame(at)).unwrap()).collect();
        let good = parts.concat();
        assert_eq!(decode(&good), [frame(1), frame(2), frame(3)]);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let read = decode(&bad);
            let whole = (bit / 8) / parts[0].len();
            assert_eq!(read.len(), whole, "bit {bit}");
        }
        for length in 0..good.len() {
            assert_eq!(decode(&good[..length]).len(), length / parts[0].len(), "cut to {length}");
        }
    }
}
