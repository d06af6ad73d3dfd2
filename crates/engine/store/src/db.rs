//! The metadata database: one redb file, one writer at a time, group commit.
//!
//! A writer that sees others wait behind it commits to memory only and lets the last of them flush for all; each
//! returns when the flush that covers it has. One writer alone flushes at once.
//!
//! When the disk fails or is full, redb refuses everything until the file is opened again. [`Db`] opens it again by
//! itself, which also drops what was never flushed: exactly what its writers are told has failed.
//!
//! Every transaction has a number and goes to a second copy too ([`journal`]), from which a damaged or lost database is
//! made again ([`restore`]).
//!
//! Invariant: `write` returns success only for what is durable.
//! Invariant: a closure that fails, and one that changed nothing, leaves no trace.

mod distrust;
mod error;
mod file;
mod frame;
mod journal;
mod restore;
mod rows;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use redb::{Database, Durability, ReadableDatabase};
use spec::Error;

use distrust::Distrusting;
pub use error::DbError;
use frame::Frame;
use journal::Journal;
pub(crate) use restore::{Keep, Origin};
pub(crate) use rows::{ReadTx, Rows, WriteTx};

/// How many transactions one flush may cover.
const GROUP: u32 = 64;

/// How long a member of a group waits for the flush before it flushes itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// The open database.
#[derive(Debug)]
pub(crate) struct Db {
    _lock: File,
    path: PathBuf,
    origin: Origin,
    /// Dropped before the database, which a copy that is being written still reads.
    turn: Mutex<Turn>,
    /// Nothing after a failure, until somebody opens it again.
    database: RwLock<Option<Database>>,
    waiting: AtomicUsize,
}

/// The right to write.
#[derive(Debug, Default)]
struct Turn {
    group: Arc<Group>,
    members: u32,
    /// Number of the last transaction.
    sequence: u64,
    /// Transactions that are not flushed yet.
    unflushed: Vec<Frame>,
    /// The second copy; none before the first transaction, and after a failure of the database until the next one.
    journal: Option<Journal>,
}

/// Transactions that wait for the same flush.
#[derive(Debug, Default)]
struct Group {
    outcome: Mutex<Option<Result<(), DbError>>>,
    settled: Condvar,
}

impl Group {
    fn settle(&self, outcome: Result<(), DbError>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.settled.notify_all();
    }

    /// The outcome, unless it takes longer than [`PATIENCE`].
    fn wait(&self) -> Option<Result<(), DbError>> {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let (outcome, _) = self
            .settled
            .wait_timeout_while(outcome, PATIENCE, |outcome| outcome.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        outcome.clone()
    }
}

impl Db {
    /// Opens the database at `path`; makes it when it is missing or lost, which `keep` is told first.
    pub(crate) fn open(path: &Path, keep: &mut Keep<'_>) -> Result<Self, Error> {
        let is_first = file::is_first(path)?;
        let lock = file::lock(path)?;
        let (database, origin) = restore::open(path, is_first, keep)?;
        let db = Self::new(lock, path, database, origin);
        let mut turn = db.turn.lock().unwrap_or_else(PoisonError::into_inner);
        db.begin_journal(&mut turn)?;
        drop(turn);
        Ok(db)
    }

