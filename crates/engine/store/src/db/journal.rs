//! The second copy of the records, from which a damaged or lost database is made again.
//!
//! ```text
//! meta.copy           every row as of the transaction in its first frame; its last frame says that it is whole
//! meta.copy.new       one that is being made
//! meta.journal.<n>    the transactions behind n, in order; renewed with the copy once it has grown
//! ```
//!
//! A transaction is appended to the journal behind its commit, before it is acknowledged, without a flush of its own: a
//! crash of the daemon loses nothing of it, a power cut the last seconds at worst. The copy is flushed, off the writers'
//! way.
//!
//! Invariant: frames have the numbers of their transactions without a gap, so that a copy and journals of different
//! times are never joined.
//! Invariant: a journal is removed only when a whole, flushed copy contains it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use redb::ReadTransaction;

use super::frame::{Chain, Change, Frame};
use super::{DbError, ReadTx, Rows};
use crate::table;

const COPY: &str = "meta.copy";
const NEW: &str = "meta.copy.new";
const JOURNAL: &str = "meta.journal.";
/// Length of the journals beyond which the copy is renewed, in bytes; or the copy's own length, if that is more.
const MAX_JOURNAL: u64 = 4 << 20;
/// Number of transactions after which a journal that could not be written is begun again.
const RETRY_AFTER: u64 = 256;

/// The journal that a database is written to beside its own file.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    /// The open journal; none after a failure.
    open: Option<Open>,
    /// Transactions that no journal has since the last failure.
    missed: u64,
    /// Length beyond which the copy is renewed.
    limit: u64,
    /// The thread that writes a copy.
    copying: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Open {
    file: File,
    chain: Chain,
    length: u64,
}

