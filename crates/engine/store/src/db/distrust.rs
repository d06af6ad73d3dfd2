//! The database's file, opened as if the last daemon had crashed.
//!
//! After a clean end redb believes every page it reads, and panics on one that the disk has damaged. After a crash it
//! compares every page with its checksum first and falls back to the state before the last transaction. A node's
//! database is small, so the comparison is made at every start: the header is shown to redb with the flag of a crash.
//!
//! Byte 9 of the file holds redb's flags: bit 1 says that recovery is needed, bit 2 that the last commit went through two
//! phases and needs no comparison.

use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

const FLAGS: u64 = 9;
const RECOVERY_REQUIRED: u8 = 2;
const TWO_PHASE_COMMIT: u8 = 4;

/// The file, or in tests what stands for it.
#[derive(Debug)]
pub(super) struct Distrusting<B> {
    storage: B,
    /// Whether redb has written flags of its own, which are then to be believed.
    is_written: AtomicBool,
}

impl<B> Distrusting<B> {
    /// Wraps `storage`, which nobody has read yet.
    pub(super) fn new(storage: B) -> Self {
        Self { storage, is_written: AtomicBool::new(false) }
    }
}

impl Distrusting<FileBackend> {
    /// Opens the file at `path`, making it if it is missing.
    pub(super) fn open(path: &Path) -> Result<Self, DatabaseError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self::new(FileBackend::new(file)?))
    }
}

/// Where the flags are in a piece of `length` bytes at `offset`, if they are in it.
fn flags_at(offset: u64, length: usize) -> Option<usize> {
    let at = usize::try_from(FLAGS.checked_sub(offset)?).ok()?;
    (at < length).then_some(at)
}

impl<B: StorageBackend> StorageBackend for Distrusting<B> {
    fn len(&self) -> io::Result<u64> {
        self.storage.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.storage.read(offset, out)?;
        if let Some(at) = flags_at(offset, out.len())
            && !self.is_written.load(Ordering::Acquire)
        {
            out[at] = (out[at] | RECOVERY_REQUIRED) & !TWO_PHASE_COMMIT;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.storage.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.storage.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.storage.write(offset, data)?;
        if flags_at(offset, data.len()).is_some() {
            self.is_written.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.storage.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.storage.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.storage.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.storage.query_lock_range(start, end)
    }
}
