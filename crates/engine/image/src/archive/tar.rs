//! Tar, as far as image archives need it: regular files and links, in order, on a stream.
//!
//! Read: ustar, GNU long names, PAX names and sizes, base-256 sizes. Written: ustar, GNU long names, base-256 sizes.

use std::io::{self, Read, Write};

use spec::{HasKind, Kind};

/// A block of a tar.
const BLOCK: usize = 512;
/// The longest name, in bytes.
const MAX_NAME: u64 = 64 << 10;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Not a tar header.
    #[error("invalid tar header at byte {0}: invalid argument")]
    Header(u64),
    /// A name of absurd length.
    #[error("a name of {0} bytes in a tar: invalid argument")]
    Name(u64),
    /// The stream failed or ended early.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
}

impl HasKind for TarError {
    fn kind(&self) -> Kind {
        match self {
            Self::Header(_) | Self::Name(_) => Kind::InvalidArgument,
            Self::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => Kind::InvalidArgument,
            Self::Read(_) => Kind::Unavailable,
        }
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A regular file of so many bytes, which follow.
    File(u64),
    /// A link to another name.
    Link(String),
    /// Anything else.
    Other,
}

/// Reads entries off a stream.
pub(super) struct Reader<R> {
    stream: R,
    at: u64,
    /// Bytes of the current entry's data and padding that are not read yet.
    data: u64,
    padding: u64,
}

impl<R: Read> Reader<R> {
    pub fn new(stream: R) -> Self {
        Self { stream, at: 0, data: 0, padding: 0 }
    }

    /// The next entry with its name; `None` at the archive's end.
    pub fn next(&mut self) -> Result<Option<(String, Entry)>, TarError> {
        let (mut name, mut link, mut size) = (None, None, None);
        loop {
            self.skip()?;
            let Some(block) = self.block()? else { return Ok(None) };
            let own_size = number(&block[124..136]).ok_or(TarError::Header(self.at))?;
            match block[156] {
                b'L' => name = Some(self.text(own_size)?),
                b'K' => link = Some(self.text(own_size)?),
                b'x' => {
                    let text = self.text(own_size)?;
                    for (key, value) in records(&text) {
                        match key {
                            "path" => name = Some(value.to_owned()),
                            "linkpath" => link = Some(value.to_owned()),
                            "size" => size = value.parse().ok(),
                            _ => {}
                        }
                    }
                }
                b'g' => {
                    self.text(own_size)?;
                }
                kind => {
                    let size = size.unwrap_or(own_size);
                    let name = name.unwrap_or_else(|| header_name(&block));
                    let link = || link.unwrap_or_else(|| field(&block[157..257]));
                    let entry = match kind {
                        b'0' | 0 | b'7' if !name.ends_with('/') => Entry::File(size),
                        b'1' | b'2' => Entry::Link(link()),
                        _ => Entry::Other,
                    };
                    // Only files have data; a size on anything else counts for nothing, as in GNU tar.
                    self.data = if matches!(entry, Entry::File(_)) { size } else { 0 };
                    self.padding = self.data.next_multiple_of(BLOCK as u64) - self.data;
                    return Ok(Some((name, entry)));
                }
            }
        }
    }

    /// Reads on in the current entry's data; 0 at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let most = usize::try_from(self.data).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = retry(|| self.stream.read(&mut buffer[..most])).map_err(TarError::Read)?;
        if count == 0 {
            return Err(TarError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        self.data -= count as u64;
        self.at += count as u64;
        Ok(count)
    }

    /// The whole of the current entry's data, which must not be longer than `limit`.
    pub fn whole(&mut self, limit: u64) -> Result<Vec<u8>, TarError> {
        if self.data > limit {
            return Err(TarError::Name(self.data));
        }
        let mut whole = vec![0; usize::try_from(self.data).unwrap_or(0)];
        self.stream.read_exact(&mut whole).map_err(TarError::Read)?;
        self.at += self.data;
        self.data = 0;
        Ok(whole)
    }

    fn text(&mut self, size: u64) -> Result<String, TarError> {
        if size > MAX_NAME {
            return Err(TarError::Name(size));
        }
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        let bytes = self.whole(size)?;
        self.skip()?;
        Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned())
    }

    /// Leaves the current entry behind.
    fn skip(&mut self) -> Result<(), TarError> {
        let left = self.data + self.padding;
        let skipped =
            io::copy(&mut (&mut self.stream).take(left), &mut io::sink()).map_err(TarError::Read)?;
        if skipped < left {
            return Err(TarError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        self.at += left;
        (self.data, self.padding) = (0, 0);
        Ok(())
    }

    /// The next header; `None` at the end, which may be marked by an empty block or not at all.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match retry(|| self.stream.read(&mut block[filled..])).map_err(TarError::Read)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(TarError::Read(io::ErrorKind::UnexpectedEof.into())),
                count => filled += count,
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if number(&block[148..156]) != Some(checksum(&block)) {
            return Err(TarError::Header(self.at));
        }
        self.at += BLOCK as u64;
        Ok(Some(block))
    }
}

/// Writes entries onto a stream.
pub(super) struct Writer<W> {
    stream: W,
}

impl<W: Write> Writer<W> {
    pub fn new(stream: W) -> Self {
        Self { stream }
    }

