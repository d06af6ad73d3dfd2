//! One daemon a root directory.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use spec::{HasKind, Kind};

/// Why the directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error("another daemon{} uses {}: it holds {}", owner(pid), dir.display(), path.display())]
    Held {
        /// The directory.
        dir: PathBuf,
        /// The lock.
        path: PathBuf,
        /// Its process, as it wrote.
        pid: String,
    },
    /// The lock cannot be made.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn owner(pid: &str) -> String {
    if pid.is_empty() { String::new() } else { format!(" (pid {pid})") }
}

impl HasKind for LockError {
    fn kind(&self) -> Kind {
        match self {
            Self::Held { .. } => Kind::FailedPrecondition,
            Self::Lock { source, .. } => Kind::from_errno(source.raw_os_error().unwrap_or(0)),
        }
    }
}

/// A held lock; the kernel gives it back when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the directory `dir` for this process.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join("containerd.lock");
        let failed = |source| LockError::Lock { path: path.clone(), source };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The text is for people; the lock itself is what counts.
                let _ = Read::by_ref(&mut file).take(16).read_to_string(&mut pid);
                return Err(LockError::Held { dir: dir.into(), path, pid: pid.trim().into() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_daemon_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let error = Lock::take(dir.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        let expected = format!("another daemon (pid {}) uses {}", std::process::id(), dir.path().display());
        assert!(error.to_string().starts_with(&expected), "{error}");
        drop(first);
        Lock::take(dir.path()).unwrap();
    }
}
