//! The writer: ustar, with pax records only where a value does not fit, so that equal trees make equal archives.

use std::io::{self, Read, Write};

use super::BLOCK;
use super::header::Entry;
use super::pax;

/// Writes an archive.
pub struct Writer<W> {
    to: W,
}

impl<W: Write> Writer<W> {
    /// Writes an archive to `to`.
    pub fn new(to: W) -> Self {
        Self { to }
    }

    /// Writes an entry without bytes.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.header(&Entry { size: 0, ..entry.clone() })
    }

    /// Writes a file with the bytes of `data`, which must be exactly `entry.size`.
    pub fn file(&mut self, entry: &Entry, data: &mut impl Read) -> io::Result<()> {
        self.header(entry)?;
        let mut buffer = vec![0; 128 << 10];
        let mut left = entry.size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let count = match data.read(&mut buffer[..most]) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter")),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                done => done?,
            };
            self.to.write_all(&buffer[..count])?;
            left -= count as u64;
        }
        self.pad(entry.size)
    }

    /// Writes the end blocks and gives back what it wrote to.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        Ok(self.to)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = (size % BLOCK as u64) as usize;
        if over > 0 { self.to.write_all(&[0; BLOCK][over..]) } else { Ok(()) }
    }

    fn header(&mut self, entry: &Entry) -> io::Result<()> {
        let mut records = Vec::new();
        let (prefix, name) = split_name(&entry.name).unwrap_or_else(|| {
            pax::append(&mut records, b"path", &entry.name);
            (&[], &entry.name[..entry.name.len().min(100)])
        });
        if entry.link.len() > 100 || !entry.link.is_ascii() {
            pax::append(&mut records, b"linkpath", &entry.link);
        }
        let mut fits = |value: u64, digits: usize, key: &[u8]| {
            if value >> (3 * digits) == 0 {
                return value;
            }
            pax::append(&mut records, key, value.to_string().as_bytes());
            0
        };
        let uid = fits(entry.uid.into(), 7, b"uid");
        let gid = fits(entry.gid.into(), 7, b"gid");
        let size = fits(entry.size, 11, b"size");
        let mtime = match u64::try_from(entry.mtime.0) {
            Ok(seconds) => fits(seconds, 11, b"mtime"),
            Err(_) => {
                pax::append(&mut records, b"mtime", entry.mtime.0.to_string().as_bytes());
                0
            }
        };
        for (name, value) in &entry.xattrs {
            pax::append(&mut records, &[pax::XATTR, name].concat(), value);
        }
        if !records.is_empty() {
            self.extension(entry, &records)?;
        }
        let mut block = Block::new(name, prefix, entry.kind.flag());
        block.number(100, 8, entry.mode.into());
        block.number(108, 8, uid);
        block.number(116, 8, gid);
        block.number(124, 12, size);
        block.number(136, 12, mtime);
        block.text(157, 100, &entry.link);
        block.number(329, 8, entry.device.0.into());
        block.number(337, 8, entry.device.1.into());
        self.to.write_all(&block.finish())
    }

    fn extension(&mut self, entry: &Entry, records: &[u8]) -> io::Result<()> {
        let base = entry.name.rsplit(|&byte| byte == b'/').find(|part| !part.is_empty()).unwrap_or_default();
        let name = [b"PaxHeaders.0/", &base[..base.len().min(80)]].concat();
        let mut block = Block::new(&name, &[], b'x');
        for (at, length) in [(100, 8), (108, 8), (116, 8), (136, 12)] {
            block.number(at, length, 0);
        }
        block.number(124, 12, records.len() as u64);
        self.to.write_all(&block.finish())?;
        self.to.write_all(records)?;
        self.pad(records.len() as u64)
    }
}

/// The name as prefix and rest, when it fits into a ustar header.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if !name.is_ascii() {
        return None;
    }
    if name.len() <= 100 {
        return Some((&[], name));
    }
    // The slash between the two is not stored; the prefix may have 155 bytes, the rest 1 to 100.
    let from = name.len().saturating_sub(101);
    let slash = from + name.get(from..name.len() - 1)?.iter().position(|&byte| byte == b'/')?;
    (slash > 0 && slash <= 155).then(|| (&name[..slash], &name[slash + 1..]))
}

struct Block([u8; BLOCK]);

impl Block {
    fn new(name: &[u8], prefix: &[u8], flag: u8) -> Self {
        let mut block = Self([0; BLOCK]);
        block.text(0, 100, name);
        block.text(345, 155, prefix);
        block.0[156] = flag;
        block.text(257, 8, b"ustar\x0000");
        block
    }

    fn text(&mut self, at: usize, length: usize, text: &[u8]) {
        let count = text.len().min(length);
        self.0[at..at + count].copy_from_slice(&text[..count]);
    }

    fn number(&mut self, at: usize, length: usize, value: u64) {
        let digits = format!("{value:0width$o}", width = length - 1);
        self.text(at, length - 1, digits.as_bytes());
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.0[148..156].fill(b' ');
        let sum: u32 = self.0.iter().map(|&byte| u32::from(byte)).sum();
        let digits = format!("{sum:06o}\0 ");
        self.text(148, 8, digits.as_bytes());
        self.0
    }
}
