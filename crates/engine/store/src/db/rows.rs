//! Rows of a transaction, the same to read from both kinds.

use std::cell::{Cell, RefCell};
use std::path::Path;

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::DbError;
use super::frame::Change;
use crate::table::Table;

type Bytes = &'static [u8];

/// redb's name for `table`.
pub(super) fn definition(table: Table) -> TableDefinition<'static, Bytes, Bytes> {
    TableDefinition::new(table.0)
}

/// What [`Rows::scan`] calls; `false` ends the scan.
pub(crate) type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> Result<bool, DbError> + 'v;

/// The rows that a transaction sees.
pub(crate) trait Rows {
    /// The row `key`, if there is one.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, DbError>;

    /// Calls `visit` with every row whose key begins with `prefix`, in order.
    fn scan(&self, table: Table, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), DbError>;

    /// Whether there is the row `key`.
    fn has(&self, table: Table, key: &[u8]) -> Result<bool, DbError> {
        Ok(self.get(table, key)?.is_some())
    }

    /// Whether any row's key begins with `prefix`.
    fn has_any(&self, table: Table, prefix: &[u8]) -> Result<bool, DbError> {
        let mut found = false;
        self.scan(table, prefix, &mut |_, _| {
            found = true;
            Ok(false)
        })?;
        Ok(found)
    }

    /// The keys that begin with `prefix`.
    fn keys(&self, table: Table, prefix: &[u8]) -> Result<Vec<Vec<u8>>, DbError> {
        let mut keys = Vec::new();
        self.scan(table, prefix, &mut |key, _| {
            keys.push(key.to_owned());
            Ok(true)
        })?;
        Ok(keys)
    }
}

/// One unchanging state of the database.
pub(crate) struct ReadTx<'t> {
    path: &'t Path,
    tx: &'t ReadTransaction,
}

impl<'t> ReadTx<'t> {
    pub(super) fn new(path: &'t Path, tx: &'t ReadTransaction) -> Self {
        Self { path, tx }
    }

    fn on<T>(
        &self,
        table: Table,
        work: impl FnOnce(&redb::ReadOnlyTable<Bytes, Bytes>) -> Result<T, Failure>,
    ) -> Result<T, DbError> {
        let open = self.tx.open_table(definition(table)).map_err(|error| Failure::Storage(error.into()));
        open.and_then(|table| work(&table)).map_err(|failure| failure.at(self.path))
    }
}

impl Rows for ReadTx<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        self.on(table, |table| get(table, key))
    }

    fn scan(&self, table: Table, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), DbError> {
        self.on(table, |table| scan(table, prefix, visit))
    }
}

/// The state that a transaction makes.
pub(crate) struct WriteTx<'t> {
    path: &'t Path,
    tx: &'t WriteTransaction,
    changes: RefCell<Vec<Change>>,
    broken: Cell<bool>,
}

impl<'t> WriteTx<'t> {
    pub(super) fn new(path: &'t Path, tx: &'t WriteTransaction) -> Self {
        Self { path, tx, changes: RefCell::default(), broken: Cell::new(false) }
    }

    /// Whether anything was written.
    pub(super) fn has_changed(&self) -> bool {
        !self.changes.borrow().is_empty()
    }

    /// What was written, in order; nothing of it a second time.
    pub(super) fn take_changes(&self) -> Vec<Change> {
        self.changes.take()
    }

    /// Whether the storage failed, so that redb can no longer be trusted with it.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Writes the row `key`.
    pub(crate) fn put(&self, table: Table, key: &[u8], row: &[u8]) -> Result<(), DbError> {
        self.changes.borrow_mut().push(Change::new(table, key, Some(row)));
        self.on(table, |table| {
            table.insert(key, row).map(drop).map_err(|error| Failure::Storage(error.into()))
        })
    }

    /// Removes the row `key`; whether there was one.
    pub(crate) fn remove(&self, table: Table, key: &[u8]) -> Result<bool, DbError> {
        let removed = self.on(table, |table| {
            table.remove(key).map(|row| row.is_some()).map_err(|error| Failure::Storage(error.into()))
        })?;
        if removed {
            self.changes.borrow_mut().push(Change::new(table, key, None));
        }
        Ok(removed)
    }

    /// Removes every row whose key begins with `prefix`.
    pub(crate) fn remove_all(&self, table: Table, prefix: &[u8]) -> Result<(), DbError> {
        for key in self.keys(table, prefix)? {
            self.remove(table, &key)?;
        }
        Ok(())
    }

    fn on<T>(
        &self,
        table: Table,
        work: impl FnOnce(&mut redb::Table<'_, Bytes, Bytes>) -> Result<T, Failure>,
    ) -> Result<T, DbError> {
        let open = self.tx.open_table(definition(table)).map_err(|error| Failure::Storage(error.into()));
        open.and_then(|mut table| work(&mut table)).map_err(|failure| {
            self.broken.set(self.broken.get() || matches!(failure, Failure::Storage(_)));
            failure.at(self.path)
        })
    }
}

impl Rows for WriteTx<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        self.on(table, |table| get(table, key))
    }

    fn scan(&self, table: Table, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), DbError> {
        self.on(table, |table| scan(table, prefix, visit))
    }
}

/// Who failed: redb, or the caller's visitor.
enum Failure {
    Storage(redb::Error),
    Visitor(DbError),
}

impl Failure {
    fn at(self, path: &Path) -> DbError {
        match self {
            Self::Storage(error) => DbError::from_redb(path, error),
            Self::Visitor(error) => error,
        }
    }
}

fn get(table: &impl ReadableTable<Bytes, Bytes>, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
    let row = table.get(key).map_err(|error| Failure::Storage(error.into()))?;
    Ok(row.map(|row| row.value().to_owned()))
}

fn scan(
    table: &impl ReadableTable<Bytes, Bytes>,
    prefix: &[u8],
    visit: &mut Visit<'_>,
) -> Result<(), Failure> {
    let rows = table.range(prefix..).map_err(|error| Failure::Storage(error.into()))?;
    for row in rows {
        let (key, row) = row.map_err(|error| Failure::Storage(error.into()))?;
        if !key.value().starts_with(prefix) || !visit(key.value(), row.value()).map_err(Failure::Visitor)? {
            break;
        }
    }
    Ok(())
}
