//! The file of the database: who has it, how it is made and how it is opened.
//!
//! ```text
//! meta.redb        the database
//! meta.redb.new    one that is being made; what a crash leaves of it is removed
//! lock             locked by the process that has the database
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

/// Opens the database at `path`, making it if it is missing. The caller has the lock.
pub(super) fn open(path: &Path) -> Result<Database, DbError> {
    if !path.try_exists().map_err(|error| failed(path, error))? {
        make(path)?;
    }
    open_whole(path)
}

/// Makes an empty database beside `path`, and gives it its name once it is whole.
fn make(path: &Path) -> Result<(), DbError> {
    let new = path.with_extension("redb.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&new, error)),
        _ => {}
    }
    drop(open_whole(&new)?);
    fs::rename(&new, path).map_err(|error| failed(&new, error))?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| failed(dir, error))
}

fn open_whole(path: &Path) -> Result<Database, DbError> {
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

fn failed(path: &Path, error: io::Error) -> DbError {
    DbError::from_redb(path, redb::Error::Io(error))
}
