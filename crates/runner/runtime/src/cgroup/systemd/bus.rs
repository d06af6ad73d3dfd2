//! A connection to systemd over the system bus: blocking, with one deadline for all that is done over it.
//!
//! Invariant: every read and write ends at the deadline.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use spec::error::{HasKind, Kind};

use super::message::{self, Garbled, HEAD, Message, Method};
use super::value::Value;

/// Where the system bus listens.
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// Where systemd itself listens, for root alone: what `systemctl` uses while there is no bus.
const PRIVATE: &str = "/run/systemd/private";

/// Ends of jobs that are kept until somebody asks; more than one at a time is rare.
const MOST_ENDED: usize = 64;

/// Longest line of the authentication.
const LONGEST_LINE: usize = 1024;

/// Why systemd did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// It cannot be reached.
    #[error("cannot reach systemd")]
    Connect(#[source] sys::Error),
    /// The bus does not take us.
    #[error("the system bus refused the connection: {0}")]
    Refused(String),
    /// The connection broke.
    #[error("the connection to systemd broke")]
    Io(#[source] io::Error),
    /// No answer in time.
    #[error("systemd did not answer in time")]
    Timeout,
    /// An answer that is none.
    #[error("systemd's answer makes no sense: {0}")]
    Garbled(#[from] Garbled),
    /// Its own error.
    #[error("{text}")]
    Remote {
        /// D-Bus name of the error.
        name: String,
        /// Its text.
        text: String,
    },
}

impl BusError {
    /// Whether it is systemd's own error of that name.
    pub fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Remote { name, .. } if name == wanted)
    }
}

impl HasKind for BusError {
    fn kind(&self) -> Kind {
        match self {
            Self::Connect(_) | Self::Refused(_) | Self::Io(_) => Kind::Unavailable,
            Self::Timeout => Kind::DeadlineExceeded,
            Self::Garbled(_) => Kind::Internal,
            Self::Remote { name, .. } => match name.rsplit('.').next().unwrap_or_default() {
                "UnitExists" => Kind::AlreadyExists,
                "NoSuchUnit" => Kind::NotFound,
                "InvalidArgs" | "PropertyReadOnly" | "UnknownProperty" => Kind::InvalidArgument,
                "AccessDenied" => Kind::PermissionDenied,
                _ => Kind::Unknown,
            },
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    until: Instant,
    /// Jobs that have ended, with their results.
    ended: VecDeque<(String, String)>,
}

/// A method of the bus itself.
fn of_bus(member: &str) -> Method<'_> {
    let destination = "org.freedesktop.DBus";
    Method { destination, path: "/org/freedesktop/DBus", interface: destination, member }
}

/// A method of systemd's manager.
fn of_manager(member: &str) -> Method<'_> {
    let (destination, path) = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1");
    Method { destination, path, interface: "org.freedesktop.systemd1.Manager", member }
}

impl Bus {
    /// Connects; all that follows must be done `within` that time.
    pub fn connect(within: Duration) -> Result<Self, BusError> {
        let until = spec::time::deadline(within);
        let shared = sys::socket::connect_within(Path::new(SYSTEM_BUS), within);
        let has_bus = shared.is_ok();
        let socket = match shared {
            Err(error) if error.is(ENOENT) || error.is(ECONNREFUSED) => {
                sys::socket::connect_within(Path::new(PRIVATE), within)
            }
            done => done,
        };
        let stream = UnixStream::from(socket.map_err(BusError::Connect)?);
        let mut bus = Self::over(stream, until)?;
        if has_bus {
            // Systemd sends its private connections every signal, and they have no bus to say hello to.
            bus.call(of_bus("Hello"), &[])?;
            let rule = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
                        interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
            bus.call(of_bus("AddMatch"), &[Value::text(rule)])?;
        }
        Ok(bus)
    }

