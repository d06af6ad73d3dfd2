//! Names of a layer's entries, and what they mean.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::ApplyError;

/// The longest path that the system's calls take.
const LONGEST: usize = 4095;

/// What begins the name of a deletion.
const WHITEOUT: &[u8] = b".wh.";
/// What begins the names that aufs keeps for itself.
const META: &[u8] = b".wh..wh.";
/// The name that makes its directory opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// An entry's place in the tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// The directory it is in; empty for the root.
    pub parent: PathBuf,
    /// Its last part.
    pub last: OsString,
}

/// What an entry's name asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The object itself.
    Object,
    /// The deletion of a name in the layers below.
    Delete(OsString),
    /// That nothing of the layers below shows in the directory.
    Opaque,
    /// Nothing: aufs's own bookkeeping.
    Nothing,
}

/// A name as text for an error.
pub(super) fn show(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(512)]).into_owned()
}

impl Name {
    /// Parses the name of an entry; `None` for the root itself.
    ///
    /// A leading slash is nothing special, and `a/../b` is `b`; a name that climbs over the root is refused.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, ApplyError> {
        if bytes.len() > LONGEST {
            return Err(ApplyError::Long { name: show(bytes), length: bytes.len() });
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in bytes.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop().ok_or_else(|| ApplyError::Climbs { name: show(bytes) })?;
                }
                name => parts.push(name),
            }
        }
        let Some(last) = parts.pop() else { return Ok(None) };
        let parent = PathBuf::from(OsString::from_vec(parts.join(&b'/')));
        Ok(Some(Self { parent, last: OsStr::from_bytes(last).to_owned() }))
    }

    /// What the name asks for.
    pub fn meaning(&self) -> Result<Meaning, ApplyError> {
        let last = self.last.as_bytes();
        if last == OPAQUE {
            return Ok(Meaning::Opaque);
        }
        let is_meta = |part: &OsStr| part.as_bytes().starts_with(META);
        if is_meta(&self.last) || self.parent.iter().any(is_meta) {
            return Ok(Meaning::Nothing);
        }
        match last.strip_prefix(WHITEOUT) {
            None => Ok(Meaning::Object),
            Some(b"" | b"." | b"..") => {
                Err(ApplyError::Whiteout { name: show(self.path().as_os_str().as_bytes()) })
            }
            Some(name) => Ok(Meaning::Delete(OsStr::from_bytes(name).to_owned())),
        }
    }

    /// The whole path.
    pub fn path(&self) -> PathBuf {
        self.parent.join(Path::new(&self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned() {
        for (name, parent, last) in [
            ("a", "", "a"),
            ("./a/b", "a", "b"),
            ("/etc//passwd", "etc", "passwd"),
            ("a/../b/", "", "b"),
            ("a/b/../../c/./d", "c", "d"),
        ] {
            let wanted = Name { parent: parent.into(), last: last.into() };
            assert_eq!(Name::parse(name.as_bytes()).unwrap(), Some(wanted), "{name}");
        }
        for root in ["", ".", "/", "./", "a/.."] {
            assert_eq!(Name::parse(root.as_bytes()).unwrap(), None, "{root}");
        }
    }

    #[test]
    fn names_that_climb_or_never_end_are_refused() {
        for name in ["..", "../x", "a/../../x", "/../etc/passwd"] {
            assert!(matches!(Name::parse(name.as_bytes()), Err(ApplyError::Climbs { .. })), "{name}");
        }
        assert!(matches!(Name::parse(&[b'a'; 5000]), Err(ApplyError::Long { .. })));
    }

    #[test]
    fn whiteouts_have_their_meaning() {
        let meaning = |name: &str| Name::parse(name.as_bytes()).unwrap().unwrap().meaning();
        assert_eq!(meaning("a/.wh.b").unwrap(), Meaning::Delete("b".into()));
        assert_eq!(meaning("a/.wh..wh..opq").unwrap(), Meaning::Opaque);
        assert_eq!(meaning(".wh..wh.plnk").unwrap(), Meaning::Nothing);
        assert_eq!(meaning(".wh..wh.plnk/1.2").unwrap(), Meaning::Nothing);
        assert_eq!(meaning("a.wh.b").unwrap(), Meaning::Object);
        for bad in [".wh.", ".wh..", ".wh..."] {
            assert!(meaning(bad).is_err(), "{bad}");
        }
    }
}
