//! Pax extended headers: `length key=value\n`, over and over.

use super::header::Time;
use super::reader::TarError;
use super::sparse;

/// What an extended header says of the entry behind it. An empty value leaves the header's own, as in containerd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<i64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub mtime: Option<Time>,
    pub atime: Option<Time>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Option<sparse::Records>,
}

/// Prefix of the keys that carry extended attributes.
pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

/// Prefix of the keys that describe a sparse file.
const SPARSE: &[u8] = b"GNU.sparse.";

impl Pax {
    pub fn parse(mut bytes: &[u8]) -> Result<Self, TarError> {
        let mut pax = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or(TarError::Pax)?;
            pax.set(key, value)?;
            bytes = rest;
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        if key.is_empty() || key.contains(&0) {
            return Err(TarError::Pax);
        }
        let name = || if value.contains(&0) { Err(TarError::NameNul) } else { Ok(value.to_vec()) };
        match key {
            _ if key.starts_with(SPARSE) => {
                self.sparse.get_or_insert_default().set(&key[SPARSE.len()..], value)?;
            }
            _ if key.starts_with(XATTR) => self.set_xattr(&key[XATTR.len()..], value)?,
            _ if value.is_empty() => {}
            b"path" => self.path = Some(name()?),
            b"linkpath" => self.link = Some(name()?),
            b"size" => self.size = Some(decimal(value).ok_or(TarError::Number("size"))?),
            b"uid" => self.uid = Some(decimal(value).ok_or(TarError::Number("uid"))?),
            b"gid" => self.gid = Some(decimal(value).ok_or(TarError::Number("gid"))?),
            b"mtime" => self.mtime = Some(time(value).ok_or(TarError::Number("mtime"))?),
            b"atime" => self.atime = Some(time(value).ok_or(TarError::Number("atime"))?),
            _ => {}
        }
        Ok(())
    }

    fn set_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), TarError> {
        // The kernel's own bounds: XATTR_NAME_MAX and XATTR_SIZE_MAX.
        if name.is_empty() || name.len() > 255 || value.len() > 65536 {
            return Err(TarError::Pax);
        }
        self.xattrs.retain(|(known, _)| known != name);
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

/// Splits the first record off: its key, its value, and what follows.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..blank])?).ok()?;
    if length <= blank + 1 || length > bytes.len() {
        return None;
    }
    let (record, rest) = bytes.split_at(length);
    let record = record[blank + 1..].strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

pub(super) fn decimal(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// `seconds[.fraction]`, perhaps negative; finer than a nanosecond is cut off.
fn time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = decimal(whole.as_bytes())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{fraction:0<9}").get(..9)?.parse::<u32>().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

/// Appends a record to `out`. Its length counts itself.
pub(super) fn append(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    out.extend_from_slice(format!("{length} ").as_bytes());
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_records_length_counts_its_own_digits() {
        for length in 0..300 {
            let mut bytes = Vec::new();
            append(&mut bytes, b"path", &vec![b'x'; length]);
            let pax = Pax::parse(&bytes).unwrap();
            assert_eq!(pax.path.map_or(0, |path| path.len()), length);
        }
    }

    #[test]
    fn times_have_fractions_and_signs() {
        for (text, wanted) in [
            ("1", Some((1, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("1.0000000019", Some((1, 1))),
            ("", None),
            ("1.x", None),
            ("1e9", None),
        ] {
            assert_eq!(time(text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [
            &b"x"[..],
            b"5 a=b\n",
            b"0 a=b\n",
            b"99 a=b\n",
            b"-6 a=b\n",
            b"6 ab\n\n",
            b"6 a=bc",
            b"18446744073709551616 a=b\n",
            b"6 =bb\n",
        ] {
            assert!(Pax::parse(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