    /// Writes a directory.
    pub fn dir(&mut self, name: &str) -> io::Result<()> {
        self.header(name, b'5', 0o755, 0)
    }

    /// Writes the head of a file; its `size` bytes and then [`pad`](Self::pad) follow.
    pub fn file(&mut self, name: &str, mode: u32, size: u64) -> io::Result<()> {
        self.header(name, b'0', mode, size)
    }

    /// Writes data of the current file.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Ends the current file of `size` bytes.
    pub fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        self.stream.write_all(&[0; BLOCK][..usize::try_from(padding).unwrap_or(0)])
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.stream.write_all(&[0; 2 * BLOCK])?;
        self.stream.flush()
    }

    fn header(&mut self, name: &str, kind: u8, mode: u32, size: u64) -> io::Result<()> {
        if name.len() > 100 {
            let long = name.len() as u64 + 1;
            self.header("././@LongLink", b'L', 0o644, long)?;
            self.stream.write_all(name.as_bytes())?;
            self.stream.write_all(&[0])?;
            self.pad(long)?;
        }
        let mut block = [0; BLOCK];
        let short = &name.as_bytes()[..name.len().min(100)];
        block[..short.len()].copy_from_slice(short);
        block[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
        block[108..116].copy_from_slice(b"0000000\0");
        block[116..124].copy_from_slice(b"0000000\0");
        if size < 1 << 33 {
            block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        } else {
            block[124] = 0x80;
            block[128..136].copy_from_slice(&size.to_be_bytes());
        }
        block[136..148].copy_from_slice(b"00000000000\0");
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        let sum = checksum(&block);
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.stream.write_all(&block)
    }
}

fn retry(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// The sum of a header whose own sum counts as spaces.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let outside = block[..148].iter().chain(&block[156..]).map(|byte| u64::from(*byte));
    outside.sum::<u64>() + 8 * u64::from(b' ')
}

/// An octal field, or a base-256 one.
fn number(bytes: &[u8]) -> Option<u64> {
    if bytes[0] & 0x80 != 0 {
        let mut value = u64::from(bytes[0] & 0x7f);
        for byte in &bytes[1..] {
            value = value.checked_mul(256)?.checked_add(u64::from(*byte))?;
        }
        return (value < 1 << 62).then_some(value);
    }
    let text = field(bytes);
    let text = text.trim_matches(' ');
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

fn field(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn header_name(block: &[u8; BLOCK]) -> String {
    let name = field(&block[..100]);
    let prefix = field(&block[345..500]);
    if &block[257..262] != b"ustar" || prefix.is_empty() || block[263..265] == *b" \0" {
        return name;
    }
    format!("{prefix}/{name}")
}

/// The records of a PAX header: `LENGTH KEY=VALUE\n`.
fn records(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('\n').filter_map(|line| line.split_once(' ')?.1.split_once('='))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        let long = format!("blobs/sha512/{}", "a".repeat(128));
        writer.dir("blobs/").unwrap();
        for (name, data) in [("x", &b"hello"[..]), (&long, &[7; 1024])] {
            writer.file(name, 0o444, data.len() as u64).unwrap();
            writer.data(data).unwrap();
            writer.pad(data.len() as u64).unwrap();
        }
        writer.finish().unwrap();
        let mut reader = Reader::new(&bytes[..]);
        assert_eq!(reader.next().unwrap(), Some(("blobs/".into(), Entry::Other)));
        assert_eq!(reader.next().unwrap(), Some(("x".into(), Entry::File(5))));
        assert_eq!(reader.whole(10).unwrap(), b"hello");
        assert_eq!(reader.next().unwrap(), Some((long, Entry::File(1024))));
        assert_eq!(reader.next().unwrap(), None);
        let mut cut = Reader::new(&bytes[..1300]);
        cut.next().unwrap();
        cut.next().unwrap();
        assert!(cut.next().is_err(), "an archive that ends inside an entry");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..2048), good in any::<bool>()) {
            if good && bytes.len() >= BLOCK {
                // Past the checksum, where the fields are.
                let mut block = [0; BLOCK];
                block.copy_from_slice(&bytes[..BLOCK]);
                let sum = checksum(&block);
                bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            let mut reader = Reader::new(&bytes[..]);
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
