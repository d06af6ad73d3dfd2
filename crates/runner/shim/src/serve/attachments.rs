//! Listeners to what a process writes: FIFOs that get a copy of it.
//!
//! Invariant: a listener that does not read costs at most [`MAX_UNREAD`] and then is hung up on; it never holds up the
//! log, the container or another listener.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use super::{Poll, Token};
use crate::log;

/// The most that a listener may leave unread.
const MAX_UNREAD: usize = 1 << 20;

/// One FIFO.
#[derive(Debug)]
struct Attachment {
    fifo: OwnedFd,
    /// What it has not taken yet.
    unread: Vec<u8>,
    /// Whether nothing more will come.
    ending: bool,
}

/// What is left to do for a listener.
enum Flushed {
    /// It has taken everything.
    All,
    /// It has not.
    Some,
    /// It is gone.
    Gone,
}

impl Attachment {
    fn flush(&mut self) -> Flushed {
        let mut written = 0;
        let flushed = loop {
            if written == self.unread.len() {
                break Flushed::All;
            }
            match rustix::io::write(&self.fifo, &self.unread[written..]) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break Flushed::Some,
                Err(_) => break Flushed::Gone,
            }
        };
        self.unread.drain(..written);
        if self.unread.is_empty() {
            self.unread = Vec::new();
        }
        flushed
    }
}

/// Every listener of the process, by number.
#[derive(Debug, Default)]
pub struct Attachments {
    all: BTreeMap<u32, Attachment>,
}

impl Attachments {
    /// Whether nobody listens.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Takes `fifo`, which must be non-blocking, as listener `id`.
    ///
    /// # Errors
    /// It cannot be watched.
    pub fn add(&mut self, poll: &Poll, id: u32, fifo: OwnedFd) -> Result<(), spec::error::Error> {
        // That the reader has left is told in any case.
        poll.add(&fifo, Token::Attachment(id), EventFlags::empty())?;
        self.all.insert(id, Attachment { fifo, unread: Vec::new(), ending: false });
        Ok(())
    }

    /// Says `bytes` to listener `id`; `false` when it is gone.
    pub fn say(&mut self, poll: &Poll, id: u32, bytes: &[u8]) -> bool {
        let Some(attachment) = self.all.get_mut(&id) else { return false };
        if attachment.unread.len() + bytes.len() > MAX_UNREAD {
            log::warn(format_args!("a listener does not read what it attached to: detached"));
            self.all.remove(&id);
            return false;
        }
        let waits = !attachment.unread.is_empty();
        attachment.unread.extend_from_slice(bytes);
        if !waits {
            self.flush(poll, id, false);
        }
        self.all.contains_key(&id)
    }

    /// Lets listener `id` go once it has taken everything.
    pub fn end(&mut self, poll: &Poll, id: u32) {
        let Some(attachment) = self.all.get_mut(&id) else { return };
        attachment.ending = true;
        let waits = !attachment.unread.is_empty();
        self.flush(poll, id, waits);
    }

    /// Deals with an event of listener `id`.
    pub fn ready(&mut self, poll: &Poll, id: u32, flags: EventFlags) {
        if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
            self.all.remove(&id);
        } else {
            self.flush(poll, id, true);
        }
    }

    /// Writes what listener `id` takes; `waited` says whether its room was watched for.
    fn flush(&mut self, poll: &Poll, id: u32, waited: bool) {
        let Some(attachment) = self.all.get_mut(&id) else { return };
        let token = Token::Attachment(id);
        match attachment.flush() {
            Flushed::All if attachment.ending => drop(self.all.remove(&id)),
            Flushed::All if waited => poll.modify(&attachment.fifo, token, EventFlags::empty()),
            Flushed::Some if !waited => poll.modify(&attachment.fifo, token, EventFlags::OUT),
            Flushed::All | Flushed::Some => {}
            Flushed::Gone => drop(self.all.remove(&id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    fn listener(attachments: &mut Attachments, poll: &Poll, id: u32) -> OwnedFd {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        attachments.add(poll, id, write).unwrap();
        read
    }

    fn read_all(fd: &OwnedFd) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = rustix::io::read(fd, &mut buffer) {
            all.extend_from_slice(&buffer[..count]);
        }
        all
    }

    #[test]
    fn a_slow_listener_gets_everything_and_then_the_end() {
        let (poll, mut attachments) = (Poll::new().unwrap(), Attachments::default());
        let fifo = listener(&mut attachments, &poll, 1);
        let said: Vec<u8> = (0..300_000).map(|index| index as u8).collect();
        assert!(attachments.say(&poll, 1, &said[..200_000]));
        assert!(attachments.say(&poll, 1, &said[200_000..]));
        attachments.end(&poll, 1);
        let mut heard = Vec::new();
        while !attachments.is_empty() {
            heard.extend(read_all(&fifo));
            attachments.ready(&poll, 1, EventFlags::OUT);
        }
        heard.extend(read_all(&fifo));
        assert_eq!(heard, said);
        assert_eq!(rustix::io::read(&fifo, &mut [0_u8; 1]), Ok(0));
    }

    #[test]
    fn a_listener_that_never_reads_is_dropped_at_its_bound() {
        let (poll, mut attachments) = (Poll::new().unwrap(), Attachments::default());
        let _deaf = listener(&mut attachments, &poll, 1);
        let keen = listener(&mut attachments, &poll, 2);
        let piece = [0; 16 << 10];
        let mut rounds = 0;
        while attachments.say(&poll, 1, &piece) {
            assert!(attachments.say(&poll, 2, &piece));
            assert_eq!(read_all(&keen).len(), piece.len());
            rounds += 1;
        }
        assert!((64..=70).contains(&rounds), "{rounds}");
        assert!(attachments.say(&poll, 2, b"x"));
    }

    #[test]
    fn a_listener_that_leaves_is_forgotten() {
        let (poll, mut attachments) = (Poll::new().unwrap(), Attachments::default());
        drop(listener(&mut attachments, &poll, 1));
        let mut events = Vec::with_capacity(1);
        poll.wait(&mut events, None).unwrap();
        attachments.ready(&poll, 1, events[0].flags);
        assert!(attachments.is_empty());
        drop(listener(&mut attachments, &poll, 2));
        assert!(!attachments.say(&poll, 2, b"x"));
    }
}
