//! One header block of an archive, and what an entry is in the end.

use super::BLOCK;
use super::reader::TarError;

/// Seconds and nanoseconds since 1970; the nanoseconds count forward.
pub type Time = (i64, u32);

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryType {
    /// A regular file, with its bytes behind the header.
    File,
    /// Another name of an earlier file.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

impl EntryType {
    pub(super) fn from_flag(flag: u8) -> Option<Self> {
        Some(match flag {
            // `S`: a sparse file, whose map the reader has.
            b'0' | b'S' | 0 => Self::File,
            b'1' => Self::HardLink,
            b'2' => Self::Symlink,
            b'3' => Self::CharDevice,
            b'4' => Self::BlockDevice,
            b'5' => Self::Directory,
            b'6' => Self::Fifo,
            _ => return None,
        })
    }

    pub(super) fn flag(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::HardLink => b'1',
            Self::Symlink => b'2',
            Self::CharDevice => b'3',
            Self::BlockDevice => b'4',
            Self::Directory => b'5',
            Self::Fifo => b'6',
        }
    }
}

/// An entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, as written.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryType,
    /// Permission bits, set-id and sticky bits included.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length of a file.
    pub size: u64,
    /// Last change.
    pub mtime: Time,
    /// Last access, when the archive tells.
    pub atime: Option<Time>,
    /// Where a link leads.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// An entry of type `kind` with nothing but a name.
    pub fn new(kind: EntryType, name: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            atime: None,
            link: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }
}

/// The fields of a header block as they stand, before extensions are merged in.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub flag: u8,
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: i64,
    pub uid: i64,
    pub gid: i64,
    pub size: i64,
    pub mtime: Time,
    pub atime: Option<Time>,
    pub device: (i64, i64),
}

impl Raw {
    /// Parses a header block that is not all zero.
    pub fn parse(block: &[u8; BLOCK]) -> Result<Self, TarError> {
        check_sum(block)?;
        let is_ustar = &block[257..262] == b"ustar";
        let is_gnu = &block[257..265] == b"ustar  \0";
        let is_star = is_ustar && &block[508..512] == b"tar\0";
        let mut raw = Self {
            flag: block[156],
            name: text(&block[0..100]),
            link: text(&block[157..257]),
            mode: number(&block[100..108], "mode")?,
            uid: number(&block[108..116], "uid")?,
            gid: number(&block[116..124], "gid")?,
            size: number(&block[124..136], "size")?,
            mtime: (number(&block[136..148], "mtime")?, 0),
            atime: None,
            device: (0, 0),
        };
        if !is_ustar {
            return Ok(raw);
        }
        raw.device = (number(&block[329..337], "devmajor")?, number(&block[337..345], "devminor")?);
        let prefix = match (is_gnu, is_star) {
            // Old GNU headers have times where others have the prefix. Many writers leave them zero: unset.
            (true, _) => {
                raw.atime =
                    number(&block[345..357], "atime").ok().filter(|&time| time != 0).map(|time| (time, 0));
                Vec::new()
            }
            (_, true) => {
                raw.atime = Some((number(&block[476..488], "atime")?, 0));
                text(&block[345..476])
            }
            _ => text(&block[345..500]),
        };
        if !prefix.is_empty() {
            raw.name = [prefix.as_slice(), b"/", raw.name.as_slice()].concat();
        }
        Ok(raw)
    }
}

/// The sum of a header's bytes, its own field counted as blanks: unsigned, and signed as some old tars have it.
fn check_sum(block: &[u8; BLOCK]) -> Result<(), TarError> {
    let wanted = number(&block[148..156], "checksum")?;
    let bytes =
        block.iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { b' ' } else { byte });
    let (unsigned, signed) = bytes.fold((0_i64, 0_i64), |(unsigned, signed), byte| {
        (unsigned + i64::from(byte), signed + i64::from(byte as i8))
    });
    if wanted == unsigned || wanted == signed { Ok(()) } else { Err(TarError::CheckSum) }
}

/// The bytes before the first NUL.
pub(super) fn text(field: &[u8]) -> Vec<u8> {
    field.split(|&byte| byte == 0).next().unwrap_or_default().to_vec()
}

/// A number: octal digits between blanks or NULs, or base 256 when the first bit is set.
pub(super) fn number(field: &[u8], name: &'static str) -> Result<i64, TarError> {
    match field.first() {
        Some(&first) if first & 0x80 != 0 => base_256(field).ok_or(TarError::Number(name)),
        _ => octal(field).ok_or(TarError::Number(name)),
    }
}

fn octal(field: &[u8]) -> Option<i64> {
    let is_filler = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !is_filler(byte)).unwrap_or(field.len());
    let end = field.iter().rposition(|byte| !is_filler(byte)).map_or(start, |last| last + 1);
    field[start..end].iter().try_fold(0_i64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
        _ => None,
    })
}

/// Two's complement, big-endian; the first bit is the mark, the second the sign.
fn base_256(field: &[u8]) -> Option<i64> {
    let negative = field.first()? & 0x40 != 0;
    let first = if negative { field.first()? | 0x80 } else { field.first()? & 0x7f };
    let mut value: i128 = if negative { -1 } else { 0 };
    for (at, &byte) in field.iter().enumerate() {
        let byte = if at == 0 { first } else { byte };
        value = value.checked_mul(256)? + i128::from(byte);
        if i64::try_from(value).is_err() {
            return None;
        }
    }
    i64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_numbers_between_fillers() {
        for (field, value) in
            [(&b"0000644\0"[..], Some(0o644)), (b"   12 \0 ", Some(10)), (b"\0\0\0\0", Some(0))]
        {
            assert_eq!(number(field, "x").ok(), value);
        }
        for field in [&b"0009\0"[..], b"-1\0", b"1 1\0", b"77777777777777777777777777"] {
            assert!(number(field, "x").is_err(), "{field:?}");
        }
    }

    #[test]
    fn base_256_numbers() {
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0], "x").unwrap(), 256);
        assert_eq!(number(&[0xff; 8], "x").unwrap(), -1);
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], "x").unwrap(), -2);
        assert!(
            number(&[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "x").is_err()
        );
        assert_eq!(
            number(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "x").unwrap(),
            i64::MAX
        );
    }
}
