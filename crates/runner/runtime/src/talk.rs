//! What the two halves of a creation tell each other, over a socket that keeps message boundaries.
//!
//! ```text
//! init                                 parent
//!   Maps            (stage only) ->      writes the maps of the user namespace
//!   Offsets         (stage only) ->      writes the offsets of the time namespace
//!              <- Go
//!   Sibling(pid)    (stage only) ->      takes over init, made by the stage
//!              <- Go                     (when maps or a stage were needed)
//!   Tree(index)                  ->      makes a mount that only it can make
//!              <- Go + fd                (for each such mount)
//!   Hooks                        ->      runs prestart and createRuntime hooks
//!              <- Go
//!   Console + fd                 ->      keeps the terminal's master
//!   Process(pid)                 ->      takes over the process that a stage has made as its last act
//!              <- Go
//!   Ready                        ->      init waits at the gate (create), or is about to execute (exec)
//!   Failed                       ->      says why; nothing follows
//!   (end of file)                        init has executed its program, or died
//! ```
//!
//! Invariant: the socket is close-on-exec on both sides, so a program never sees it.
//! Invariant: what init sends is not trusted, since a process of the container may have taken it over: a message is
//! bounded, and [`Script`] takes each at most once and in the order above.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::calls::FAILED;
use sys::{Error, socket};

/// Longest message; longer texts are cut.
const LONGEST: usize = 8192;

/// First byte of [`Word::Process`]; the pid (4 bytes) follows.
pub const PROCESS: u8 = b'q';
/// The message [`Word::Ready`].
pub const READY: &[u8] = b"r";

/// One message of init.
#[derive(Debug)]
pub enum Word {
    /// The user namespace is there and needs its maps.
    Maps,
    /// The time namespace is there and needs its offsets.
    Offsets,
    /// Init itself has this pid.
    Sibling(i32),
    /// The mount of this index in the plan is the parent's to make, from what the mounts before it show.
    Tree(u32),
    /// The container's mounts are there; hooks may run.
    Hooks,
    /// The master of the terminal.
    Console(OwnedFd),
    /// The process that will run the program, made by a stage that has done everything else, has this pid.
    Process(i32),
    /// Everything before the user's program is done.
    Ready,
    /// It failed: an errno (0 for none) and a complete text.
    Failed(i32, String),
}

impl Word {
    /// What it is called in errors.
    fn name(&self) -> &'static str {
        match self {
            Self::Maps => "maps",
            Self::Offsets => "offsets",
            Self::Sibling(_) => "sibling",
            Self::Tree(_) => "tree",
            Self::Hooks => "hooks",
            Self::Console(_) => "console",
            Self::Process(_) => "process",
            Self::Ready => "ready",
            Self::Failed(..) => "failed",
        }
    }

    /// Its place in the order of the module's table, as a bit.
    fn bit(&self) -> u8 {
        match self {
            Self::Maps => 1,
            Self::Offsets => 1 << 1,
            Self::Sibling(_) => 1 << 2,
            // As often as there are such mounts, and before the hooks.
            Self::Tree(_) => 0,
            Self::Hooks => HOOKS,
            Self::Console(_) => TERMINAL,
            Self::Process(_) => 1 << 5,
            Self::Ready => 1 << 6,
            Self::Failed(..) => 1 << 7,
        }
    }
}

/// What [`Talk::poll`] found.
#[derive(Debug)]
pub enum Heard {
    /// No message has come.
    Nothing,
    /// A message.
    Word(Word),
    /// Init has closed its end: it has executed its program, or ended.
    End,
}

/// A message that does not belong where it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Unexpected(pub &'static str);

/// The messages that may still come: each once, in the order of the module's table.
#[derive(Debug)]
pub struct Script {
    words: u8,
    /// How many mounts may be asked for.
    trees: usize,
}

impl Script {
    /// A failure and nothing else.
    pub fn failure() -> Self {
        Self { words: Word::Failed(0, String::new()).bit(), trees: 0 }
    }

    /// Readiness or a failure.
    pub fn readiness() -> Self {
        Self::failure().with(Word::Ready.bit())
    }

    /// As many requests for mounts.
    #[must_use]
    pub fn with_trees(self, trees: usize) -> Self {
        Self { trees, ..self }
    }

    fn with(self, bits: u8) -> Self {
        Self { words: self.words | bits, ..self }
    }

    /// What a stage adds: maps, and the process it makes.
    #[must_use]
    pub fn with_stage(self, maps: bool) -> Self {
        let maps = if maps { Word::Maps.bit() } else { 0 };
        self.with(Word::Sibling(0).bit() | maps)
    }

    /// A request for the offsets of a time namespace, if `wanted`.
    #[must_use]
    pub fn with_offsets(self, wanted: bool) -> Self {
        self.with(if wanted { Word::Offsets.bit() } else { 0 })
    }

    /// The process that a stage makes as its last act, if there is such a stage.
    #[must_use]
    pub fn with_process(self, wanted: bool) -> Self {
        self.with(if wanted { Word::Process(0).bit() } else { 0 })
    }

