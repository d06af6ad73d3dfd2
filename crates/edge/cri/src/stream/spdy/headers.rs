//! Header blocks: names and values behind their lengths, compressed by zlib over the whole connection.
//!
//! Invariant: a block never inflates beyond [`MAX_BLOCK`], so a bomb costs its sender the connection and us nothing.

use std::collections::BTreeMap;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::DICTIONARY;

/// Names, in lower case, with their values.
pub type Headers = BTreeMap<String, String>;

/// The longest block, inflated.
const MAX_BLOCK: usize = 64 * 1024;

/// Inflates the blocks of one connection, in their order.
pub struct Decoder {
    inflate: Decompress,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { inflate: Decompress::new(true) }
    }
}

impl Decoder {
    /// The headers of `block`.
    ///
    /// # Errors
    /// What is wrong with it; the connection's state is then lost.
    pub fn decode(&mut self, block: &[u8]) -> Result<Headers, &'static str> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut out = Vec::with_capacity(1024);
        loop {
            if out.len() == out.capacity() {
                if out.len() >= MAX_BLOCK {
                    return Err("too long");
                }
                out.reserve(out.len().max(1024));
            }
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress_vec(block, &mut out, FlushDecompress::Sync);
            let taken = usize::try_from(self.inflate.total_in() - read).map_err(|_| "not zlib")?;
            block = block.get(taken..).ok_or("not zlib")?;
            match status {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate.set_dictionary(&DICTIONARY).map_err(|_| "another dictionary")?;
                }
                Err(_) => return Err("not zlib"),
                Ok(Status::StreamEnd) => return Err("an ended stream"),
                Ok(_) if block.is_empty() && out.len() < out.capacity() => return Ok(out),
                Ok(_) if taken == 0 && self.inflate.total_out() == written && out.len() < out.capacity() => {
                    return Err("not zlib");
                }
                Ok(_) => {}
            }
        }
    }
}

/// Takes names and values apart.
fn parse(mut bytes: &[u8]) -> Result<Headers, &'static str> {
    let number = |bytes: &mut &[u8]| -> Result<usize, &'static str> {
        let (head, rest) = bytes.split_first_chunk::<4>().ok_or("cut short")?;
        *bytes = rest;
        usize::try_from(u32::from_be_bytes(*head)).map_err(|_| "too long")
    };
    let mut headers = Headers::new();
    let count = number(&mut bytes)?;
    for _ in 0..count {
        let mut text = || {
            let length = number(&mut bytes)?;
            let (text, rest) = bytes.split_at_checked(length).ok_or("cut short")?;
            bytes = rest;
            std::str::from_utf8(text).map(str::to_owned).map_err(|_| "not text")
        };
        let (name, value) = (text()?, text()?);
        headers.insert(name.to_ascii_lowercase(), value);
    }
    Ok(headers)
}

/// Deflates the blocks of one connection, in their order.
pub struct Encoder {
    deflate: Compress,
    begun: bool,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { deflate: Compress::new(Compression::fast(), true), begun: false }
    }
}

impl Encoder {
    /// The block of `headers`.
    pub fn encode(&mut self, headers: &Headers) -> Vec<u8> {
        if !self.begun {
            self.begun = true;
            // Fails only once bytes have been compressed.
            let _checksum = self.deflate.set_dictionary(&DICTIONARY);
        }
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend((text.len() as u32).to_be_bytes());
            plain.extend(text.as_bytes());
        }
        // A deflated block is never longer than the plain one by more than a few bytes for each 16 KiB.
        let mut out = Vec::with_capacity(plain.len() + plain.len() / 8 + 64);
        // Everything fits, so one call takes it all.
        let _status = self.deflate.compress_vec(&plain, &mut out, FlushCompress::Sync);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Headers {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn blocks_follow_each_other_in_one_stream() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for sent in [
            headers(&[("streamtype", "error")]),
            headers(&[]),
            headers(&[("port", "80"), ("requestid", "0")]),
        ] {
            assert_eq!(decoder.decode(&encoder.encode(&sent)).unwrap(), sent);
        }
    }

    #[test]
    fn a_bomb_is_refused_at_its_bound() {
        let sent = headers(&[("a", &"x".repeat(4 << 20))]);
        let mut encoder = Encoder::default();
        let block = encoder.encode(&sent);
        assert!(block.len() < 64 * 1024);
        assert_eq!(Decoder::default().decode(&block), Err("too long"));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        assert_eq!(parse(&[0, 0, 0, 9]), Err("cut short"));
        assert_eq!(parse(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]), Err("cut short"));
        assert_eq!(parse(&[0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0, 0, 0, 0]), Err("not text"));
        assert_eq!(parse(&[]), Err("cut short"));
    }
}
