//! One output of a process on its way into its log.
//!
//! Invariant: as with any copy, no call blocks and none moves more than a bounded amount.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::log::{Lines, LogFile, Stream};

/// How many reads one call makes before it lets others have a turn.
const ROUNDS: usize = 16;
/// How much of a read becomes lines at once: output that is all newlines grows fortyfold.
const PIECE: usize = 2 << 10;
/// How many bytes of lines are gathered for one write.
const GATHERED: usize = 32 << 10;

/// Where a call has left an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Everything that is there has been read.
    Caught,
    /// There may be more right now.
    More,
    /// The output is at its end, and its last line is out.
    Finished,
}

/// An output that is logged.
#[derive(Debug)]
pub struct Logged {
    source: OwnedFd,
    lines: Lines,
    draining: bool,
}

impl Logged {
    /// The output that `source`, which must be non-blocking, carries; no line is longer than `max_line`.
    pub fn new(source: OwnedFd, stream: Stream, max_line: usize) -> Self {
        Self { source, lines: Lines::new(stream, max_line), draining: false }
    }

    /// Which output it is.
    pub fn stream(&self) -> Stream {
        self.lines.stream()
    }

    /// The descriptor to watch for more.
    pub fn source(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }

    /// Makes "nothing there right now" the end.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Moves what is there to `log`, and shows it to `listen` as the process wrote it.
    pub fn advance(
        &mut self,
        buffer: &mut [u8],
        log: &mut LogFile,
        mut listen: impl FnMut(&[u8]),
    ) -> Reading {
        for _ in 0..ROUNDS {
            match rustix::io::read(&self.source, &mut *buffer) {
                Ok(0) => return self.finish(log),
                Ok(count) => {
                    self.write(&buffer[..count], log);
                    listen(&buffer[..count]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if !self.draining => return Reading::Caught,
                // A terminal whose last process has closed it says EIO, once everything is read.
                Err(_) => return self.finish(log),
            }
        }
        Reading::More
    }

    fn write(&mut self, bytes: &[u8], log: &mut LogFile) {
        let stamp = log.stamp();
        let mut out = Vec::new();
        for piece in bytes.chunks(PIECE) {
            self.lines.push(piece, &stamp, &mut out);
            if out.len() >= GATHERED {
                log.write(&out);
                out.clear();
            }
        }
        if !out.is_empty() {
            log.write(&out);
        }
    }

    fn finish(&mut self, log: &mut LogFile) -> Reading {
        let mut out = Vec::new();
        self.lines.finish(&log.stamp(), &mut out);
        if !out.is_empty() {
            log.write(&out);
        }
        Reading::Finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    #[test]
    fn what_is_written_is_logged_and_heard_as_it_came() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogFile::open(&path).unwrap();
        let (source, feed) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let mut logged = Logged::new(source, Stream::Stdout, 16);
        let mut heard = Vec::new();
        let mut advance = |logged: &mut Logged, log: &mut LogFile| {
            logged.advance(&mut [0; 64], log, |bytes| heard.extend_from_slice(bytes))
        };
        rustix::io::write(&feed, b"one\r\ntw").unwrap();
        assert_eq!(advance(&mut logged, &mut log), Reading::Caught);
        rustix::io::write(&feed, b"o\nend").unwrap();
        drop(feed);
        assert_eq!(advance(&mut logged, &mut log), Reading::Finished);
        assert_eq!(heard, b"one\r\ntwo\nend");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(lines, ["stdout F one", "stdout F two", "stdout P end"]);
    }

    #[test]
    fn a_flood_of_newlines_stays_small_and_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogFile::open(&path).unwrap();
        let (source, feed) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let mut logged = Logged::new(source, Stream::Stdout, 16);
        rustix::io::write(&feed, &[b'\n'; 60_000]).unwrap();
        drop(feed);
        let mut buffer = [0; 16 << 10];
        assert_eq!(logged.advance(&mut buffer, &mut log, |_| {}), Reading::Finished);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 60_000);
        assert!(text.lines().all(|line| line.ends_with("Z stdout F ")));
    }
}