    /// A request for hooks, if `wanted`.
    #[must_use]
    pub fn with_hooks(self, wanted: bool) -> Self {
        self.with(if wanted { HOOKS } else { 0 })
    }

    /// A terminal, if `wanted`.
    #[must_use]
    pub fn with_terminal(self, wanted: bool) -> Self {
        self.with(if wanted { TERMINAL } else { 0 })
    }

    /// Whether a terminal may come next.
    pub fn takes_terminal(&self) -> bool {
        self.words & TERMINAL != 0
    }

    /// Takes `word`, after which it and those before it are not expected any more.
    pub fn take(&mut self, word: &Word) -> Result<(), Unexpected> {
        if let Word::Tree(_) = word {
            self.trees = self.trees.checked_sub(1).ok_or(Unexpected(word.name()))?;
            self.words &= !(HOOKS - 1);
            return Ok(());
        }
        let bit = word.bit();
        if self.words & bit == 0 {
            return Err(Unexpected(word.name()));
        }
        if bit >= HOOKS {
            self.trees = 0;
        }
        self.words &= match word {
            Word::Failed(..) => 0,
            _ => !(bit | (bit - 1)),
        };
        Ok(())
    }
}

/// The bit of [`Word::Hooks`].
const HOOKS: u8 = 1 << 3;
/// The bit of [`Word::Console`].
const TERMINAL: u8 = 1 << 4;

/// Checks that the descriptor that init sent is a terminal: whoever reads a file of the container's own file server
/// waits for that server.
fn terminal(master: OwnedFd) -> Result<OwnedFd, Error> {
    if sys::pty::is_master(master.as_fd())? {
        return Ok(master);
    }
    leave_open(master);
    Err(Error::new(BAD_MESSAGE, "recvmsg(init): not a terminal"))
}

