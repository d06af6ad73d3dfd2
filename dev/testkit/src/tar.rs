//! Tar archives written byte by byte, so that a test can make the honest and the hostile alike.
//!
//! The format is POSIX pax: a ustar header of 512 bytes, preceded by an extended header where a value does not fit.

/// Blocks of a tar archive.
const BLOCK: usize = 512;

/// An archive being written.
pub struct Archive {
    bytes: Vec<u8>,
    mtime: u64,
}

/// One entry in full; [`Archive`]'s verbs fill the usual ones.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// The name as it stands in the archive.
    pub name: &'a str,
    /// The type flag: `0` file, `1` hard link, `2` symbolic link, `3` and `4` devices, `5` directory, `6` fifo.
    pub kind: u8,
    /// Permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u64,
    /// The group.
    pub gid: u64,
    /// Where a link leads.
    pub link: &'a str,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// A file's bytes.
    pub data: &'a [u8],
    /// Extended attributes.
    pub xattrs: &'a [(&'a str, &'a [u8])],
    /// Further pax records, written as they are.
    pub pax: &'a [(&'a str, &'a str)],
}

impl<'a> Entry<'a> {
    /// An entry of type `kind` owned by root, with mode 0644.
    pub fn new(kind: u8, name: &'a str) -> Self {
        Self {
            name,
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            link: "",
            device: (0, 0),
            data: b"",
            xattrs: &[],
            pax: &[],
        }
    }
}

impl Default for Archive {
    fn default() -> Self {
        Self::new()
    }
}

impl Archive {
    /// An empty archive whose entries have one fixed time, so that equal content has an equal digest.
    pub fn new() -> Self {
        Self { bytes: Vec::new(), mtime: 1_700_000_000 }
    }

    /// Adds a directory.
    pub fn dir(self, name: &str, mode: u32) -> Self {
        self.entry(&Entry { mode, ..Entry::new(b'5', name) })
    }

    /// Adds a regular file.
    pub fn file(self, name: &str, mode: u32, data: &[u8]) -> Self {
        self.entry(&Entry { mode, data, ..Entry::new(b'0', name) })
    }

    /// Adds a symbolic link to `link`.
    pub fn symlink(self, name: &str, link: &str) -> Self {
        self.entry(&Entry { link, mode: 0o777, ..Entry::new(b'2', name) })
    }

    /// Adds a hard link to the entry `link`, with the mode of that entry: Go's unpacker sets it anew.
    pub fn hardlink(self, name: &str, link: &str, mode: u32) -> Self {
        self.entry(&Entry { link, mode, ..Entry::new(b'1', name) })
    }

    /// Adds a character device.
    pub fn char_device(self, name: &str, mode: u32, major: u32, minor: u32) -> Self {
        self.entry(&Entry { mode, device: (major, minor), ..Entry::new(b'3', name) })
    }

    /// Adds a fifo.
    pub fn fifo(self, name: &str, mode: u32) -> Self {
        self.entry(&Entry { mode, ..Entry::new(b'6', name) })
    }

    /// Adds the whiteout that deletes `name` of the layers below.
    pub fn whiteout(self, name: &str) -> Self {
        let (dir, file) =
            name.rsplit_once('/').map_or((String::new(), name), |(dir, file)| (format!("{dir}/"), file));
        self.file(&format!("{dir}.wh.{file}"), 0o600, b"")
    }

    /// Adds the mark that hides everything the layers below have in the directory `name`.
    pub fn opaque(self, name: &str) -> Self {
        self.file(&format!("{name}/.wh..wh..opq"), 0o600, b"")
    }

