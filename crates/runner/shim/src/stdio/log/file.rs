//! The file of a log.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::stamp::Stamp;
use crate::log;

/// The path of a log that nobody wants: the output can be attached to and is not kept.
const NOWHERE: &str = "/dev/null";

/// The longest path of a log.
pub const MAX_PATH: usize = 4096;

/// A log, open. Both outputs of a process write to it.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    /// `None` for [`NOWHERE`].
    file: Option<OwnedFd>,
    /// The latest stamp; the next one is not earlier, whatever the clock does.
    latest: SystemTime,
    /// Whether the file ends within a line that could not be written whole.
    torn: bool,
    /// Bytes that could not be written since the last that could.
    lost: u64,
}

impl LogFile {
    /// Opens the log at `path`, at its end if it is there.
    ///
    /// # Errors
    /// Its directory is missing, it is no regular file, or what open(2) says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (file, _) = open(path)?;
        Ok(Self { path: path.into(), file, latest: SystemTime::UNIX_EPOCH, torn: false, lost: 0 })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Goes on in the file that is at the log's path now, or a new one. Called between two writes, and so between two
    /// lines.
    ///
    /// # Errors
    /// As for [`LogFile::open`]; the log goes on in the old file.
    pub fn reopen(&mut self) -> io::Result<()> {
        let (file, length) = open(&self.path)?;
        self.file = file;
        self.torn = self.torn && length > 0;
        Ok(())
    }

    /// The stamp of what has been read just now.
    pub fn stamp(&mut self) -> Stamp {
        self.latest = SystemTime::now().max(self.latest);
        Stamp::new(self.latest)
    }

    /// Writes whole lines, or loses what cannot be written.
    pub fn write(&mut self, lines: &[u8]) {
        let Some(file) = &self.file else { return };
        // Ends the line that a full disk has cut short, so that only that one is unreadable.
        if self.torn {
            match write_all(file, b"\n") {
                Ok(()) => self.torn = false,
                Err((_, errno)) => return self.lose(lines.len(), errno),
            }
        }
        match write_all(file, lines) {
            Ok(()) if self.lost == 0 => {}
            Ok(()) => {
                log::warn(format_args!("log {}: lost {} bytes", self.path.display(), self.lost));
                self.lost = 0;
            }
            Err((written, errno)) => {
                self.torn = written > 0 && lines[written - 1] != b'\n';
                self.lose(lines.len() - written, errno);
            }
        }
    }

    fn lose(&mut self, count: usize, errno: Errno) {
        if self.lost == 0 {
            log::error(format_args!(
                "log {}: {errno}; output is lost until there is room",
                self.path.display()
            ));
        }
        self.lost = self.lost.saturating_add(count as u64);
    }
}

/// Opens a log to be appended to; its length too.
///
/// The directory is the kubelet's; the name in it is opened as a regular file and nothing else, since a link or a FIFO
/// there would lead the shim, which is root, anywhere.
fn open(path: &Path) -> io::Result<(Option<OwnedFd>, u64)> {
    if path == Path::new(NOWHERE) {
        return Ok((None, 0));
    }
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW;
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok((Some(file), u64::try_from(stat.st_size).unwrap_or(0)))
}

/// Writes all of `bytes`, or says how many could be written and why no more.
fn write_all(file: &OwnedFd, bytes: &[u8]) -> Result<(), (usize, Errno)> {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(file, &bytes[written..]) {
            Ok(0) => return Err((written, Errno::NOSPC)),
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err((written, errno)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn a_log_is_appended_to_and_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        fs::write(&path, "old\n").unwrap();
        let mut log = LogFile::open(&path).unwrap();
        log.write(b"one\n");
        fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        log.write(b"two\n");
        log.reopen().unwrap();
        log.write(b"three\n");
        assert_eq!(fs::read_to_string(dir.path().join("0.log.1")).unwrap(), "old\none\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    }

    #[test]
    fn only_a_regular_file_is_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        symlink("elsewhere", &link).unwrap();
        assert!(LogFile::open(&link).is_err());
        assert!(!dir.path().join("elsewhere").exists());
        assert!(LogFile::open(Path::new("/dev/zero")).is_err());
        assert!(LogFile::open(&dir.path().join("missing/0.log")).is_err());
        LogFile::open(Path::new(NOWHERE)).unwrap().write(b"gone\n");
    }

    #[test]
    fn a_rotation_that_fails_leaves_the_log_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let mut log = LogFile::open(&logs.join("0.log")).unwrap();
        fs::rename(&logs, dir.path().join("moved")).unwrap();
        assert!(log.reopen().is_err());
        log.write(b"still\n");
        assert_eq!(fs::read_to_string(dir.path().join("moved/0.log")).unwrap(), "still\n");
    }

    #[test]
    fn stamps_never_go_back() {
        let mut log = LogFile::open(Path::new(NOWHERE)).unwrap();
        log.latest = SystemTime::now() + std::time::Duration::from_secs(1000);
        assert_eq!(log.stamp(), Stamp::new(log.latest));
    }

    #[test]
    fn a_full_disk_costs_its_lines_and_tears_one() {
        testkit::needs!(root);
        let dir = tempfile::tempdir().unwrap();
        let options = ["size=4096".to_owned()];
        sys::mount::fstab::mount("tmpfs", "tmpfs".as_ref(), &options, dir.path()).unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogFile::open(&path).unwrap();
        let line = [[b'x'; 999].as_slice(), b"\n"].concat();
        for _ in 0..6 {
            log.write(&line);
        }
        assert!(log.torn && log.lost > 0);
        let full = fs::read(&path).unwrap();
        assert_eq!(full.len(), 4096);
        fs::File::options().write(true).open(&path).unwrap().set_len(1500).unwrap();
        log.write(b"after\n");
        assert!(!log.torn && log.lost == 0);
        let text = fs::read_to_string(&path).unwrap();
        sys::mount::unmount_all(dir.path()).unwrap();
        assert!(text.ends_with("x\nafter\n"), "{text}");
    }
}