/// Keeps a stranger's descriptor for good, because closing it could wait for the stranger.
fn leave_open(fd: OwnedFd) {
    std::mem::forget(fd);
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
            Word::Offsets => socket::send(socket, b"o", &[]),
            Word::Sibling(pid) => socket::send(socket, &[b"p", pid.to_ne_bytes().as_slice()].concat(), &[]),
            Word::Tree(index) => socket::send(socket, &[b"t", index.to_ne_bytes().as_slice()].concat(), &[]),
            Word::Hooks => socket::send(socket, b"h", &[]),
            Word::Console(master) => socket::send(socket, b"c", &[master.as_fd()]),
            Word::Process(pid) => {
                socket::send(socket, &[&[PROCESS], pid.to_ne_bytes().as_slice()].concat(), &[])
            }
            Word::Ready => socket::send(socket, READY, &[]),
            Word::Failed(errno, text) => {
                let mut bytes = [b"e", errno.to_ne_bytes().as_slice(), text.as_bytes()].concat();
                bytes.truncate(LONGEST);
                socket::send(socket, &bytes, &[])
            }
        }
    }

    /// The next message of init, if it has come. A descriptor is only received when `takes_terminal`.
    pub fn poll(&self, takes_terminal: bool) -> Result<Heard, Error> {
        let mut buffer = [0; LONGEST];
        let received = match takes_terminal {
            true => socket::receive_fd_now(self.socket.as_fd(), &mut buffer)?,
            false => socket::receive_now(self.socket.as_fd(), &mut buffer)?.map(|length| (length, None)),
        };
        let Some((length, fd)) = received else { return Ok(Heard::Nothing) };
        let Some((&tag, rest)) = buffer[..length].split_first() else { return Ok(Heard::End) };
        let number = || rest.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
        let word = match (tag, number(), fd) {
            (b'm', _, None) => Word::Maps,
            (b'o', _, None) => Word::Offsets,
            (b'p', Some(pid), None) => Word::Sibling(pid),
            (b't', Some(index), None) => Word::Tree(index.cast_unsigned()),
            (b'h', _, None) => Word::Hooks,
            (b'c', _, Some(master)) => Word::Console(terminal(master)?),
            (PROCESS, Some(pid), None) => Word::Process(pid),
            (b'r', _, None) => Word::Ready,
            (FAILED, Some(errno), None) => {
                let call = String::from_utf8_lossy(&rest[4..]);
                Word::Failed(errno, format!("{call}: {}", sys::error::words(errno)))
            }
            (b'e', Some(errno), None) => {
                Word::Failed(errno, String::from_utf8_lossy(&rest[4..]).into_owned())
            }
            (_, _, fd) => {
                if let Some(fd) = fd {
                    leave_open(fd);
                }
                return Err(Error::new(BAD_MESSAGE, "recvmsg(init)"));
            }
        };
        Ok(Heard::Word(word))
    }

    /// Lets init go on.
    pub fn go(&self) -> Result<(), Error> {
        socket::send(self.socket.as_fd(), b"g", &[])
    }

    /// Lets init go on with the mount that it has asked for.
    pub fn go_with(&self, tree: BorrowedFd<'_>) -> Result<(), Error> {
        socket::send(self.socket.as_fd(), b"g", &[tree])
    }

    /// Waits for the mount that this process has asked for.
    pub fn wait_for_tree(&self) -> Result<OwnedFd, Error> {
        let (_, fds) = socket::receive(self.socket.as_fd(), &mut [0; 1])?;
        fds.into_iter().next().ok_or_else(|| Error::new(BROKEN_PIPE, "recvmsg(parent)"))
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

/// `EBADMSG`.
pub const BAD_MESSAGE: i32 = 74;
/// `EPIPE`.
const BROKEN_PIPE: i32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn word(talk: &Talk) -> Word {
        match talk.poll(true).unwrap() {
            Heard::Word(word) => word,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn words_arrive_as_they_were_said() {
        let (parent, init) = Talk::pair().unwrap();
        assert!(matches!(parent.poll(false).unwrap(), Heard::Nothing));
        init.say(&Word::Sibling(77)).unwrap();
        init.say(&Word::Process(78)).unwrap();
        socket::send(init.as_fd(), b"f\x02\0\0\0exec /x", &[]).unwrap();
        init.say(&Word::Failed(2, "x".repeat(LONGEST * 2))).unwrap();
        assert!(matches!(word(&parent), Word::Sibling(77)));
        assert!(matches!(word(&parent), Word::Process(78)));
        let text = "exec /x: no such file or directory";
        assert!(matches!(word(&parent), Word::Failed(2, found) if found == text));
        assert!(matches!(word(&parent), Word::Failed(2, text) if text.len() < LONGEST));
        parent.go().unwrap();
        init.wait_for_go().unwrap();
        drop(init);
        assert!(matches!(parent.poll(false).unwrap(), Heard::End));
    }

    #[test]
    fn a_descriptor_that_is_no_terminal_is_refused() {
        let (parent, init) = Talk::pair().unwrap();
        let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        init.say(&Word::Console(file())).unwrap();
        assert_eq!(parent.poll(true).unwrap_err().errno(), BAD_MESSAGE);
        init.say(&Word::Console(file())).unwrap();
        assert_eq!(parent.poll(false).unwrap_err().errno(), BAD_MESSAGE);
        socket::send(init.as_fd(), b"r", &[file().as_fd()]).unwrap();
        assert_eq!(parent.poll(true).unwrap_err().errno(), BAD_MESSAGE);
    }

    #[test]
    fn a_message_of_no_kind_is_refused() {
        let (parent, init) = Talk::pair().unwrap();
        for bytes in [b"x".as_slice(), b"p", b"p12", b"e1", b"c"] {
            socket::send(init.as_fd(), bytes, &[]).unwrap();
            assert_eq!(parent.poll(false).unwrap_err().errno(), BAD_MESSAGE, "{bytes:?}");
        }
    }

    #[test]
    fn a_script_takes_each_message_once_and_in_order() {
        let mut script = Script::readiness().with_stage(true).with_offsets(true).with_hooks(true);
        script.take(&Word::Maps).unwrap();
        script.take(&Word::Offsets).unwrap();
        assert_eq!(script.take(&Word::Offsets), Err(Unexpected("offsets")));
        script.take(&Word::Sibling(1)).unwrap();
        assert_eq!(script.take(&Word::Sibling(2)), Err(Unexpected("sibling")));
        assert_eq!(script.take(&Word::Maps), Err(Unexpected("maps")));
        script.take(&Word::Ready).unwrap();
        assert_eq!(script.take(&Word::Hooks), Err(Unexpected("hooks")));
        assert_eq!(script.take(&Word::Ready), Err(Unexpected("ready")));
        script.take(&Word::Failed(0, String::new())).unwrap();
        assert_eq!(script.take(&Word::Failed(0, String::new())), Err(Unexpected("failed")));
    }

    #[test]
    fn a_script_takes_as_many_mounts_as_there_are_and_none_after_the_hooks() {
        let mut script = Script::readiness().with_stage(false).with_trees(3).with_hooks(true);
        script.take(&Word::Tree(4)).unwrap();
        assert_eq!(script.take(&Word::Sibling(1)), Err(Unexpected("sibling")));
        script.take(&Word::Tree(5)).unwrap();
        script.take(&Word::Hooks).unwrap();
        assert_eq!(script.take(&Word::Tree(6)), Err(Unexpected("tree")));
        let mut script = Script::readiness().with_trees(1);
        script.take(&Word::Tree(0)).unwrap();
        assert_eq!(script.take(&Word::Tree(0)), Err(Unexpected("tree")));
    }

    #[test]
    fn a_script_takes_nothing_that_was_not_asked_for() {
        let mut script = Script::readiness();
        assert_eq!(script.take(&Word::Maps), Err(Unexpected("maps")));
        assert_eq!(script.take(&Word::Offsets), Err(Unexpected("offsets")));
        assert_eq!(script.take(&Word::Sibling(1)), Err(Unexpected("sibling")));
        assert_eq!(script.take(&Word::Hooks), Err(Unexpected("hooks")));
        assert!(!script.takes_terminal() && Script::readiness().with_terminal(true).takes_terminal());
        assert_eq!(Script::failure().take(&Word::Ready), Err(Unexpected("ready")));
    }
}
