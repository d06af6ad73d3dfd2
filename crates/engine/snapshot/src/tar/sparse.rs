//! Sparse files, as GNU tar writes them: where the bytes behind a header belong in the file.
//!
//! Four forms: the old GNU header (type `S`), and pax versions 0.0 (a record for each number), 0.1 (one record with all
//! of them) and 1.0 (decimal lines before the bytes).
//!
//! Invariant: fragments ascend, do not overlap, and end within the file.

use super::header::number;
use super::pax::decimal;
use super::reader::TarError;
use super::{BLOCK, LONGEST_EXTENSION};

/// The most numbers that a map may have: as many as an extended header could hold.
const MOST_NUMBERS: usize = LONGEST_EXTENSION as usize / 4;

/// A run of bytes that the archive has; between runs the file is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub offset: u64,
    pub length: u64,
}

/// What of a file the archive has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Map {
    pub fragments: Vec<Fragment>,
    /// The file's length.
    pub size: u64,
}

impl Map {
    /// Offsets and lengths by turns; `stored` bytes stand behind the header.
    pub fn new(numbers: &[u64], size: u64, stored: u64) -> Result<Self, TarError> {
        let (pairs, rest) = numbers.as_chunks::<2>();
        let mut end = 0_u64;
        let mut sum = 0_u64;
        for &[offset, length] in pairs {
            let next = offset.checked_add(length).filter(|&next| offset >= end && next <= size);
            end = next.ok_or(TarError::Sparse)?;
            // Cannot overflow: no two overlap, and the last ends within the file.
            sum += length;
        }
        if !rest.is_empty() || sum != stored {
            return Err(TarError::Sparse);
        }
        let fragments = pairs.iter().map(|&[offset, length]| Fragment { offset, length }).collect();
        Ok(Self { fragments, size })
    }
}

/// What a pax header says of a sparse file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    major: Option<Vec<u8>>,
    minor: Option<Vec<u8>>,
    /// The file's name; `path` is then one that older programs make of it.
    pub name: Option<Vec<u8>>,
    size: Option<u64>,
    numbers: Vec<u64>,
}

/// How a file is described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// By the records.
    Records {
        /// Offsets and lengths.
        numbers: Vec<u64>,
        /// The file's length.
        size: u64,
    },
    /// By decimal lines before the bytes.
    Lines {
        /// The file's length.
        size: u64,
    },
}

impl Records {
    /// Takes the record `GNU.sparse.<key>`.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        let natural = |value| unsigned(value).ok_or(TarError::Sparse);
        match key {
            b"major" => self.major = Some(value.to_vec()),
            b"minor" => self.minor = Some(value.to_vec()),
            b"name" if value.contains(&0) => return Err(TarError::NameNul),
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(natural(value)?),
            // Version 0.0 has one record for each number; an offset comes before its length.
            b"offset" if self.numbers.len().is_multiple_of(2) => self.numbers.push(natural(value)?),
            b"numbytes" if !self.numbers.len().is_multiple_of(2) => self.numbers.push(natural(value)?),
            b"offset" | b"numbytes" => return Err(TarError::Sparse),
            b"map" if value.is_empty() => self.numbers.clear(),
            b"map" => {
                self.numbers = value.split(|&byte| byte == b',').map(natural).collect::<Result<_, _>>()?
            }
            // `numblocks` says again how long the map is.
            _ => {}
        }
        Ok(())
    }

    /// The form that the records name.
    pub fn form(self) -> Result<Form, TarError> {
        let size = self.size.ok_or(TarError::Sparse)?;
        match (self.major.as_deref(), self.minor.as_deref()) {
            (None, None) | (Some(b"0"), Some(b"0" | b"1")) => {
                Ok(Form::Records { numbers: self.numbers, size })
            }
            (Some(b"1"), Some(b"0")) => Ok(Form::Lines { size }),
            _ => Err(TarError::Sparse),
        }
    }
}

/// The map of an old GNU header, which goes on in blocks behind it.
#[derive(Debug)]
pub(super) struct OldHeader {
    numbers: Vec<u64>,
    size: u64,
    /// Whether another block of the map follows.
    pub continues: bool,
}

impl OldHeader {
    /// Reads the header block.
    pub fn parse(block: &[u8; BLOCK]) -> Result<Self, TarError> {
        let size = u64::try_from(number(&block[483..495], "real size")?);
        let size = size.map_err(|_| TarError::Number("real size"))?;
        let mut header = Self { numbers: Vec::new(), size, continues: block[482] != 0 };
        header.take(&block[386..482])?;
        Ok(header)
    }

    /// Reads a block of the map behind the header.
    pub fn extend(&mut self, block: &[u8; BLOCK]) -> Result<(), TarError> {
        self.continues = block[504] != 0;
        self.take(&block[..504])
    }

    /// The whole map, when `stored` bytes follow.
    pub fn finish(self, stored: u64) -> Result<Map, TarError> {
        Map::new(&self.numbers, self.size, stored)
    }