    fn new(lock: File, path: &Path, database: Database, origin: Origin) -> Self {
        Self {
            _lock: lock,
            path: path.to_owned(),
            origin,
            database: RwLock::new(Some(database)),
            turn: Mutex::default(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// How the database came to be.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Goes on with the second copy where the database is.
    fn begin_journal(&self, turn: &mut Turn) -> Result<(), DbError> {
        let database = self.opened()?;
        let open = database.as_ref().ok_or(DbError::Reopened)?;
        turn.sequence = restore::last_sequence(&self.path, open)?;
        let state = open.begin_read().map_err(|error| DbError::from_redb(&self.path, error.into()))?;
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        turn.journal = Some(Journal::open(directory, turn.sequence, state));
        Ok(())
    }

    /// Runs `work` on one unchanging state of the database.
    pub(crate) fn read<T, E: From<DbError>>(
        &self,
        work: impl FnOnce(&ReadTx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let database = self.opened()?;
        let open = database.as_ref().ok_or(DbError::Reopened)?;
        let tx = open.begin_read().map_err(|error| DbError::from_redb(&self.path, error.into()))?;
        work(&ReadTx::new(&self.path, &tx))
    }

    /// Runs `work` in a transaction of its own; durable on success.
    pub(crate) fn write<T>(&self, work: impl FnOnce(&WriteTx<'_>) -> Result<T, Error>) -> Result<T, Error> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::SeqCst);

        let result = self.transact(&mut turn, work);
        let waits_for = match &result {
            Ok((_, Flush::Later)) => Some(Arc::clone(&turn.group)),
            Ok((_, Flush::Done)) | Err(_) => None,
        };
        // Whoever leaves the turn with nobody behind settles what is open: nobody else would.
        if turn.members > 0 && self.waiting.load(Ordering::SeqCst) == 0 {
            self.flush(&mut turn);
        }
        drop(turn);
        if let Some(group) = waits_for {
            self.wait_for(&group)?;
        }
        result.map(|(value, _)| value)
    }

    fn wait_for(&self, group: &Arc<Group>) -> Result<(), DbError> {
        loop {
            if let Some(outcome) = group.wait() {
                return outcome;
            }
            let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            if Arc::ptr_eq(&turn.group, group) {
                self.flush(&mut turn);
            }
        }
    }

    /// One transaction, with the turn in hand.
    fn transact<T>(
        &self,
        turn: &mut Turn,
        work: impl FnOnce(&WriteTx<'_>) -> Result<T, Error>,
    ) -> Result<(T, Flush), Error> {
        if turn.journal.is_none() {
            self.begin_journal(turn)?;
        }
        let database = self.opened()?;
        let open = database.as_ref().ok_or(DbError::Reopened)?;
        let failed = |error: redb::Error| DbError::from_redb(&self.path, error);
        let sequence = turn.sequence + 1;
        let mut tx = match open.begin_write() {
            Ok(tx) => tx,
            Err(error) => {
                drop(database);
                return Err(self.fail(turn, failed(error.into())).into());
            }
        };
        let rows = WriteTx::new(&self.path, &tx);
        let result = work(&rows);
        let changed = rows.has_changed();
        let changes = rows.take_changes();
        let result = result.and_then(|value| {
            if changed {
                restore::put_sequence(&rows, sequence)?;
            }
            Ok(value)
        });
        let broken = rows.is_broken();
        let value = match result {
            Ok(value) if changed && !broken => value,
            result => {
                let aborted = tx.abort().map_err(|error| failed(error.into()));
                drop(database);
                if broken || aborted.is_err() {
                    let error = self.fail(turn, aborted.err().unwrap_or(DbError::Reopened));
                    // Whatever the closure made of the failure, nothing of it is durable.
                    return result.and_then(|_| Err(error.into()));
                }
                return result.map(|value| (value, Flush::Done));
            }
        };
        let later = turn.members < GROUP && self.waiting.load(Ordering::SeqCst) > 0;
        let durability = if later { Durability::None } else { Durability::Immediate };
        let committed = tx
            .set_durability(durability)
            .map_err(|error| failed(error.into()))
            .and_then(|()| tx.commit().map_err(|error| failed(error.into())));
        drop(database);
        match committed {
            Ok(()) => {
                turn.sequence = sequence;
                turn.unflushed.push(Frame { sequence, changes, is_last: false });
                if later {
                    turn.members += 1;
                    return Ok((value, Flush::Later));
                }
                self.flushed(turn);
                Ok((value, Flush::Done))
            }
            Err(error) => Err(self.fail(turn, error).into()),
        }
    }

    /// Makes what is committed to memory durable, and tells who waits for it.
    fn flush(&self, turn: &mut Turn) {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let outcome = database.as_ref().ok_or(DbError::Reopened).and_then(|open| {
            let tx = open.begin_write().map_err(|error| DbError::from_redb(&self.path, error.into()))?;
            tx.commit().map_err(|error| DbError::from_redb(&self.path, error.into()))
        });
        drop(database);
        match outcome {
            Ok(()) => self.flushed(turn),
            Err(error) => {
                self.fail(turn, error);
            }
        }
    }

    /// Everything that is committed is durable: it goes to the second copy, and who waits for it is told.
    fn flushed(&self, turn: &mut Turn) {
        let unflushed = std::mem::take(&mut turn.unflushed);
        let sequence = turn.sequence;
        if let Some(journal) = &mut turn.journal {
            journal.append(&unflushed);
            if journal.is_due() {
                let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
                match database.as_ref().map(ReadableDatabase::begin_read) {
                    Some(Ok(state)) => journal.renew(sequence, state),
                    Some(Err(error)) => tracing::warn!(%error, "cannot copy the records"),
                    None => {}
                }
            }
        }
        Self::settle(turn, Ok(()));
    }

    fn settle(turn: &mut Turn, outcome: Result<(), DbError>) {
        if turn.members > 0 {
            std::mem::take(&mut turn.group).settle(outcome);
            turn.members = 0;
        }
    }

    /// The storage failed with `error`: everybody who waits for a flush is told, and the file is opened again.
    fn fail(&self, turn: &mut Turn, error: DbError) -> DbError {
        // Behind this failure, the state in memory is redb's no longer; only the file's counts. Whether it has the last
        // transactions is known when it is open again; a copy that is being written keeps it from being closed.
        turn.unflushed.clear();
        drop(turn.journal.take());
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
        Self::settle(turn, Err(error.clone()));
        if let Err(reopening) = self.reopen() {
            tracing::error!(%error, %reopening, "the metadata database cannot be opened again yet");
        }
        error
    }

    /// The database, opened again if it had failed.
    fn opened(&self) -> Result<RwLockReadGuard<'_, Option<Database>>, DbError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        if database.is_some() {
            return Ok(database);
        }
        drop(database);
        self.reopen()?;
        Ok(self.database.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn reopen(&self) -> Result<(), DbError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            *database = Some(file::open_again(&self.path)?);
        }
        Ok(())
    }
}

/// When a transaction becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    Done,
    Later,
}

#[cfg(test)]
mod power_tests;
#[cfg(test)]
mod tests;
