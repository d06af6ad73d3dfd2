//! Header blocks as an HTTP/2 client sends them (HPACK, RFC 7541): decoded with the dynamic table that belongs to the
//! connection, and written again without one. h2 keeps its own decoder private.
//!
//! Invariant: a block that cannot be decoded is refused as a whole, and memory is bounded by the table's limit of
//! 4,096 bytes and by what the caller keeps.

use std::collections::VecDeque;

/// Bytes of the dynamic table that a client may use: what a server that sends no setting allows (RFC 9113, 6.5.2).
const MAX_TABLE_SIZE: usize = 4096;
/// What an entry counts besides its bytes (RFC 7541, 4.1).
const ENTRY_OVERHEAD: usize = 32;
/// The longest integer taken: longer than any string in a block of bounded size.
const MAX_INTEGER: usize = 1 << 24;

/// Why a block was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed header block")]
pub struct Malformed;

/// One field of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// An entry of the static table, by its index: name and value are RFC 7541's.
    Static(u8),
    /// A name and a value.
    Pair {
        /// The name, as sent.
        name: &'a [u8],
        /// The value, as sent.
        value: &'a [u8],
        /// Whether no intermediary may put it into a table.
        is_sensitive: bool,
    },
}

impl Field<'_> {
    /// Appends the field to a block that uses no dynamic table.
    pub fn encode(self, block: &mut Vec<u8>) {
        match self {
            Self::Static(index) => block.push(0x80 | index),
            Self::Pair { name, value, is_sensitive } => {
                block.push(if is_sensitive { 0x10 } else { 0 });
                for text in [name, value] {
                    put_integer(block, text.len());
                    block.extend_from_slice(text);
                }
            }
        }
    }
}

/// Appends the length of a plain string: an integer with a prefix of 7 bits.
fn put_integer(block: &mut Vec<u8>, value: usize) {
    let Some(mut rest) = value.checked_sub(0x7f) else {
        return block.push((value & 0x7f) as u8);
    };
    block.push(0x7f);
    while rest >= 0x80 {
        block.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    block.push((rest & 0x7f) as u8);
}

/// A connection's decoder.
#[derive(Debug)]
pub struct Decoder {
    /// The dynamic table, newest first.
    entries: VecDeque<Entry>,
    /// Its size by RFC 7541, 4.1.
    size: usize,
    /// The size that the client keeps it at.
    max_size: usize,
}

#[derive(Debug)]
struct Entry {
    name: Box<[u8]>,
    value: Box<[u8]>,
}

impl Entry {
    fn size(&self) -> usize {
        self.name.len() + self.value.len() + ENTRY_OVERHEAD
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, max_size: MAX_TABLE_SIZE }
    }
}

impl Decoder {
    /// Decodes one whole block and passes each of its fields to `take`, in order.
    ///
    /// # Errors
    /// [`Malformed`]; the decoder is of no use afterwards.
    pub fn decode(&mut self, block: &[u8], mut take: impl FnMut(Field<'_>)) -> Result<(), Malformed> {
        let mut input = Input(block);
        let mut at_start = true;
        while let Some(&first) = input.0.first() {
            match first {
                0x80.. => match input.integer(7)? {
                    0 => return Err(Malformed),
                    index @ 1..=STATIC_ENTRIES => take(Field::Static(index as u8)),
                    index => {
                        let entry = self.dynamic(index)?;
                        take(Field::Pair { name: &entry.name, value: &entry.value, is_sensitive: false });
                    }
                },
                0x20..0x40 => {
                    let size = input.integer(5)?;
                    if !at_start || size > MAX_TABLE_SIZE {
                        return Err(Malformed);
                    }
                    self.max_size = size;
                    self.evict(0);
                    continue; // a second change of size may follow (RFC 7541, 4.2)
                }
                _ => {
                    let is_indexed = first & 0x40 != 0;
                    let name_index = input.integer(if is_indexed { 6 } else { 4 })?;
                    let name = match name_index {
                        0 => input.string()?,
                        _ => self.name(name_index)?.into(),
                    };
                    let entry = Entry { name: name.into(), value: input.string()?.into() };
                    let is_sensitive = !is_indexed && first & 0x10 != 0;
                    take(Field::Pair { name: &entry.name, value: &entry.value, is_sensitive });
                    if is_indexed {
                        self.insert(entry);
                    }
                }
            }
            at_start = false;
        }
        Ok(())
    }

    fn name(&self, index: usize) -> Result<&[u8], Malformed> {
        match STATIC_NAMES.get(index - 1) {
            Some(name) => Ok(name.as_bytes()),
            None => Ok(&self.dynamic(index)?.name),
        }
    }

    fn dynamic(&self, index: usize) -> Result<&Entry, Malformed> {
        self.entries.get(index - STATIC_ENTRIES - 1).ok_or(Malformed)
    }

    /// Inserts an entry; one that is larger than the whole table empties it (RFC 7541, 4.4).
    fn insert(&mut self, entry: Entry) {
        let size = entry.size();
        self.evict(size);
        if size <= self.max_size {
            self.size += size;
            self.entries.push_front(entry);
        }
    }

    /// Drops the oldest entries until `more` bytes fit.
    fn evict(&mut self, more: usize) {
        while self.size + more > self.max_size {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.size();
        }
    }
}

/// The rest of a block.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(byte)
    }

    /// An integer whose first byte has a prefix of `bits` (RFC 7541, 5.1).
    fn integer(&mut self, bits: u32) -> Result<usize, Malformed> {
        let mask = (1 << bits) - 1;
        let mut value = usize::from(self.byte()?) & mask;
        if value < mask {
            return Ok(value);
        }
        for shift in (0..28).step_by(7) {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return if value <= MAX_INTEGER { Ok(value) } else { Err(Malformed) };
            }
        }
        Err(Malformed)
    }

    fn string(&mut self) -> Result<Vec<u8>, Malformed> {
        let is_coded = self.0.first().ok_or(Malformed)? & 0x80 != 0;
        let length = self.integer(7)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        if is_coded { decode_huffman(text) } else { Ok(text.into()) }
    }
}