    /// Authenticates over a connected socket.
    fn over(stream: UnixStream, until: Instant) -> Result<Self, BusError> {
        let mut bus = Self { stream, serial: 0, until, ended: VecDeque::new() };
        // The server takes our uid from the socket; the text must be the same in hex of its decimal digits.
        let uid: String =
            sys::identity::uid().to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
        bus.send(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
        let line = bus.line()?;
        if !line.starts_with("OK ") {
            return Err(BusError::Refused(line));
        }
        bus.send(b"BEGIN\r\n")?;
        Ok(bus)
    }

    /// Calls a method of systemd's manager.
    pub fn manager(&mut self, member: &str, arguments: &[Value]) -> Result<Vec<Value>, BusError> {
        self.call(of_manager(member), arguments)
    }

    /// Calls a method of systemd's manager that makes a job, and waits for the job's end. Its result, `done` if it went well.
    pub fn job(&mut self, member: &str, arguments: &[Value]) -> Result<String, BusError> {
        let answer = self.manager(member, arguments)?;
        let Some(Value::Path(job)) = answer.first() else {
            return Err(BusError::Refused(format!("{member} named no job")));
        };
        loop {
            if let Some(at) = self.ended.iter().position(|(ended, _)| ended == job) {
                return Ok(self.ended.remove(at).map(|(_, result)| result).unwrap_or_default());
            }
            self.take_message()?;
        }
    }

    /// The major version of systemd; 0 if it says something else.
    pub fn version(&mut self) -> Result<u32, BusError> {
        let method = Method { interface: "org.freedesktop.DBus.Properties", ..of_manager("Get") };
        let answer =
            self.call(method, &[Value::text("org.freedesktop.systemd1.Manager"), Value::text("Version")])?;
        let Some(Value::Variant(value)) = answer.first() else { return Ok(0) };
        match &**value {
            Value::Str(text) => Ok(major_version(text)),
            _ => Ok(0),
        }
    }

    fn call(&mut self, method: Method<'_>, arguments: &[Value]) -> Result<Vec<Value>, BusError> {
        self.serial += 1;
        let serial = self.serial;
        self.send(&message::call(serial, method, arguments))?;
        loop {
            match self.take_message()? {
                Some(Message::Reply(to, values)) if to == serial => return Ok(values),
                Some(Message::Error(to, name, values)) if to == serial => {
                    let text = match values.into_iter().next() {
                        Some(Value::Str(text)) => text,
                        _ => name.clone(),
                    };
                    return Err(BusError::Remote { name, text });
                }
                _ => {}
            }
        }
    }

    /// Takes one message; the end of a job is noted.
    fn take_message(&mut self) -> Result<Option<Message>, BusError> {
        let mut head = [0; HEAD];
        self.fill(&mut head)?;
        let mut bytes = vec![0; message::length(&head)?];
        bytes[..HEAD].copy_from_slice(&head);
        self.fill(&mut bytes[HEAD..])?;
        match message::read(&bytes)? {
            Message::Signal(member, values) => {
                if let ("JobRemoved", [_, Value::Path(job), _, Value::Str(result), ..]) =
                    (member.as_str(), values.as_slice())
                {
                    if self.ended.len() == MOST_ENDED {
                        self.ended.pop_front();
                    }
                    self.ended.push_back((job.clone(), result.clone()));
                }
                Ok(None)
            }
            other => Ok(Some(other)),
        }
    }

    fn line(&mut self) -> Result<String, BusError> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.fill(&mut byte)?;
            line.push(byte[0]);
            if line.len() > LONGEST_LINE {
                return Err(BusError::Refused("an endless line".into()));
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), BusError> {
        let within = self.remaining()?;
        self.stream.set_write_timeout(Some(within)).map_err(BusError::Io)?;
        self.stream.write_all(bytes).map_err(broken)
    }

    fn fill(&mut self, mut buffer: &mut [u8]) -> Result<(), BusError> {
        while !buffer.is_empty() {
            let within = self.remaining()?;
            self.stream.set_read_timeout(Some(within)).map_err(BusError::Io)?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(BusError::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => buffer = &mut buffer[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(error)),
            }
        }
        Ok(())
    }

    fn remaining(&self) -> Result<Duration, BusError> {
        let remaining = self.until.saturating_duration_since(Instant::now());
        if remaining.is_zero() { Err(BusError::Timeout) } else { Ok(remaining) }
    }
}

const ENOENT: i32 = 2;
const ECONNREFUSED: i32 = 111;

fn broken(error: io::Error) -> BusError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => BusError::Timeout,
        _ => BusError::Io(error),
    }
}

/// `252.39-1~deb12u1`, `v239`, `255-1.fc39`.
fn major_version(text: &str) -> u32 {
    let text = text.trim_start_matches(['"', 'v']);
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn versions_come_in_several_forms() {
        for (text, major) in [("252.39-1~deb12u1", 252), ("v239", 239), ("255-1.fc39", 255), ("odd", 0)] {
            assert_eq!(major_version(text), major, "{text}");
        }
    }

    #[test]
    fn a_refusal_is_told() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
        let error = Bus::over(ours, soon()).unwrap_err();
        assert_eq!(error.to_string(), "the system bus refused the connection: REJECTED EXTERNAL");
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = Bus::over(ours, Instant::now() + Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, BusError::Timeout), "{error:?}");
    }

    #[test]
    fn a_peer_that_talks_without_end_is_left() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[b'x'; 4096]).unwrap();
        assert!(matches!(Bus::over(ours, soon()), Err(BusError::Refused(_))));
    }

    #[test]
    fn a_peer_that_goes_away_is_an_error() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"OK 1234\r\n").unwrap();
        let mut bus = Bus::over(ours, soon()).unwrap();
        drop(theirs);
        assert!(matches!(bus.manager("X", &[]), Err(BusError::Io(_))));
    }
}
