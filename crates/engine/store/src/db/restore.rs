//! How a database comes to be: opened, made empty, or made again from its second copy.
//!
//! ```text
//! meta.redb            opens, and has every transaction of the copy    it is used
//!                      opens with fewer, is damaged, empty, missing    it is made again from the copy
//!                      empty or missing, and there is no copy          an empty one is made
//!                      damaged, and there is no copy                   the daemon does not start
//! meta.redb.damaged    what could not be used, after it was made again
//! ```
//!
//! Invariant: a database that is made, empty or not, gets its name only after [`Keep`] has seen its rows: what the disk
//! has and the rows do not name is then known to be older than they are.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase};
use spec::Error;

use super::{DbError, ReadTx, Rows, WriteTx, file, journal};
use crate::record::{self, Sequence};
use crate::table;

/// Called with the rows of a database that is being made, and how it comes to be.
pub(crate) type Keep<'k> = dyn FnMut(&dyn Rows, &Origin) -> Result<(), Error> + 'k;

/// How the open database came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was there.
    Opened,
    /// It was made for a directory that never had one.
    New,
    /// It was made anew in place of one that is lost.
    Lost {
        /// What is wrong with the old one.
        why: String,
    },
    /// It was made again from its second copy.
    Restored {
        /// What is wrong with the old one.
        why: String,
        /// Number of its last transaction.
        sequence: u64,
    },
}

/// Opens the database at `path` or makes it. `is_first` tells that the directory never had one. The caller has the lock.
pub(super) fn open(path: &Path, is_first: bool, keep: &mut Keep<'_>) -> Result<(Database, Origin), Error> {
    let length = match fs::metadata(path) {
        Ok(found) => Some(found.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(file::failed(path, error).into()),
    };
    let why = match length {
        None => format!("metadata database {} is missing", path.display()),
        Some(0) => format!("metadata database {} is empty", path.display()),
        Some(_) => match open_behind_nothing(path) {
            Ok(Ok(database)) => return Ok((database, Origin::Opened)),
            Ok(Err(why)) => why,
            Err(error) if is_unreadable(&error) && copied(path)?.is_some() => error.to_string(),
            Err(error) => return Err(error.into()),
        },
    };
    match copied(path)? {
        Some(sequence) => {
            let origin = Origin::Restored { why, sequence };
            Ok((make(path, &origin, keep)?, origin))
        }
        None => {
            let origin = if is_first && length.is_none() { Origin::New } else { Origin::Lost { why } };
            Ok((make(path, &origin, keep)?, origin))
        }
    }
}

/// Opens the database; what is wrong with it when its second copy has transactions that it lacks.
fn open_behind_nothing(path: &Path) -> Result<Result<Database, String>, DbError> {
    let database = file::open_whole(path)?;
    let last = last_sequence(path, &database)?;
    Ok(match copied(path)? {
        Some(copied) if copied > last => {
            Err(format!("metadata database {} ends with transaction {last} of {copied}", path.display()))
        }
        _ => Ok(database),
    })
}

/// Whether the file itself is at fault.
fn is_unreadable(error: &DbError) -> bool {
    match error {
        DbError::Damaged { .. } => true,
        // A sector that cannot be read is as lost as one that reads wrong.
        DbError::Storage { is_input_output, .. } => *is_input_output,
        DbError::InUse { .. } | DbError::Reopened | DbError::Row { .. } => false,
    }
}

/// The number of the last transaction that the database has.
pub(super) fn last_sequence(path: &Path, database: &Database) -> Result<u64, DbError> {
    let tx = database.begin_read().map_err(|error| DbError::from_redb(path, error.into()))?;
    let row = record::get::<Sequence>(&ReadTx::new(path, &tx), table::JOURNAL, SEQUENCE)?;
    Ok(row.unwrap_or_default().last)
}

/// Writes the number of the transaction `tx`.
pub(super) fn put_sequence(tx: &WriteTx<'_>, sequence: u64) -> Result<(), DbError> {
    record::put(tx, table::JOURNAL, SEQUENCE, &Sequence { last: sequence })
}

const SEQUENCE: &[u8] = b"last";

/// The number of the last transaction of a whole second copy.
fn copied(path: &Path) -> Result<Option<u64>, DbError> {
    let found = journal::replay(directory(path), &mut |_| Ok(()))?;
    Ok(found.map(|found| found.sequence))
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Makes a database beside `path`, and gives it its name once it is whole.
fn make(path: &Path, origin: &Origin, keep: &mut Keep<'_>) -> Result<Database, Error> {
    let new = path.with_extension("redb.new");
    remove(&new)?;
    let database = file::open_whole(&new)?;
    let failed = |error: redb::Error| DbError::from_redb(&new, error);
    let tx = database.begin_write().map_err(|error| failed(error.into()))?;
    let rows = WriteTx::new(&new, &tx);
    if let Origin::Restored { sequence, .. } = origin {
        fill(path, &rows, *sequence)?;
    }
    keep(&rows, origin)?;
    tx.commit().map_err(|error| failed(error.into()))?;
    drop(database);
    set_aside(path)?;
    fs::rename(&new, path).map_err(|error| file::failed(&new, error))?;
    let directory = directory(path);
    File::open(directory).and_then(|dir| dir.sync_all()).map_err(|error| file::failed(directory, error))?;
    Ok(file::open_whole(path)?)
}

/// Writes every row of the second copy.
fn fill(path: &Path, rows: &WriteTx<'_>, sequence: u64) -> Result<(), DbError> {
    let found = journal::replay(directory(path), &mut |frame| {
        for change in &frame.changes {
            // A table of a later version; what this one knows is whole without it.
            let Some(table) = change.table() else { continue };
            match change.row() {
                Some(row) => rows.put(table, change.key(), row)?,
                None => drop(rows.remove(table, change.key())?),
            }
        }
        // The changes that a transaction gathers are for the journal, which has these.
        drop(rows.take_changes());
        Ok(())
    })?;
    match found {
        Some(found) if found.sequence == sequence => put_sequence(rows, sequence),
        _ => Err(DbError::Damaged {
            path: path.to_owned(),
            why: "its second copy changed while it was read".to_owned(),
        }),
    }
}

/// Keeps a file that could not be used under another name, in place of an earlier one.
fn set_aside(path: &Path) -> Result<(), DbError> {
    let aside: PathBuf = path.with_extension("redb.damaged");
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(file::failed(path, error)),
        Ok(found) if found.len() == 0 => remove(path),
        Ok(_) => fs::rename(path, &aside).map_err(|error| file::failed(path, error)),
    }
}

fn remove(path: &Path) -> Result<(), DbError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file::failed(path, error)),
        _ => Ok(()),
    }
}