/// The text of a string in Huffman's code, padded with the first bits of the sign for the end.
fn decode_huffman(coded: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut text = Vec::with_capacity(coded.len() * 8 / 5);
    let (mut code, mut length) = (0_usize, 0);
    for byte in coded {
        for bit in (0..8).rev() {
            code = code << 1 | usize::from(byte >> bit & 1);
            length += 1;
            let row = HUFFMAN.rows.get(length).ok_or(Malformed)?;
            if code < row.first + row.count {
                // Past 255 is the sign for the end, which no string may contain.
                let symbol = HUFFMAN.symbols[row.offset + code - row.first];
                text.push(u8::try_from(symbol).map_err(|_| Malformed)?);
                (code, length) = (0, 0);
            }
        }
    }
    if length < 8 && code == (1 << length) - 1 { Ok(text) } else { Err(Malformed) }
}

/// Codes of one length.
#[derive(Clone, Copy)]
struct Row {
    /// The lowest of them.
    first: usize,
    /// Their number.
    count: usize,
    /// Where the symbol of the lowest is in the list of symbols.
    offset: usize,
}

struct Huffman {
    /// Codes by their length in bits.
    rows: [Row; 31],
    /// Symbols, those with short codes first.
    symbols: [u16; 257],
}

/// HPACK's code. It is canonical: codes of one length are consecutive in the order of their symbols, so that the
/// lengths alone define it.
static HUFFMAN: Huffman = huffman();

