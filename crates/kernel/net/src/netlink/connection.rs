//! Requests and their answers: one at a time, each acknowledged, none waited for beyond the socket's limit.

use std::fmt;
use std::time::Duration;

use spec::error::{HasKind, Kind};
use sys::netlink::{Protocol, Socket};

use super::message::{ACK, Answer, Attributes, DUMP, Message, next_answer, u32_at};

/// `NLMSG_ERROR`
const ERROR: u16 = 2;
/// `NLMSG_DONE`
const DONE: u16 = 3;
/// `NLM_F_MULTI`
const MULTI: u16 = 2;
/// `NLM_F_DUMP_INTR`
const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLM_F_CAPPED`: the failed request is not copied into the error.
const CAPPED: u16 = 0x100;
/// `NLMSGERR_ATTR_MSG`
const ERROR_TEXT: u16 = 1;

/// Longest wait for one answer. The kernel answers at once; only its locks can be held by others.
const WAIT: Duration = Duration::from_secs(10);
/// The kernel fills at most 32 KiB of a dump at a time.
const BUFFER: usize = 64 << 10;
/// How often a dump that others' changes tore is begun anew.
const DUMP_ATTEMPTS: usize = 16;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The socket failed.
    Socket(sys::Error),
    /// The kernel refused the request.
    Refused {
        /// The request.
        request: String,
        /// The error's number.
        errno: i32,
        /// The kernel's own words, where it had any.
        text: Option<String>,
    },
    /// The kernel's answer could not be read.
    Malformed {
        /// The request.
        request: String,
    },
    /// A dump did not become whole, however often it was begun.
    Torn {
        /// The request.
        request: String,
    },
}

/// What a function of this module returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Whether the kernel refused with `errno`.
    pub fn is(&self, errno: i32) -> bool {
        self.errno() == Some(errno)
    }

    /// The number of the error, where it has one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Socket(error) => Some(error.errno()),
            Self::Refused { errno, .. } => Some(*errno),
            Self::Malformed { .. } | Self::Torn { .. } => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => error.fmt(f),
            Self::Refused { request, errno, text: None } => {
                write!(f, "{request}: {}", sys::error::words(*errno))
            }
            Self::Refused { request, errno, text: Some(text) } => {
                write!(f, "{request}: {} ({text})", sys::error::words(*errno))
            }
            Self::Malformed { request } => write!(f, "{request}: the kernel's answer is malformed"),
            Self::Torn { request } => write!(f, "{request}: the list changed under every attempt to read it"),
        }
    }
}

impl std::error::Error for Error {}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Socket(error) => Kind::from_errno(error.errno()),
            Self::Refused { errno, .. } => Kind::from_errno(*errno),
            Self::Malformed { .. } => Kind::Internal,
            Self::Torn { .. } => Kind::Unavailable,
        }
    }
}

impl From<sys::Error> for Error {
    fn from(error: sys::Error) -> Self {
        Self::Socket(error)
    }
}

impl From<Error> for crate::cni::Error {
    fn from(error: Error) -> Self {
        Self::internal(error)
    }
}

/// A connection to the kernel, in the network namespace that the opening thread was in.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Connection {
    /// Opens a connection in the calling thread's network namespace. It stays there, whoever uses it.
    pub fn open(protocol: Protocol) -> Result<Self> {
        Ok(Self { socket: Socket::open(protocol, WAIT)?, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Sends a request and waits for its acknowledgement.
    pub fn execute(&mut self, mut message: Message) -> Result<()> {
        message.flags(ACK);
        self.ask(message, |_| ()).map(|_| ())
    }

    /// Sends a request for one object and returns what `read` made of it.
    pub fn get<T>(&mut self, mut message: Message, read: impl FnOnce(&Answer<'_>) -> Option<T>) -> Result<T> {
        message.flags(ACK);
        let mut read = Some(read);
        let mut found = None;
        let request = self.ask(message, |answer| {
            if let Some(read) = read.take() {
                found = read(answer);
            }
        })?;
        found.ok_or(Error::Malformed { request })
    }

    /// Sends a request for a list and calls `each` for every entry; begins anew, after `restart`, when it was torn.
    pub fn dump<T>(
        &mut self,
        message: &Message,
        mut each: impl FnMut(&Answer<'_>) -> Option<T>,
    ) -> Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut message = message.clone();
            message.flags(DUMP);
            let mut found = Vec::new();
            let mut torn = false;
            let asked = self.ask(message, |answer| {
                torn |= answer.flags & DUMP_INTERRUPTED != 0;
                found.extend(each(answer));
            });
            match asked {
                Err(error) if error.is(rustix::io::Errno::INTR.raw_os_error()) => {}
                Err(error) => return Err(error),
                Ok(_) if torn => {}
                Ok(_) => return Ok(found),
            }
        }
        Err(Error::Torn { request: message.clone().finish(0).0.into_owned() })
    }

    /// Sends messages as one batch: `begin` and `end` around them, as nf_tables wants it. The last is acknowledged.
    pub fn batch(&mut self, begin: Message, messages: Vec<Message>, end: Message) -> Result<()> {
        let first = self.sequence.wrapping_add(1);
        let (what, mut bytes) = begin.finish(self.next_sequence());
        let mut names = vec![what];
        let most = messages.len();
        for (index, mut message) in messages.into_iter().enumerate() {
            if index + 1 == most {
                message.flags(ACK);
            }
            let (what, more) = message.finish(self.next_sequence());
            names.push(what);
            bytes.extend(more);
        }
        let last = self.sequence;
        bytes.extend(end.finish(self.next_sequence()).1);
        self.socket.send(&bytes)?;
        let name = |sequence: u32| {
            names.get(sequence.wrapping_sub(first) as usize).map_or_else(String::new, ToString::to_string)
        };
        loop {
            let length = self.socket.receive(&mut self.buffer)?;
            let mut rest = &self.buffer[..length];
            while let Some(answer) = next_answer(&mut rest) {
                // Whatever an earlier request that failed left behind is older than `first`.
                if answer.kind != ERROR || answer.sequence.wrapping_sub(first) > last.wrapping_sub(first) {
                    continue;
                }
                verdict(&answer, &name(answer.sequence))?;
                if answer.sequence == last {
                    return Ok(());
                }
            }
        }
    }

    /// Sends one message and hands `each` what answers it; returns the request's name once it is acknowledged.
    fn ask(&mut self, message: Message, mut each: impl FnMut(&Answer<'_>)) -> Result<String> {
        let sequence = self.next_sequence();
        let (what, bytes) = message.finish(sequence);
        self.socket.send(&bytes)?;
        loop {
            let length = self.socket.receive(&mut self.buffer)?;
            let mut rest = &self.buffer[..length];
            while let Some(answer) = next_answer(&mut rest) {
                if answer.sequence != sequence {
                    continue;
                }
                match answer.kind {
                    ERROR => return verdict(&answer, &what).map(|()| what.into_owned()),
                    // A list that failed half way ends with the reason.
                    DONE if answer.flags & MULTI != 0 => {
                        return verdict(&answer, &what).map(|()| what.into_owned());
                    }
                    DONE => return Ok(what.into_owned()),
                    _ => each(&answer),
                }
            }
            if !rest.is_empty() {
                return Err(Error::Malformed { request: what.into_owned() });
            }
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }
}

/// What an acknowledgement says: nothing, or why not.
fn verdict(answer: &Answer<'_>, what: &str) -> Result<()> {
    let Some(errno) = u32_at(answer.payload, 0).map(|number| -(number as i32)) else {
        return Err(Error::Malformed { request: what.into() });
    };
    if errno == 0 {
        return Ok(());
    }
    // After the number come the request's header (and without NLM_F_CAPPED its body), then attributes.
    let skip = match u32_at(answer.payload, 4) {
        Some(length) if answer.flags & CAPPED == 0 && answer.kind == ERROR => {
            (length as usize).next_multiple_of(4)
        }
        _ => super::message::HEADER,
    };
    let attributes = Attributes(answer.payload.get(4 + skip..).unwrap_or_default());
    Err(Error::Refused { request: what.into(), errno, text: attributes.text(ERROR_TEXT) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_the_kernels_words() {
        let mut connection = Connection::open(Protocol::Route).unwrap();
        // RTM_NEWLINK of a kind that does not exist.
        let mut message = Message::new("add link x", 16, 0x600).header(&[0; 16]);
        message.put_str(3, "berth-none").nest(18, |info| {
            info.put_str(1, "no-such-kind");
        });
        let error = connection.execute(message).unwrap_err();
        assert!(error.to_string().starts_with("add link x: "), "{error}");
        assert!(matches!(error, Error::Refused { text: Some(_), .. }), "{error:?}");
        // The connection is as good as new.
        let message = Message::new("list links", 18, 0).header(&[0; 16]);
        assert!(!connection.dump(&message, |answer| Some(answer.kind)).unwrap().is_empty());
    }
}
