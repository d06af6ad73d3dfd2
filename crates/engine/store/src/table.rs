//! The tables of the database and the keys of their rows.
//!
//! ```text
//! table        key                                   row
//! namespaces   namespace                             record::Namespace
//! images       namespace, name                       record::Image
//! containers   namespace, id                         record::Container
//! sandboxes    namespace, id                         record::Sandbox
//! leases       namespace, id                         record::Lease
//! held         namespace, lease, kind, key           nothing: the lease holds it
//! blobs        namespace, digest                     record::Blob
//! ingests      namespace, reference                  record::Ingest
//! snapshots    namespace, snapshotter, key           record::Snapshot
//! children     namespace, snapshotter, parent, key   nothing: the parent has this child
//! sequences    namespace                             record::Sequence: the last number of the last block given out
//! journal      "last"                                record::Sequence: the number of the last transaction
//! ```
//!
//! A key is its parts with a zero byte between them, so that rows of one namespace are neighbours, in the order of
//! their names.
//!
//! Invariant: no part contains a zero byte; [`key`] refuses it.

use spec::{HasKind, Kind};

/// One table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table(pub(crate) &'static str);

pub(crate) const NAMESPACES: Table = Table("namespaces");
pub(crate) const IMAGES: Table = Table("images");
pub(crate) const CONTAINERS: Table = Table("containers");
pub(crate) const SANDBOXES: Table = Table("sandboxes");
pub(crate) const LEASES: Table = Table("leases");
pub(crate) const HELD: Table = Table("held");
pub(crate) const BLOBS: Table = Table("blobs");
pub(crate) const INGESTS: Table = Table("ingests");
pub(crate) const SNAPSHOTS: Table = Table("snapshots");
pub(crate) const CHILDREN: Table = Table("children");
pub(crate) const SEQUENCES: Table = Table("sequences");
pub(crate) const JOURNAL: Table = Table("journal");

/// Every table; all are made when the database is.
pub(crate) const ALL: [Table; 12] = [
    NAMESPACES, IMAGES, CONTAINERS, SANDBOXES, LEASES, HELD, BLOBS, INGESTS, SNAPSHOTS, CHILDREN, SEQUENCES,
    JOURNAL,
];

/// The longest key, in bytes, as in Go's bolt.
const MAX_KEY: usize = 32 * 1024;

/// Why a name cannot be a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("name {0:?} contains a zero byte: invalid argument")]
    Zero(String),
    #[error("name of {0} bytes is too long: invalid argument")]
    Length(usize),
}

impl HasKind for KeyError {
    fn kind(&self) -> Kind {
        match self {
            Self::Zero(_) | Self::Length(_) => Kind::InvalidArgument,
        }
    }
}

/// The key of the row that `parts` name.
pub(crate) fn key(parts: &[&str]) -> Result<Vec<u8>, KeyError> {
    let length = parts.iter().map(|part| part.len() + 1).sum();
    if length > MAX_KEY {
        return Err(KeyError::Length(length));
    }
    if let Some(part) = parts.iter().find(|part| part.contains('\0')) {
        return Err(KeyError::Zero((*part).to_owned()));
    }
    Ok(parts.join("\0").into_bytes())
}

/// What the keys of all rows below `parts` begin with; every row for no parts at all.
pub(crate) fn prefix(parts: &[&str]) -> Result<Vec<u8>, KeyError> {
    let mut bytes = key(parts)?;
    if !parts.is_empty() {
        bytes.push(0);
    }
    Ok(bytes)
}

/// The parts of a key; a key that is not text has parts that name nothing.
pub(crate) fn parts(key: &[u8]) -> Vec<&str> {
    key.split(|byte| *byte == 0).map(|part| std::str::from_utf8(part).unwrap_or("\u{fffd}")).collect()
}

/// The last part of a key.
pub(crate) fn last(key: &[u8]) -> &str {
    parts(key).pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_parts() {
        let whole = key(&["ns", "", "a/b"]).unwrap();
        assert_eq!(parts(&whole), ["ns", "", "a/b"]);
        assert_eq!(last(&whole), "a/b");
        assert!(whole.starts_with(&prefix(&["ns"]).unwrap()));
        assert!(!key(&["nsx", "a"]).unwrap().starts_with(&prefix(&["ns"]).unwrap()));
        assert!(prefix(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_name_is_bounded() {
        assert_eq!(key(&["ns", "a\0b"]).unwrap_err().kind(), Kind::InvalidArgument);
        assert_eq!(key(&["ns", &"x".repeat(40_000)]).unwrap_err().kind(), Kind::InvalidArgument);
    }
}