    fn take(&mut self, fields: &[u8]) -> Result<(), TarError> {
        // An entry without an offset ends a block's list.
        for field in fields.chunks_exact(12).take_while(|field| field.first() != Some(&0)) {
            let value = number(field, "sparse map")?;
            self.numbers.push(u64::try_from(value).map_err(|_| TarError::Sparse)?);
        }
        if self.numbers.len() > MOST_NUMBERS { Err(TarError::Sparse) } else { Ok(()) }
    }
}

/// The decimal lines of version 1.0: how many fragments, then the two numbers of each.
#[derive(Debug, Default)]
pub(super) struct Lines {
    count: Option<usize>,
    numbers: Vec<u64>,
    digits: Vec<u8>,
}

impl Lines {
    /// Whether the map is complete; what is left of the block is filling.
    pub fn is_complete(&self) -> bool {
        self.count.is_some_and(|count| self.numbers.len() == count)
    }

    /// Reads on in `block`.
    pub fn extend(&mut self, block: &[u8; BLOCK]) -> Result<(), TarError> {
        for &byte in block {
            if self.is_complete() {
                break;
            }
            match byte {
                b'0'..=b'9' if self.digits.len() < 20 => self.digits.push(byte),
                b'\n' => self.end_line()?,
                _ => return Err(TarError::Sparse),
            }
        }
        Ok(())
    }

    /// The map, when `stored` bytes follow its last block.
    pub fn finish(self, size: u64, stored: u64) -> Result<Map, TarError> {
        Map::new(&self.numbers, size, stored)
    }

    fn end_line(&mut self) -> Result<(), TarError> {
        let value = unsigned(&self.digits).ok_or(TarError::Sparse)?;
        self.digits.clear();
        if self.count.is_some() {
            self.numbers.push(value);
            return Ok(());
        }
        let count = usize::try_from(value).ok().and_then(|count| count.checked_mul(2));
        self.count = Some(count.filter(|&count| count <= MOST_NUMBERS).ok_or(TarError::Sparse)?);
        Ok(())
    }
}

fn unsigned(text: &[u8]) -> Option<u64> {
    decimal(text).and_then(|value| u64::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_fits_its_file_and_its_bytes() {
        let map = Map::new(&[0, 2, 5, 3, 10, 0], 10, 5).unwrap();
        assert_eq!(map.fragments[1], Fragment { offset: 5, length: 3 });
        assert_eq!(map.size, 10);
        for (numbers, size, stored) in [
            (&[0, 2, 1, 2][..], 10, 4),    // overlap
            (&[5, 2, 0, 2], 10, 4),        // backwards
            (&[0, 11], 10, 11),            // beyond the end
            (&[u64::MAX, 2], u64::MAX, 2), // overflow
            (&[0, 2], 10, 3),              // bytes that belong nowhere
            (&[0, 2], 10, 1),              // bytes that are not there
            (&[0, 2, 4], 10, 2),           // half a pair
        ] {
            assert!(Map::new(numbers, size, stored).is_err(), "{numbers:?}");
        }
    }

    #[test]
    fn records_name_their_form() {
        let form = |records: &[(&str, &str)]| {
            let mut taken = Records::default();
            for (key, value) in records {
                taken.set(key.as_bytes(), value.as_bytes()).ok()?;
            }
            taken.form().ok()
        };
        let listed = Some(Form::Records { numbers: vec![1, 2, 5, 1], size: 9 });
        let apart = [("size", "9"), ("offset", "1"), ("numbytes", "2"), ("offset", "5"), ("numbytes", "1")];
        assert_eq!(form(&apart), listed);
        assert_eq!(form(&[("size", "9"), ("map", "1,2,5,1"), ("major", "0"), ("minor", "1")]), listed);
        assert_eq!(form(&[("major", "1"), ("minor", "0"), ("realsize", "9")]), Some(Form::Lines { size: 9 }));
        for bad in [
            &[("major", "1")][..],
            &[("major", "2"), ("minor", "0"), ("size", "1")],
            &[("size", "-1")],
            &[("size", "1"), ("numbytes", "1")],
            &[("size", "1"), ("map", "1,,2")],
        ] {
            assert_eq!(form(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn lines_end_within_bounds() {
        let block = |text: &str| {
            let mut block = [0; BLOCK];
            block[..text.len()].copy_from_slice(text.as_bytes());
            block
        };
        let mut lines = Lines::default();
        lines.extend(&block("2\n0\n3\n7\n1\n")).unwrap();
        assert!(lines.is_complete());
        assert_eq!(lines.finish(8, 4).unwrap().fragments.len(), 2);
        for bad in ["x\n", "\n", "99999999\n", "1\n-1\n", "123456789012345678901\n", "1\n5"] {
            assert!(Lines::default().extend(&block(bad)).is_err(), "{bad:?}");
        }
    }
}
