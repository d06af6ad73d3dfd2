//! The file of the database: who has it, how it is made and how it is opened.
//!
//! ```text
//! meta.redb        the database
//! meta.redb.new    one that is being made; what a crash leaves of it is removed
//! lock             locked by the process that has the database; there since the directory had its first
//! ```
//!
//! Invariant: `meta.redb` has every table from the moment it has its name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use redb::{Database, StorageBackend};

use super::{DbError, Distrusting, rows};
use crate::table;

/// How much of the file is kept in memory: the records of a node, not of a warehouse.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Whether the directory of `path` never had a database.
pub(super) fn is_first(path: &Path) -> Result<bool, DbError> {
    let lock = path.with_file_name("lock");
    lock.try_exists().map(|there| !there).map_err(|error| failed(&lock, error))
}

/// Takes the right to the database at `path` for this process, until the file drops.
pub(super) fn lock(path: &Path) -> Result<File, DbError> {
    let lock = path.with_file_name("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&lock);
    let file = file.map_err(|error| failed(&lock, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DbError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(&lock, error)),
    }
}

/// Opens the database at `path` again. One that is missing or empty by now is lost, and never made here.
pub(super) fn open_again(path: &Path) -> Result<Database, DbError> {
    let length = fs::metadata(path).map_err(|error| failed(path, error))?.len();
    if length == 0 {
        return Err(DbError::Damaged { path: path.to_owned(), why: "it is empty".to_owned() });
    }
    open_whole(path)
}

/// Opens the database at `path`, which is made where it is missing or empty.
pub(super) fn open_whole(path: &Path) -> Result<Database, DbError> {
    let file = Distrusting::open(path).map_err(|error| DbError::from_redb(path, error.into()))?;
    open_storage(path, file)
}

/// Opens what is in `storage`; `path` names it in errors.
pub(super) fn open_storage(path: &Path, storage: impl StorageBackend) -> Result<Database, DbError> {
    let wrong = |error: redb::Error| DbError::from_redb(path, error);
    let named = path.to_owned();
    let database = redb::Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_repair_callback(move |session| {
            // redb asks a first time before it compares anything, and later only if the newest state does not hold.
            if (0.2..0.5).contains(&session.progress()) {
                tracing::warn!(path = %named.display(), "the last transaction is not whole; the state before it is used");
            }
        })
        .create_with_backend(storage)
        .map_err(|error| wrong(error.into()))?;
    let tx = database.begin_write().map_err(|error| wrong(error.into()))?;
    for table in table::ALL {
        tx.open_table(rows::definition(table)).map_err(|error| wrong(error.into()))?;
    }
    tx.commit().map_err(|error| wrong(error.into()))?;
    Ok(database)
}

/// The failure of a call on `path`.
pub(super) fn failed(path: &Path, error: io::Error) -> DbError {
    DbError::from_redb(path, redb::Error::Io(error))
}
