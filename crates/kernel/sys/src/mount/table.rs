//! The mount table of a process: `/proc/self/mountinfo`, parsed.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Id of the mount.
    pub id: u64,
    /// Id of the mount it is attached to.
    pub parent: u64,
    /// What of the file system is mounted.
    pub root: PathBuf,
    /// Where it is mounted.
    pub target: PathBuf,
    /// Per-mount options.
    pub options: String,
    /// Whether it is a member of a peer group.
    pub shared: bool,
    /// Type of the file system.
    pub file_system: String,
    /// What was mounted.
    pub source: OsString,
    /// Options of the file system.
    pub super_options: String,
}

/// The mounts this process sees, in the order they were attached.
pub fn read() -> Result<Vec<Entry>> {
    let path = "/proc/self/mountinfo";
    let text = std::fs::read(path)
        .map_err(|error| Error::new(error.raw_os_error().unwrap_or(libc::EIO), format!("read({path})")))?;
    Ok(parse(&text))
}

/// Parses mountinfo; lines that are not of its form are left out.
pub fn parse(text: &[u8]) -> Vec<Entry> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Entry> {
    let mut words = line.split(|&byte| byte == b' ');
    let id = number(words.next()?)?;
    let parent = number(words.next()?)?;
    let _device = words.next()?;
    let root = unescape(words.next()?).into();
    let target = unescape(words.next()?).into();
    let options = String::from_utf8_lossy(words.next()?).into_owned();
    let mut shared = false;
    for tag in words.by_ref() {
        if tag == b"-" {
            break;
        }
        shared |= tag.starts_with(b"shared:");
    }
    let file_system = String::from_utf8_lossy(words.next()?).into_owned();
    let source = unescape(words.next()?);
    let super_options = String::from_utf8_lossy(words.next().unwrap_or_default()).into_owned();
    Some(Entry { id, parent, root, target, options, shared, file_system, source, super_options })
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Resolves the `\040` style escapes that the kernel writes for blanks and backslashes.
fn unescape(text: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let code = (byte == b'\\' && tail.len() >= 3)
            .then(|| {
                std::str::from_utf8(&tail[..3]).ok().and_then(|digits| u8::from_str_radix(digits, 8).ok())
            })
            .flatten();
        match code {
            Some(code) => {
                out.push(code);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_line_with_tags_and_escapes() {
        let line =
            b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue\n";
        let entries = parse(line);
        assert_eq!(entries.len(), 1);
        let entry = &entries[0];
        assert_eq!((entry.id, entry.parent), (36, 35));
        assert_eq!(entry.target, Path::new("/mnt 2"));
        assert!(entry.shared);
        assert_eq!(entry.file_system, "ext3");
        assert_eq!(entry.super_options, "rw,errors=continue");
    }

    #[test]
    fn our_own_table_has_a_root() {
        assert!(read().unwrap().iter().any(|entry| entry.target == Path::new("/")));
    }
}
