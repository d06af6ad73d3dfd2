//! The streaming reader.

use std::io::{self, BufRead};

use super::header::{Entry, EntryType, Raw, text};
use super::pax::Pax;
use super::sparse::{Form, Fragment, Lines, Map, OldHeader};
use super::{BLOCK, LONGEST_EXTENSION};

/// Why an archive could not be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum TarError {
    #[error("the archive ends in the middle of an entry")]
    Truncated,
    #[error("a header has a wrong checksum: no tar archive, or a damaged one")]
    CheckSum,
    #[error("a header's {0} is no number, or out of range")]
    Number(&'static str),
    #[error("a zero block is followed by something else than the end")]
    End,
    #[error("malformed extended (pax) header")]
    Pax,
    #[error("a name holds a NUL byte")]
    NameNul,
    #[error("an extended header or long name of {0} bytes is longer than the {LONGEST_EXTENSION} allowed")]
    Extension(u64),
    #[error("malformed map of a sparse file")]
    Sparse,
    #[error("entry {name:?} has the unknown type {flag:#04x}")]
    Type { name: String, flag: u8 },
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
}

/// Reads the entries of an archive, one after the other.
pub struct Reader<R> {
    from: R,
    /// Bytes of the current entry that are still to come, and the filling behind them.
    left: u64,
    padding: u64,
    /// Where the next byte of the current entry belongs, how many follow it there, and where those after them do.
    offset: u64,
    fragment: u64,
    fragments: std::vec::IntoIter<Fragment>,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the archive `from`.
    pub fn new(from: R) -> Self {
        Self {
            from,
            left: 0,
            padding: 0,
            offset: 0,
            fragment: 0,
            fragments: Vec::new().into_iter(),
            ended: false,
        }
    }

    /// Gives back what it reads from.
    pub fn into_inner(self) -> R {
        self.from
    }