impl Open {
    fn write(&mut self, transactions: &[Frame]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for transaction in transactions {
            bytes.extend(self.chain.encode(transaction)?);
        }
        self.file.write_all(&bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

/// What the second copy has, as far as it can be read.
#[derive(Debug)]
pub(super) struct Found {
    /// Number of its last transaction.
    pub(super) sequence: u64,
    copy_length: u64,
    /// Where the last journal goes on.
    last: Option<(PathBuf, Chain, u64)>,
}

impl Journal {
    /// Goes on with the files in `directory` when they end with the database's last transaction, else begins anew from
    /// `state`, which is the database's.
    pub(super) fn open(directory: &Path, sequence: u64, state: ReadTransaction) -> Self {
        let mut journal = Self {
            directory: directory.to_owned(),
            open: None,
            missed: 0,
            limit: MAX_JOURNAL,
            copying: None,
        };
        match replay(directory, &mut |_| Ok(())) {
            Ok(Some(found)) if found.sequence == sequence => {
                journal.limit = MAX_JOURNAL.max(found.copy_length);
                if let Some((path, chain, length)) = found.last {
                    journal.resume(&path, chain, length);
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot read the second copy of the records"),
        }
        if journal.open.is_none() {
            journal.begin_anew(sequence, state);
        }
        journal
    }

    fn resume(&mut self, path: &Path, chain: Chain, length: u64) {
        let opened = OpenOptions::new().append(true).open(path).and_then(|file| {
            file.set_len(length)?;
            Ok(Open { file, chain, length })
        });
        match opened {
            Ok(open) => self.open = Some(open),
            Err(error) => tracing::warn!(path = %path.display(), %error, "cannot go on with the journal"),
        }
    }

    /// Removes every file of the second copy and makes it again from `state`, before this returns.
    pub(super) fn begin_anew(&mut self, sequence: u64, state: ReadTransaction) {
        self.settle();
        // What is there belongs to another history of the same numbers.
        let begun = remove(&self.directory, |_| true)
            .and_then(|()| write_copy(&self.directory, sequence, &state))
            .and_then(|length| {
                self.limit = MAX_JOURNAL.max(length);
                begin_journal(&self.directory, sequence)
            });
        self.begun(begun);
    }

    fn begun(&mut self, begun: io::Result<Open>) {
        self.missed = 0;
        self.open = match begun {
            Ok(open) => Some(open),
            Err(error) => {
                tracing::warn!(%error, "cannot write the second copy of the records");
                None
            }
        };
    }

    /// Appends transactions, each with its number. A failure ends the journal, and is no failure of theirs: they are
    /// durable in the database.
    pub(super) fn append(&mut self, transactions: &[Frame]) {
        let Some(open) = &mut self.open else {
            self.missed += transactions.len() as u64;
            return;
        };
        match open.write(transactions) {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot write the journal of the records; it is begun again later");
                self.open = None;
            }
        }
    }

    /// Whether [`Journal::renew`] is due.
    pub(super) fn is_due(&self) -> bool {
        match &self.open {
            Some(open) => {
                open.length > self.limit && self.copying.as_ref().is_none_or(JoinHandle::is_finished)
            }
            None => self.missed >= RETRY_AFTER,
        }
    }

    /// Begins a new journal behind the transaction `sequence`, and writes the copy that it follows, which is `state`, in
    /// the background.
    pub(super) fn renew(&mut self, sequence: u64, state: ReadTransaction) {
        self.settle();
        if self.open.is_none() {
            return self.begin_anew(sequence, state);
        }
        let begun = begin_journal(&self.directory, sequence);
        self.begun(begun);
        let directory = self.directory.clone();
        let copy = move || {
            let written = write_copy(&directory, sequence, &state);
            drop(state);
            let removed = written.and_then(|_| remove(&directory, |start| start < sequence));
            if let Err(error) = removed {
                tracing::warn!(%error, "cannot renew the second copy of the records; the older one stays");
            }
        };
        match std::thread::Builder::new().name("record-copy".to_owned()).spawn(copy) {
            Ok(thread) => self.copying = Some(thread),
            Err(error) => tracing::warn!(%error, "cannot start the thread that copies the records"),
        }
    }

    /// Waits for a copy that is being written: it reads the database.
    pub(super) fn settle(&mut self) {
        if self.copying.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that copies the records panicked");
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.settle();
    }
}

/// Calls `visit` with every frame of the second copy in `directory`, oldest first, as far as they are whole and follow
/// each other. `None` when there is no whole copy; `visit` may have been called then.
pub(super) fn replay(
    directory: &Path,
    visit: &mut dyn FnMut(&Frame) -> Result<(), DbError>,
) -> Result<Option<Found>, DbError> {
    let copy = directory.join(COPY);
    let Some((sequence, copy_length)) = replay_copy(&copy, visit)? else { return Ok(None) };
    let mut found = Found { sequence, copy_length, last: None };
    for (start, path) in journals(directory).map_err(|error| failed(directory, error))? {
        if start > found.sequence {
            break;
        }
        let (sequence, chain, length) = replay_journal(&path, found.sequence, visit)?;
        found.sequence = sequence;
        found.last = Some((path, chain, length));
    }
    Ok(Some(found))
}

/// The number and the length of a whole copy.
fn replay_copy(
    path: &Path,
    visit: &mut dyn FnMut(&Frame) -> Result<(), DbError>,
) -> Result<Option<(u64, u64)>, DbError> {
    let Some((mut file, length)) = open(path)? else { return Ok(None) };
    let (mut chain, mut left) = (Chain::default(), length);
    while let Some(frame) = chain.decode(&mut file, &mut left).map_err(|error| failed(path, error))? {
        visit(&frame)?;
        if frame.is_last {
            return Ok(Some((frame.sequence, length)));
        }
    }
    Ok(None)
}

/// Visits what follows the transaction `sequence`; the last number, and where the journal goes on.
fn replay_journal(
    path: &Path,
    mut sequence: u64,
    visit: &mut dyn FnMut(&Frame) -> Result<(), DbError>,
) -> Result<(u64, Chain, u64), DbError> {
    let Some((mut file, length)) = open(path)? else { return Ok((sequence, Chain::default(), 0)) };
    let (mut chain, mut left) = (Chain::default(), length);
    let mut good = (chain, 0);
    while let Some(frame) = chain.decode(&mut file, &mut left).map_err(|error| failed(path, error))? {
        if frame.sequence == sequence + 1 {
            visit(&frame)?;
            sequence = frame.sequence;
        } else if frame.sequence > sequence {
            break;
        }
        good = (chain, length - left);
    }
    Ok((sequence, good.0, good.1))
}

fn open(path: &Path) -> Result<Option<(BufReader<File>, u64)>, DbError> {
    match File::open(path).and_then(|file| Ok((file.metadata()?.len(), file))) {
        Ok((length, file)) => Ok(Some((BufReader::new(file), length))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, error)),
    }
}

/// The journals by the number that they follow.
fn journals(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let start = name.to_str().and_then(|name| name.strip_prefix(JOURNAL)?.parse().ok());
        found.extend(start.map(|start: u64| (start, entry.path())));
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes the journals that `which` chooses by the number that they follow; the copy too when it chooses every number.
fn remove(directory: &Path, which: impl Fn(u64) -> bool) -> io::Result<()> {
    if which(u64::MAX) {
        remove_file(&directory.join(COPY))?;
    }
    journals(directory)?
        .into_iter()
        .filter(|(start, _)| which(*start))
        .try_for_each(|(_, path)| remove_file(&path))
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn begin_journal(directory: &Path, sequence: u64) -> io::Result<Open> {
    let path = directory.join(format!("{JOURNAL}{sequence}"));
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    file.set_len(0)?;
    Ok(Open { file, chain: Chain::default(), length: 0 })
}

/// Writes every row of `state` as the copy, durably; its length.
fn write_copy(directory: &Path, sequence: u64, state: &ReadTransaction) -> io::Result<u64> {
    let (new, path) = (directory.join(NEW), directory.join(COPY));
    let mut file = BufWriter::new(File::create(&new)?);
    let (mut chain, mut length) = (Chain::default(), 0);
    let mut frame = Frame { sequence, ..Frame::default() };
    let mut flush = |frame: &mut Frame| {
        let bytes = chain.encode(frame)?;
        frame.changes.clear();
        length += bytes.len() as u64;
        file.write_all(&bytes)
    };
    let mut failure = None;
    for table in table::ALL.into_iter().filter(|table| *table != table::JOURNAL) {
        let scanned = ReadTx::new(&path, state).scan(table, b"", &mut |key, row| {
            frame.changes.push(Change::new(table, key, Some(row)));
            if frame.is_full() {
                failure = flush(&mut frame).err();
            }
            Ok(failure.is_none())
        });
        scanned.map_err(io::Error::other)?;
        if let Some(error) = failure {
            return Err(error);
        }
    }
    frame.is_last = true;
    flush(&mut frame)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(directory)?.sync_all()?;
    Ok(length)
}

fn failed(path: &Path, error: io::Error) -> DbError {
    DbError::from_redb(path, redb::Error::Io(error))
}
