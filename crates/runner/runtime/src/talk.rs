//! What the two halves of a creation tell each other, over a socket that keeps message boundaries.
//!
//! ```text
//! init                                 parent
//!   Maps            (stage only) ->      writes the maps of the user namespace
//!   Sibling(pid) + pidfd         ->      takes over the process that a stage has made; the stage ends
//!              <- Go                     (when maps or a stage were needed)
//!   Hooks                        ->      runs prestart and createRuntime hooks
//!              <- Go
//!   Console + fd                 ->      keeps the terminal's master
//!   Ready                        ->      init waits at the gate (create), or is about to execute (exec)
//!   Failed                       ->      says why; nothing follows
//!   (end of file)                        init has executed its program, or died
//! ```
//!
//! Invariant: the socket is close-on-exec on both sides, so a program never sees it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use sys::calls::FAILED;
use sys::{Error, process, socket};

/// Longest message; longer texts are cut.
const LONGEST: usize = 8192;

/// First byte of [`Word::Sibling`]; the pid (4 bytes) follows, with the pidfd.
pub const SIBLING: u8 = b'p';
/// The message [`Word::Ready`].
pub const READY: &[u8] = b"r";

/// One message of init.
#[derive(Debug)]
pub enum Word {
    /// The user namespace is there and needs its maps.
    Maps,
    /// Init itself has this pid and pidfd.
    Sibling(i32, OwnedFd),
    /// The container's mounts are there; hooks may run.
    Hooks,
    /// The master of the terminal.
    Console(OwnedFd),
    /// Everything before the user's program is done.
    Ready,
    /// It failed: an errno (0 for none) and a complete text.
    Failed(i32, String),
}

/// One end.
#[derive(Debug)]
pub struct Talk {
    socket: OwnedFd,
}

impl Talk {
    /// Both ends: the parent's and init's.
    pub fn pair() -> Result<(Self, Self), Error> {
        let (ours, theirs) = socket::message_pair()?;
        Ok((Self { socket: ours }, Self { socket: theirs }))
    }

    /// Tells the parent.
    pub fn say(&self, word: &Word) -> Result<(), Error> {
        let socket = self.socket.as_fd();
        match word {
            Word::Maps => socket::send(socket, b"m", &[]),
            Word::Sibling(pid, pidfd) => {
                let bytes = [&[SIBLING], pid.to_ne_bytes().as_slice()].concat();
                socket::send(socket, &bytes, &[pidfd.as_fd()])
            }
            Word::Hooks => socket::send(socket, b"h", &[]),
            Word::Console(master) => socket::send(socket, b"c", &[master.as_fd()]),
            Word::Ready => socket::send(socket, READY, &[]),
            Word::Failed(errno, text) => {
                let mut bytes = [b"e", errno.to_ne_bytes().as_slice(), text.as_bytes()].concat();
                bytes.truncate(LONGEST);
                socket::send(socket, &bytes, &[])
            }
        }
    }

    /// Hears init, at most `within`; `None` when init has closed its end.
    pub fn hear(&self, within: Duration) -> Result<Option<Word>, Error> {
        if !process::readable(self.socket.as_fd(), within)? {
            return Err(Error::new(TIMED_OUT, "poll(init)"));
        }
        let mut buffer = [0; LONGEST];
        let (length, fds) = socket::receive(self.socket.as_fd(), &mut buffer)?;
        let Some((&tag, rest)) = buffer[..length].split_first() else { return Ok(None) };
        let number = || rest.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
        let word = match (tag, number(), fds.into_iter().next()) {
            (b'm', _, _) => Word::Maps,
            (SIBLING, Some(pid), Some(pidfd)) => Word::Sibling(pid, pidfd),
            (b'h', _, _) => Word::Hooks,
            (b'c', _, Some(master)) => Word::Console(master),
            (b'r', _, _) => Word::Ready,
            (b'e', Some(errno), _) => Word::Failed(errno, String::from_utf8_lossy(&rest[4..]).into_owned()),
            (FAILED, Some(errno), _) => {
                let call = String::from_utf8_lossy(&rest[4..]);
                Word::Failed(errno, format!("{call}: {}", sys::error::words(errno)))
            }
            _ => return Err(Error::new(BAD_MESSAGE, "recvmsg(init)")),
        };
        Ok(Some(word))
    }

    /// Lets init go on.
    pub fn go(&self) -> Result<(), Error> {
        socket::send(self.socket.as_fd(), b"g", &[])
    }

    /// Waits until the parent lets this process go on. The parent bounds it: a parent that is gone is an error here.
    pub fn wait_for_go(&self) -> Result<(), Error> {
        let mut buffer = [0; 1];
        match socket::receive(self.socket.as_fd(), &mut buffer)?.0 {
            0 => Err(Error::new(BROKEN_PIPE, "recvmsg(parent)")),
            _ => Ok(()),
        }
    }
}

impl AsFd for Talk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `ETIMEDOUT`.
pub const TIMED_OUT: i32 = 110;
/// `EBADMSG`.
const BAD_MESSAGE: i32 = 74;
/// `EPIPE`.
const BROKEN_PIPE: i32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_as_they_were_said() {
        let (parent, init) = Talk::pair().unwrap();
        init.say(&Word::Sibling(77, parent.as_fd().try_clone_to_owned().unwrap())).unwrap();
        socket::send(init.as_fd(), b"f\x02\0\0\0exec /x", &[]).unwrap();
        init.say(&Word::Failed(2, "x".repeat(LONGEST * 2))).unwrap();
        let hear = || parent.hear(Duration::from_secs(5)).unwrap();
        assert!(matches!(hear(), Some(Word::Sibling(77, _))));
        let text = "exec /x: no such file or directory";
        assert!(matches!(hear(), Some(Word::Failed(2, found)) if found == text));
        assert!(matches!(hear(), Some(Word::Failed(2, text)) if text.len() < LONGEST));
        parent.go().unwrap();
        init.wait_for_go().unwrap();
        drop(init);
        assert!(hear().is_none());
    }

    #[test]
    fn silence_ends() {
        let (parent, _init) = Talk::pair().unwrap();
        assert_eq!(parent.hear(Duration::ZERO).unwrap_err().errno(), TIMED_OUT);
    }
}