    /// The next entry; what was not read of the one before is skipped. `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut long_name = None;
        let mut long_link = None;
        let mut pax = Pax::default();
        loop {
            let Some(block) = self.next_header()? else { return Ok(None) };
            let raw = Raw::parse(&block)?;
            let old = if raw.flag == b'S' { Some(self.old_map(&block)?) } else { None };
            match raw.flag {
                b'x' => pax = Pax::parse(&self.extension(&raw)?)?,
                b'L' => long_name = Some(text(&self.extension(&raw)?)),
                b'K' => long_link = Some(text(&self.extension(&raw)?)),
                // Global headers speak of no file of a layer; containerd ignores them.
                b'g' => drop(self.extension(&raw)?),
                _ => return self.finish(raw, pax, old, long_name, long_link).map(Some),
            }
        }
    }

    /// Bytes of the current entry that are at hand, and where in the file they belong: what lies between is zero. None
    /// at its end. [`Reader::consume`] passes on.
    pub fn data(&mut self) -> Result<(u64, &[u8]), TarError> {
        if self.left == 0 {
            return Ok((self.offset, &[]));
        }
        while self.fragment == 0 {
            // A map covers all the bytes that are left; see `Map::new`.
            let Some(next) = self.fragments.next() else { return Err(TarError::Sparse) };
            (self.offset, self.fragment) = (next.offset, next.length);
        }
        let bytes = fill(&mut self.from)?;
        if bytes.is_empty() {
            return Err(TarError::Truncated);
        }
        let most = usize::try_from(self.fragment).unwrap_or(usize::MAX).min(bytes.len());
        Ok((self.offset, &bytes[..most]))
    }

    /// Passes `count` bytes, at most as many as [`Reader::data`] gave.
    pub fn consume(&mut self, count: usize) {
        self.from.consume(count);
        self.left = self.left.saturating_sub(count as u64);
        self.fragment = self.fragment.saturating_sub(count as u64);
        self.offset = self.offset.saturating_add(count as u64);
    }

    fn finish(
        &mut self,
        raw: Raw,
        pax: Pax,
        old: Option<OldHeader>,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let sparse_name = pax.sparse.as_ref().and_then(|records| records.name.clone());
        let name = sparse_name.or(pax.path).or(long_name).unwrap_or(raw.name);
        let lossy = |name: &[u8]| String::from_utf8_lossy(&name[..name.len().min(256)]).into_owned();
        let Some(mut kind) = EntryType::from_flag(raw.flag) else {
            return Err(TarError::Type { name: lossy(&name), flag: raw.flag });
        };
        // Tars older than the type flag mark directories by their name.
        if raw.flag == 0 && name.ends_with(b"/") {
            kind = EntryType::Directory;
        }
        let size = u64::try_from(pax.size.unwrap_or(raw.size)).map_err(|_| TarError::Number("size"))?;
        let size = if kind == EntryType::File { size } else { 0 };
        self.expect(size);
        let form =
            pax.sparse.filter(|_| kind == EntryType::File).map(|records| records.form()).transpose()?;
        let map = match (form, old) {
            (Some(Form::Records { numbers, size: real }), _) => Some(Map::new(&numbers, real, size)?),
            (Some(Form::Lines { size: real }), _) => Some(self.map_lines(real)?),
            (None, old) => old.map(|old| old.finish(size)).transpose()?,
        };
        let size = map.map_or(size, |map| self.scatter(map));
        let id = |value: i64, name| {
            u32::try_from(value).ok().filter(|&id| id != u32::MAX).ok_or(TarError::Number(name))
        };
        let mode = u32::try_from(raw.mode & 0o7777).map_err(|_| TarError::Number("mode"))?;
        let device = match kind {
            EntryType::CharDevice | EntryType::BlockDevice => device(raw.device)?,
            _ => (0, 0),
        };
        Ok(Entry {
            name,
            kind,
            mode,
            uid: id(pax.uid.unwrap_or(raw.uid), "uid")?,
            gid: id(pax.gid.unwrap_or(raw.gid), "gid")?,
            size,
            mtime: pax.mtime.unwrap_or(raw.mtime),
            atime: pax.atime.or(raw.atime),
            link: pax.link.or(long_link).unwrap_or(raw.link),
            device,
            xattrs: pax.xattrs,
        })
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        (self.offset, self.fragment, self.fragments) = (0, size, Vec::new().into_iter());
    }

    /// The bytes of the current entry belong where `map` says; gives the file's length.
    fn scatter(&mut self, map: Map) -> u64 {
        (self.offset, self.fragment, self.fragments) = (0, 0, map.fragments.into_iter());
        map.size
    }

    /// The map of an old sparse header, with the blocks of it that stand between header and bytes.
    fn old_map(&mut self, header: &[u8; BLOCK]) -> Result<OldHeader, TarError> {
        let mut old = OldHeader::parse(header)?;
        while old.continues {
            old.extend(&self.block()?.ok_or(TarError::Truncated)?)?;
        }
        Ok(old)
    }

    /// The map that stands before a file's bytes, counted among them.
    fn map_lines(&mut self, real_size: u64) -> Result<Map, TarError> {
        let mut lines = Lines::default();
        while !lines.is_complete() {
            let block = self.block()?.ok_or(TarError::Truncated)?;
            self.left = self.left.checked_sub(BLOCK as u64).ok_or(TarError::Sparse)?;
            lines.extend(&block)?;
        }
        lines.finish(real_size, self.left)
    }

    /// The bytes of a long name or an extended header.
    fn extension(&mut self, raw: &Raw) -> Result<Vec<u8>, TarError> {
        let size = u64::try_from(raw.size).map_err(|_| TarError::Number("size"))?;
        if size > LONGEST_EXTENSION {
            return Err(TarError::Extension(size));
        }
        self.expect(size);
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        while self.left > 0 {
            let (_, more) = self.data()?;
            bytes.extend_from_slice(more);
            let count = more.len();
            self.consume(count);
        }
        Ok(bytes)
    }

    /// The next header block; `None` at the end: two zero blocks, or no more bytes.
    fn next_header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        if self.ended {
            return Ok(None);
        }
        while self.left > 0 {
            let count = self.data()?.1.len();
            self.consume(count);
        }
        self.ended = true;
        if !self.skip_padding()? {
            return Ok(None);
        }
        let Some(block) = self.block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            self.ended = false;
            return Ok(Some(block));
        }
        match self.block()? {
            Some(second) if second != [0; BLOCK] => Err(TarError::End),
            _ => Ok(None),
        }
    }

    /// Whether the filling behind the last entry is there; some writers leave out the very last.
    fn skip_padding(&mut self) -> Result<bool, TarError> {
        while self.padding > 0 {
            let bytes = fill(&mut self.from)?.len();
            if bytes == 0 {
                return Ok(false);
            }
            let count = usize::try_from(self.padding).unwrap_or(usize::MAX).min(bytes);
            self.from.consume(count);
            self.padding -= count as u64;
        }
        Ok(true)
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            let bytes = fill(&mut self.from)?;
            let count = bytes.len().min(BLOCK - have);
            if count == 0 {
                return if have == 0 { Ok(None) } else { Err(TarError::Truncated) };
            }
            block[have..have + count].copy_from_slice(&bytes[..count]);
            self.from.consume(count);
            have += count;
        }
        Ok(Some(block))
    }
}

/// The kernel's device numbers have 12 and 20 bits; larger ones would silently become other devices.
fn device((major, minor): (i64, i64)) -> Result<(u32, u32), TarError> {
    let part = |value: i64, bits: u32| u32::try_from(value).ok().filter(|&value| value < 1 << bits);
    match (part(major, 12), part(minor, 20)) {
        (Some(major), Some(minor)) => Ok((major, minor)),
        _ => Err(TarError::Number("device number")),
    }
}

fn fill<R: BufRead>(from: &mut R) -> Result<&[u8], TarError> {
    // A signal may interrupt a read of a pipe; the borrow checker wants the retry apart from the result.
    loop {
        match from.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TarError::Read(error)),
        }
    }
    from.fill_buf().map_err(TarError::Read)
}