const fn huffman() -> Huffman {
    let mut table = Huffman { rows: [Row { first: 0, count: 0, offset: 0 }; 31], symbols: [0; 257] };
    let (mut length, mut code, mut offset) = (1, 0, 0);
    while length < table.rows.len() {
        code <<= 1;
        table.rows[length] = Row { first: code, count: 0, offset };
        let mut symbol = 0;
        while symbol < CODE_LENGTHS.len() {
            if CODE_LENGTHS[symbol] as usize == length {
                table.symbols[offset] = symbol as u16;
                table.rows[length].count += 1;
                code += 1;
                offset += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    table
}

/// Bits of each byte's code, and of the sign for the end (RFC 7541, appendix B).
#[rustfmt::skip]
const CODE_LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const STATIC_ENTRIES: usize = STATIC_NAMES.len();

/// Names of the static table (RFC 7541, appendix A); index 1 is the first.
#[rustfmt::skip]
const STATIC_NAMES: [&str; 61] = [
    ":authority", ":method", ":method", ":path", ":path", ":scheme", ":scheme", ":status", ":status", ":status",
    ":status", ":status", ":status", ":status", "accept-charset", "accept-encoding", "accept-language",
    "accept-ranges", "accept", "access-control-allow-origin", "age", "allow", "authorization", "cache-control",
    "content-disposition", "content-encoding", "content-language", "content-length", "content-location",
    "content-range", "content-type", "cookie", "date", "etag", "expect", "expires", "from", "host", "if-match",
    "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "last-modified", "link", "location",
    "max-forwards", "proxy-authenticate", "proxy-authorization", "range", "referer", "refresh", "retry-after",
    "server", "set-cookie", "strict-transport-security", "transfer-encoding", "user-agent", "vary", "via",
    "www-authenticate",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let text = |pair: &[u8]| String::from_utf8(pair.to_vec()).unwrap();
        digits.chunks(2).map(|pair| u8::from_str_radix(&text(pair), 16).unwrap()).collect()
    }

    /// The fields of a block, one a line; those of the static table by their index.
    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, Malformed> {
        let mut fields = Vec::new();
        decoder.decode(block, |field| {
            fields.push(match field {
                Field::Static(index) => index.to_string(),
                Field::Pair { name, value, is_sensitive } => {
                    let [name, value] = [name, value].map(String::from_utf8_lossy);
                    format!("{name}: {value}{}", if is_sensitive { " (sensitive)" } else { "" })
                }
            });
        })?;
        Ok(fields)
    }

    /// RFC 7541, C.4: three requests on one connection, in Huffman's code, with entries of the dynamic table.
    #[test]
    fn requests_of_the_rfc_decode_with_their_dynamic_table() {
        let mut decoder = Decoder::default();
        for (block, expected) in [
            (
                "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
                &["2", "6", "4", ":authority: www.example.com"][..],
            ),
            (
                "8286 84be 5886 a8eb 1064 9cbf",
                &["2", "6", "4", ":authority: www.example.com", "cache-control: no-cache"],
            ),
            (
                "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
                &["2", "7", "5", ":authority: www.example.com", "custom-key: custom-value"],
            ),
        ] {
            assert_eq!(decoded(&mut decoder, &bytes(block)).unwrap(), expected);
        }
        assert_eq!((decoder.entries.len(), decoder.size), (3, 164));
    }

    /// RFC 7541, C.6: the table is 256 bytes, so that entries are dropped.
    #[test]
    fn entries_are_dropped_oldest_first() {
        let mut decoder = Decoder::default();
        let size = bytes("3fe101"); // 256
        let first = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d \
                     29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
        decoded(&mut decoder, &[size, bytes(first)].concat()).unwrap();
        assert_eq!((decoder.entries.len(), decoder.size), (4, 222));
        assert_eq!(decoded(&mut decoder, &bytes("4883 640e ffc1 c0bf")).unwrap()[0], ":status: 307");
        assert_eq!((decoder.entries.len(), decoder.size), (4, 222));
        let names: Vec<_> = decoder.entries.iter().map(|entry| &*entry.name).collect();
        assert_eq!(names, [&b":status"[..], b"location", b"date", b"cache-control"]);
        decoded(&mut decoder, &bytes("20 3f e1 01")).unwrap();
        assert_eq!((decoder.entries.len(), decoder.size), (0, 0));
    }

    #[test]
    fn malformed_blocks_are_refused() {
        for block in [
            "80",                // index 0
            "be",                // an entry that the table does not have
            "7e 01 61",          // its name
            "41",                // no value
            "41 05 61",          // a value cut off
            "41 82 ff ff",       // padding of more than seven bits
            "41 81 fe",          // padding that is not all ones
            "41 84 ff ff ff ff", // the sign for the end
            "3f e2 1f",          // a table of 4,097 bytes
            "82 20",             // a size after the first field
            "ff ff ff ff ff ff ff",
            "00 7f ff ff ff ff 7f",
        ] {
            assert_eq!(decoded(&mut Decoder::default(), &bytes(block)), Err(Malformed), "{block}");
        }
    }

    #[test]
    fn encoded_fields_decode_to_themselves() {
        let long = "x".repeat(70_000);
        let mut block = Vec::new();
        for value in ["", "short", &"y".repeat(127), &long] {
            Field::Pair { name: b"name", value: value.as_bytes(), is_sensitive: value == "short" }
                .encode(&mut block);
        }
        Field::Static(61).encode(&mut block);
        let fields = decoded(&mut Decoder::default(), &block).unwrap();
        let long = format!("name: {long}");
        let expected =
            ["name: ", "name: short (sensitive)", &format!("name: {}", "y".repeat(127)), &long, "61"];
        assert_eq!(fields, expected);
    }
}
