//! The second copy of a driver's records: a file for each snapshot, from which a damaged or lost database is made again.
//!
//! ```text
//! <root>/records/<id>     checksum (16 hexadecimal digits), line break, JSON of the key and the record
//! <root>/records/.new     one that is being written
//! ```
//!
//! A file is written and removed inside the transaction of its record, before the commit, without a flush. So a crash of
//! the daemon leaves files at most one transaction ahead of the database; a power cut may take the last of them. Of two
//! versions of a record the one that was updated later counts.
//!
//! Invariant: a file that is not as it was written is never read as a record.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::SnapshotError;
use super::records::Record;

const DIRECTORY: &str = "records";
const NEW: &str = ".new";
/// Length of the checksum and the line break, in bytes.
const HEAD: usize = 17;
/// The longest file that is read, in bytes: a key and labels are far shorter.
const MAX_FILE: u64 = 16 << 20;

/// A record with its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Keyed {
    pub(super) key: String,
    pub(super) record: Record,
}

/// The files of one driver.
#[derive(Debug)]
pub(super) struct RecordFiles {
    directory: PathBuf,
}

/// A file as a look at its directory shows it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    length: u64,
    modified: SystemTime,
}

impl RecordFiles {
    /// The files beside the database `database`.
    pub(super) fn beside(database: &Path) -> Self {
        Self { directory: database.with_file_name(DIRECTORY) }
    }

    /// Makes the directory; whether it was there.
    pub(super) fn make(&self) -> Result<bool, SnapshotError> {
        let there = self.directory.try_exists().map_err(|source| self.failed(&self.directory, source))?;
        super::make_private_dir(&self.directory)?;
        Ok(there)
    }

    /// Writes the record of `keyed`, in place of an older version.
    pub(super) fn write(&self, keyed: &Keyed) -> Result<(), SnapshotError> {
        let (new, path) = (self.directory.join(NEW), self.path(keyed.record.id));
        let text = encode(keyed).map_err(|error| self.failed(&new, error.into()))?;
        fs::write(&new, text).map_err(|source| self.failed(&new, source))?;
        fs::rename(&new, &path).map_err(|source| self.failed(&path, source))
    }

    /// Removes the record `id`.
    pub(super) fn remove(&self, id: u64) -> Result<(), SnapshotError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.failed(&path, source)),
            _ => Ok(()),
        }
    }

    /// Every record whose file is whole, by id.
    pub(super) fn read_all(&self) -> Result<BTreeMap<u64, Keyed>, SnapshotError> {
        let mut found = BTreeMap::new();
        for id in self.list()?.into_keys() {
            found.extend(self.read(id)?.map(|keyed| (id, keyed)));
        }
        Ok(found)
    }

    /// The records, among those whose files differ from `known`, that are newer than it; every other file is made as
    /// `known` has it. A file is looked into only when its length differs or it was written after `since`.
    pub(super) fn settle(
        &self,
        known: &BTreeMap<u64, Keyed>,
        since: SystemTime,
    ) -> Result<Vec<Keyed>, SnapshotError> {
        let mut files = self.list()?;
        let mut newer = Vec::new();
        for (id, keyed) in known {
            let text = encode(keyed).map_err(|error| self.failed(&self.path(*id), error.into()))?;
            match files.remove(id) {
                Some(seen) if seen.length == text.len() as u64 && seen.modified < since => {}
                _ => match self.read(*id)? {
                    Some(found) if found == *keyed => {}
                    Some(found) if found.record.updated > keyed.record.updated => newer.push(found),
                    _ => self.write(keyed)?,
                },
            }
        }
        for id in files.into_keys() {
            match self.read(id)? {
                Some(found) => newer.push(found),
                None => self.remove(id)?,
            }
        }
        Ok(newer)
    }

    fn list(&self) -> Result<BTreeMap<u64, Seen>, SnapshotError> {
        let failed = |source| self.failed(&self.directory, source);
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let meta = entry.metadata().map_err(failed)?;
            let modified = meta.modified().map_err(failed)?;
            found.insert(id, Seen { length: meta.len(), modified });
        }
        Ok(found)
    }

    /// The record `id`; `None` when its file is missing or damaged.
    fn read(&self, id: u64) -> Result<Option<Keyed>, SnapshotError> {
        let path = self.path(id);
        let text = match fs::metadata(&path) {
            Ok(meta) if meta.len() > MAX_FILE => return Ok(None),
            Ok(_) => fs::read(&path),
            Err(error) => Err(error),
        };
        match text {
            Ok(text) => Ok(decode(&text).filter(|keyed| keyed.record.id == id)),
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_unreadable(&error) => Ok(None),
            Err(source) => Err(self.failed(&path, source)),
        }
    }

    fn path(&self, id: u64) -> PathBuf {
        self.directory.join(id.to_string())
    }

    fn failed(&self, path: &Path, source: io::Error) -> SnapshotError {
        SnapshotError::RecordFile { path: path.to_owned(), source }
    }
}

/// Whether the disk cannot read what it has.
fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO)
}

fn encode(keyed: &Keyed) -> Result<Vec<u8>, serde_json::Error> {
    let json = serde_json::to_vec(keyed)?;
    let mut text = format!("{:016x}\n", checksum(&json)).into_bytes();
    text.extend(json);
    Ok(text)
}

fn decode(text: &[u8]) -> Option<Keyed> {
    let (head, json) = text.split_at_checked(HEAD)?;
    let written = format!("{:016x}\n", checksum(json));
    if head != written.as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// FNV-1a with 64 bits: every step is a bijection of the state, so that one changed byte always changes the result.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(id: u64, key: &str, updated: u64) -> Keyed {
        let record = Record { id, kind: 'c', updated, ..Record::default() };
        Keyed { key: key.to_owned(), record }
    }

    #[test]
    fn a_flipped_bit_makes_a_file_unreadable() {
        let good = encode(&keyed(7, "k8s.io/1/sha256:ab", 1)).unwrap();
        assert_eq!(decode(&good), Some(keyed(7, "k8s.io/1/sha256:ab", 1)));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "bit {bit}");
        }
        assert!((0..good.len()).all(|length| decode(&good[..length]).is_none()));
    }

    #[test]
    fn of_two_versions_the_later_one_counts() {
        let dir = tempfile::tempdir().unwrap();
        let files = RecordFiles::beside(&dir.path().join("metadata.redb"));
        assert!(!files.make().unwrap());
        assert!(files.make().unwrap());
        for file in [keyed(1, "same", 5), keyed(2, "newer", 9), keyed(3, "old", 1), keyed(4, "more", 1)] {
            files.write(&file).unwrap();
        }
        fs::write(files.path(6), "nonsense").unwrap();
        let known = [keyed(1, "same", 5), keyed(2, "active", 5), keyed(3, "newest", 5), keyed(5, "lost", 5)];
        let known: BTreeMap<u64, Keyed> = known.into_iter().map(|one| (one.record.id, one)).collect();
        let newer = files.settle(&known, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(newer, [keyed(2, "newer", 9), keyed(4, "more", 1)]);
        let all: Vec<Keyed> = files.read_all().unwrap().into_values().collect();
        let expected = [
            keyed(1, "same", 5),
            keyed(2, "newer", 9),
            keyed(3, "newest", 5),
            keyed(4, "more", 1),
            keyed(5, "lost", 5),
        ];
        assert_eq!(all, expected);
        assert!(!files.path(6).exists());
    }
}
