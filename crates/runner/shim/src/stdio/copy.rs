//! One direction of one standard file: bytes move from a source to a sink whenever both are ready.
//!
//! Pipe to pipe the kernel moves them (`splice(2)`); terminals and files go through a buffer the loop lends.
//!
//! Invariant: no call here blocks, and none moves more than a bounded amount, so one chatty container cannot starve
//! the others of the loop.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};

/// The most that one call moves through `splice(2)`.
const SPLICE_MAX: usize = 64 << 10;
/// How many rounds one call makes before it lets others have a turn.
const ROUNDS: usize = 16;

/// What a copy waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Bytes, or their end.
    Source,
    /// Room.
    Sink,
}

/// Where a call has left a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It goes on when this is ready.
    Wait(Waiting),
    /// The source is at its end or the sink is gone; nothing more will move.
    Finished,
}

/// A copy under way.
#[derive(Debug)]
pub struct Copy {
    source: OwnedFd,
    sink: OwnedFd,
    splices: bool,
    pending: Vec<u8>,
    waiting: Waiting,
    draining: bool,
}

impl Copy {
    /// From `source` to `sink`; both must be non-blocking, or a regular file.
    pub fn new(source: OwnedFd, sink: OwnedFd) -> Self {
        let splices = is_fifo(source.as_fd()) && is_fifo(sink.as_fd());
        Self { source, sink, splices, pending: Vec::new(), waiting: Waiting::Source, draining: false }
    }

    /// What to wait for now.
    pub fn waiting(&self) -> Waiting {
        self.waiting
    }

    /// The descriptor to watch for it.
    pub fn watched(&self) -> BorrowedFd<'_> {
        self.end(self.waiting)
    }

    /// One of the two descriptors.
    pub fn end(&self, end: Waiting) -> BorrowedFd<'_> {
        match end {
            Waiting::Source => self.source.as_fd(),
            Waiting::Sink => self.sink.as_fd(),
        }
    }

    /// Makes "nothing there right now" the end: the writer is gone, though its terminal may stay open.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Moves what can be moved.
    pub fn advance(&mut self, buffer: &mut [u8]) -> Progress {
        let progress = if self.splices { self.splice() } else { self.buffered(buffer) };
        if let Progress::Wait(waiting) = progress {
            self.waiting = waiting;
        }
        progress
    }

    fn splice(&mut self) -> Progress {
        for _ in 0..ROUNDS {
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            match splice(&self.source, None, &self.sink, None, SPLICE_MAX, flags) {
                Ok(0) => return Progress::Finished,
                Ok(_) | Err(Errno::INTR) => {}
                // Either end may be the reason. The one that was waited for has just been ready, so it is the other.
                Err(Errno::AGAIN) => return self.would_block(),
                Err(_) => return Progress::Finished,
            }
        }
        Progress::Wait(self.waiting)
    }

    /// Finds out which end of a splice was not ready.
    fn would_block(&self) -> Progress {
        let readable = match rustix::io::ioctl_fionread(&self.source) {
            Ok(count) => count > 0,
            Err(_) => return Progress::Finished,
        };
        match readable {
            true => Progress::Wait(Waiting::Sink),
            false if self.draining => Progress::Finished,
            false => Progress::Wait(Waiting::Source),
        }
    }

    fn buffered(&mut self, buffer: &mut [u8]) -> Progress {
        for _ in 0..ROUNDS {
            if !self.pending.is_empty() {
                match rustix::io::write(&self.sink, &self.pending) {
                    Ok(count) => {
                        self.pending.drain(..count);
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return Progress::Wait(Waiting::Sink),
                    Err(_) => return Progress::Finished,
                }
                continue;
            }
            // A sink that took everything leaves no buffer behind.
            self.pending = Vec::new();
            match rustix::io::read(&self.source, &mut *buffer) {
                Ok(0) => return Progress::Finished,
                Ok(count) => {
                    let written = match rustix::io::write(&self.sink, &buffer[..count]) {
                        Ok(written) => written,
                        Err(Errno::AGAIN | Errno::INTR) => 0,
                        Err(_) => return Progress::Finished,
                    };
                    self.pending.extend_from_slice(&buffer[written..count]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if self.draining => return Progress::Finished,
                Err(Errno::AGAIN) => return Progress::Wait(Waiting::Source),
                // A terminal whose last process has closed it says EIO, once everything is read.
                Err(_) => return Progress::Finished,
            }
        }
        Progress::Wait(if self.pending.is_empty() { Waiting::Source } else { Waiting::Sink })
    }
}

fn is_fifo(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap()
    }

    #[test]
    fn a_full_sink_is_waited_for_and_nothing_is_lost() {
        let (source, feed) = pipe();
        let (result, sink) = pipe();
        let mut copy = Copy::new(source, sink);
        let mut buffer = [0; 4096];
        let mut sent = 0_usize;
        let mut received = 0_usize;
        let mut saw_full = false;
        while sent < 1 << 20 {
            if let Ok(count) = rustix::io::write(&feed, &[7; 8192]) {
                sent += count;
            }
            if copy.advance(&mut buffer) == Progress::Wait(Waiting::Sink) {
                saw_full = true;
                while let Ok(count) = rustix::io::read(&result, &mut buffer) {
                    received += count;
                }
            }
        }
        drop(feed);
        while copy.advance(&mut buffer) != Progress::Finished {
            while let Ok(count) = rustix::io::read(&result, &mut buffer) {
                received += count;
            }
        }
        drop(copy);
        while let Ok(count) = rustix::io::read(&result, &mut buffer) {
            if count == 0 {
                break;
            }
            received += count;
        }
        assert!(saw_full);
        assert_eq!(received, sent);
    }

    #[test]
    fn a_file_is_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "a").unwrap();
        let (source, feed) = pipe();
        let file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        let mut copy = Copy::new(source, file.into());
        rustix::io::write(&feed, b"bc").unwrap();
        assert_eq!(copy.advance(&mut [0; 64]), Progress::Wait(Waiting::Source));
        drop(feed);
        assert_eq!(copy.advance(&mut [0; 64]), Progress::Finished);
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
    }

    #[test]
    fn draining_ends_when_nothing_is_left() {
        let (source, feed) = pipe();
        let (_result, sink) = pipe();
        let mut copy = Copy::new(source, sink);
        rustix::io::write(&feed, b"x").unwrap();
        copy.drain();
        assert_eq!(copy.advance(&mut [0; 64]), Progress::Finished);
    }
}
