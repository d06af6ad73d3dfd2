//! The records' file as redb sees it: as after a crash, so that every page is compared with its checksum.
//!
//! After a clean end redb believes what it reads, and panics on a page that the disk has damaged meanwhile. After a
//! crash it compares first and answers with an error, or with the state before the last transaction. So the header is
//! shown with the flag of a crash until redb has written one of its own. Byte 9 of the file holds the flags: bit 1 asks
//! for recovery, bit 2 says that the last commit needs no comparison.

use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

const FLAGS: u64 = 9;
const RECOVER: u8 = 2;
const BELIEVE: u8 = 4;

/// The file of the records.
#[derive(Debug)]
pub(super) struct Distrusted {
    file: FileBackend,
    is_written: AtomicBool,
}

impl Distrusted {
    /// Opens the file at `path`, making it if it is missing.
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file: FileBackend::new(file)?, is_written: AtomicBool::new(false) })
    }
}

/// Where the flags are in `length` bytes at `offset`, if they are.
fn flags(offset: u64, length: usize) -> Option<usize> {
    FLAGS.checked_sub(offset).and_then(|at| usize::try_from(at).ok()).filter(|&at| at < length)
}

impl StorageBackend for Distrusted {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)?;
        match flags(offset, out.len()) {
            Some(at) if !self.is_written.load(Ordering::Acquire) => out[at] = (out[at] | RECOVER) & !BELIEVE,
            _ => {}
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)?;
        if flags(offset, data.len()).is_some() {
            self.is_written.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