    /// Adds an entry as it is given, however wrong.
    pub fn entry(mut self, entry: &Entry<'_>) -> Self {
        let mut records = Vec::new();
        let (name, link) = (entry.name.as_bytes(), entry.link.as_bytes());
        if name.len() > 100 {
            record(&mut records, "path", name);
        }
        if link.len() > 100 {
            record(&mut records, "linkpath", link);
        }
        for (key, value) in entry.xattrs {
            record(&mut records, &format!("SCHILY.xattr.{key}"), value);
        }
        for (key, value) in entry.pax {
            record(&mut records, key, value.as_bytes());
        }
        if !records.is_empty() {
            self.header(b"pax", b'x', &Entry::new(b'x', ""), &records);
        }
        self.header(name, entry.kind, entry, entry.data);
        self
    }

    /// The archive with its two closing blocks of zeros.
    pub fn finish(self) -> Vec<u8> {
        let mut bytes = self.bytes;
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        bytes
    }

    /// The archive without its closing blocks, as some builders leave it.
    pub fn finish_bare(self) -> Vec<u8> {
        self.bytes
    }

    fn header(&mut self, name: &[u8], kind: u8, entry: &Entry<'_>, data: &[u8]) {
        let mut block = [0; BLOCK];
        put(&mut block[0..100], name);
        octal(&mut block[100..108], entry.mode.into());
        octal(&mut block[108..116], entry.uid);
        octal(&mut block[116..124], entry.gid);
        octal(&mut block[124..136], data.len() as u64);
        octal(&mut block[136..148], self.mtime);
        block[156] = kind;
        put(&mut block[157..257], entry.link.as_bytes());
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], entry.device.0.into());
        octal(&mut block[337..345], entry.device.1.into());
        // The checksum counts its own eight bytes as blanks.
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut block[148..155], sum);
        self.bytes.extend_from_slice(&block);
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }
}

/// Writes as much of `value` as fits.
fn put(field: &mut [u8], value: &[u8]) {
    let count = value.len().min(field.len());
    field[..count].copy_from_slice(&value[..count]);
}

/// Writes an octal number closed by a zero byte; one too big in the base-256 form of GNU tar.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    if text.len() <= digits {
        put(field, text.as_bytes());
        return;
    }
    let start = field.len() - 8.min(field.len());
    let bytes = value.to_be_bytes();
    let tail = &bytes[bytes.len() - (field.len() - start)..];
    field[start..].copy_from_slice(tail);
    field[0] |= 0x80;
}

/// Appends one pax record: its own length in decimal, a blank, `key=value`, a line feed.
fn record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Run;

    #[test]
    fn gnu_tar_lists_what_was_written() {
        let long = format!("{}/file", "d".repeat(120));
        let bytes = Archive::new()
            .dir("etc/", 0o755)
            .file("etc/passwd", 0o640, b"root\n")
            .symlink("bin", "usr/bin")
            .hardlink("etc/shadow", "etc/passwd", 0o640)
            .char_device("null", 0o666, 1, 3)
            .file(&long, 0o600, b"x")
            .finish();
        let list = Run::new("tar").args(["--numeric-owner", "--utc", "-tvf", "-"]).stdin(bytes).ok();
        let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0][0], "drwxr-xr-x");
        assert_eq!(rows[1][..3], ["-rw-r-----", "0/0", "5"]);
        assert_eq!(rows[2][5..], ["bin", "->", "usr/bin"]);
        assert_eq!(rows[3][5..], ["etc/shadow", "link", "to", "etc/passwd"]);
        assert_eq!(rows[4][2], "1,3");
        assert_eq!(rows[5][5], long);
    }

    #[test]
    fn a_record_counts_its_own_digits() {
        let mut out = Vec::new();
        record(&mut out, "path", &[b'a'; 90]);
        assert_eq!(out.len(), 99, "two digits become three at 100");
        assert!(out.starts_with(b"99 path="));
    }

    #[test]
    fn a_whiteout_stands_beside_what_it_deletes() {
        let bytes = Archive::new().whiteout("etc/motd").opaque("var/cache").finish_bare();
        assert!(bytes.starts_with(b"etc/.wh.motd\0"));
        assert!(bytes[BLOCK..].starts_with(b"var/cache/.wh..wh..opq\0"));
        assert_eq!(bytes.len(), 2 * BLOCK);
    }
}
