//! How a driver's database comes to be: opened, made empty, or made again from the files of its records.
//!
//! ```text
//! metadata.redb           opens                        it is used, with what the files have beyond it
//!                         damaged, empty or missing    it is made again from the files
//!                         empty or missing, no files   an empty one is made
//!                         damaged, no files            the driver does not open
//! metadata.redb.damaged   what could not be used, after it was made again
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use redb::Database;
use spec::{HasKind, Kind};

use super::SnapshotError;
use super::distrust::Distrusted;
use super::record_files::{Keyed, RecordFiles};
use super::records::{Records, failed};

/// How a driver's database came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was there.
    Opened,
    /// It was made for a directory that never had one.
    New,
    /// It was made anew in place of one that is lost.
    Lost {
        /// What is wrong with the old one.
        why: String,
    },
    /// It was made again from the files of the records.
    Restored {
        /// What is wrong with the old one.
        why: String,
        /// How many snapshots it has.
        count: usize,
    },
}

impl Origin {
    /// What an operator should know, in one sentence; `None` for a usual start.
    pub fn notice(&self) -> Option<String> {
        match self {
            Self::Opened | Self::New => None,
            Self::Lost { why } => Some(format!("{why}; nothing is known of the snapshots in its directory")),
            Self::Restored { why, count } => {
                Some(format!("{why}; it was made again from the files of {count} records"))
            }
        }
    }
}

/// Opens the database at `path` or makes it. `directories` are the numbers of the snapshots' directories that are there.
pub(super) fn open(path: &Path, directories: &BTreeSet<u64>) -> Result<(Records, Origin), SnapshotError> {
    let files = RecordFiles::beside(path);
    let had_files = files.make()?;
    let (why, is_there) = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            (format!("{} is missing", path.display()), false)
        }
        Err(source) => return Err(SnapshotError::Open { path: path.to_owned(), source }),
        Ok(meta) if meta.len() == 0 => (format!("{} is empty", path.display()), true),
        Ok(meta) => match open_whole(path) {
            Ok((database, fell_back)) => {
                let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                let since = if fell_back { SystemTime::UNIX_EPOCH } else { modified };
                let records = Records::new(database, path, files)?;
                let added = settle(&records, since, directories)?;
                if added > 0 {
                    tracing::warn!(path = %path.display(), "{added} records came from their files");
                }
                return Ok((records, Origin::Opened));
            }
            Err(error) if error.kind() == Kind::DataLoss && !files.read_all()?.is_empty() => {
                (text(&error), true)
            }
            Err(error) => return Err(error),
        },
    };
    let whole = whole_chains(files.read_all()?, directories);
    let was_used = (had_files || is_there) && !directories.is_empty();
    let origin = match (whole.len(), was_used) {
        (0, false) => Origin::New,
        (0, true) => Origin::Lost { why },
        (count, _) => Origin::Restored { why, count },
    };
    make(path, &whole, directories)?;
    let (database, _) = open_whole(path)?;
    let records = Records::new(database, path, files)?;
    // What could not be taken must not look newer than the database at the next start.
    for id in records.files().read_all()?.into_keys().filter(|id| !whole.contains_key(id)) {
        records.files().remove(id)?;
    }
    Ok((records, origin))
}

fn text(error: &SnapshotError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Brings records and files together; how many records the files had beyond the database.
fn settle(records: &Records, since: SystemTime, directories: &BTreeSet<u64>) -> Result<usize, SnapshotError> {
    let known = records.keyed()?;
    let newer = records.files().settle(&known, since)?;
    if newer.is_empty() {
        return Ok(0);
    }
    let mut all = known.clone();
    all.extend(newer.iter().map(|keyed| (keyed.record.id, keyed.clone())));
    let whole = whole_chains(all, directories);
    let mut added = 0;
    for keyed in newer {
        // The key of an older snapshot may have been used again: the database then knows better.
        let is_taken = known.iter().any(|(id, other)| other.key == keyed.key && *id != keyed.record.id);
        if whole.contains_key(&keyed.record.id) && !is_taken {
            records.replace(known.get(&keyed.record.id).map(|old| old.key.as_str()), &keyed, &whole)?;
            added += 1;
        } else {
            records.files().remove(keyed.record.id)?;
        }
    }
    Ok(added)
}

/// The records whose directory is there, and those of all snapshots below.
fn whole_chains(mut found: BTreeMap<u64, Keyed>, directories: &BTreeSet<u64>) -> BTreeMap<u64, Keyed> {
    found.retain(|id, _| directories.contains(id));
    loop {
        let before = found.len();
        let committed: BTreeSet<String> = found
            .values()
            .filter(|keyed| keyed.record.is_committed())
            .map(|keyed| keyed.key.clone())
            .collect();
        found.retain(|_, keyed| keyed.record.parent.is_empty() || committed.contains(&keyed.record.parent));
        if found.len() == before {
            return found;
        }
    }
}

/// Opens the database; whether its newest state did not hold and the one before is used.
fn open_whole(path: &Path) -> Result<(Database, bool), SnapshotError> {
    let file = Distrusted::open(path).map_err(failed(path))?;
    let fell_back = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&fell_back);
    let database = Database::builder()
        .set_repair_callback(move |session| {
            // redb asks a first time before it compares anything, and then only if the newest state does not hold.
            if (0.2..0.5).contains(&session.progress()) {
                noted.store(true, Ordering::Relaxed);
            }
        })
        .create_with_backend(file)
        .map_err(failed(path))?;
    Ok((database, fell_back.load(Ordering::Relaxed)))
}

/// Makes a database of `records` beside `path`, and gives it its name once it is whole. Other directories than theirs are
/// older than it: they are kept.
fn make(
    path: &Path,
    records: &BTreeMap<u64, Keyed>,
    directories: &BTreeSet<u64>,
) -> Result<(), SnapshotError> {
    let open = |path: &Path| {
        let path = path.to_owned();
        move |source| SnapshotError::Open { path, source }
    };
    let new = path.with_extension("redb.new");
    remove(&new).map_err(open(&new))?;
    let (database, _) = open_whole(&new)?;
    let kept = directories.iter().filter(|id| !records.contains_key(id)).max().copied();
    Records::new(database, &new, RecordFiles::beside(path))?.fill(records, kept)?;
    let aside: PathBuf = path.with_extension("redb.damaged");
    match fs::metadata(path) {
        Ok(meta) if meta.len() > 0 => fs::rename(path, &aside).map_err(open(path))?,
        _ => {}
    }
    fs::rename(&new, path).map_err(open(&new))?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory).and_then(|dir| dir.sync_all()).map_err(open(directory))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
