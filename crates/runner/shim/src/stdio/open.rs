//! Opening: every file of a process before it is made, so that a wrong path fails the request and nothing else.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use spec::error::{HasKind, Kind};

use super::copy::Copy;
use super::log::{LogFile, MAX_PATH, Stream};
use super::logged::Logged;
use super::logger::Logger;
use super::uri::{Scheme, Uri, UriError};
use crate::driver::ChildStdio;
use crate::process::Streams;

/// The longest line of a log whose URI does not say, as containerd has it.
const MAX_LINE: usize = 16 << 10;
/// The longest line of a log whose URI asks for no limit.
const UNLIMITED_LINE: usize = 1 << 20;

/// Why a process's files cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A URI that means nothing.
    #[error("failed to create init process I/O")]
    Uri(#[from] UriError),
    /// A FIFO or file that cannot be opened.
    #[error("containerd-shim: opening {:?} failed", path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// What open(2) said.
        source: io::Error,
    },
    /// A limit that is no number.
    #[error("log line limit {0:?} is not a number of bytes")]
    MaxLine(String),
    /// A path longer than any the kernel takes.
    #[error("log path of {0} bytes is too long")]
    LongPath(usize),
    /// Two outputs that ask for different logs.
    #[error("a process has one log: {:?} and {:?} are two", .0.display(), .1.display())]
    TwoLogs(PathBuf, PathBuf),
    /// No log at its path.
    #[error("failed to open log file {:?}", path.display())]
    Log {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No pipe.
    #[error("failed to create pipes")]
    Pipe(#[source] io::Error),
    /// The logging program is not there or does not get ready.
    #[error("failed to start binary process {:?}", path.display())]
    Logger {
        /// Its path.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl HasKind for OpenError {
    fn kind(&self) -> Kind {
        match self {
            Self::Uri(error) => error.kind(),
            Self::MaxLine(_) | Self::LongPath(_) | Self::TwoLogs(..) => Kind::InvalidArgument,
            // Not the errno's kind: "not found" would mean the task to the caller.
            Self::Open { .. } | Self::Log { .. } | Self::Pipe(_) | Self::Logger { .. } => Kind::Unknown,
        }
    }
}

/// Whose files these are.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The container, or the exec.
    pub id: &'a str,
    /// The containerd namespace.
    pub namespace: &'a str,
    /// The user that owns the pipes, from the runtime options.
    pub uid: u32,
    /// The group that owns the pipes.
    pub gid: u32,
}

/// An output under way: to its sink as it comes, or to a log by lines.
#[derive(Debug)]
pub enum Flow {
    /// As it comes.
    Copy(Copy),
    /// By lines, to the log of its process.
    Logged(Logged),
}

/// The files of one process.
#[derive(Debug, Default)]
pub struct Opened {
    /// What the process gets; `None` with a terminal.
    pub child: Option<ChildStdio>,
    /// Where its output goes.
    pub outputs: Vec<Flow>,
    /// The log of those that are logged.
    pub log: Option<LogFile>,
    /// Where its input comes from.
    pub input: Option<Copy>,
    /// The write end of the input FIFO, which keeps it open until the client closes it by request.
    pub input_hold: Option<OwnedFd>,
    /// The logging program.
    pub logger: Option<Logger>,
}

type Result<T, E = OpenError> = std::result::Result<T, E>;

/// Opens the files of a process without terminal.
///
/// # Errors
/// See [`OpenError`]; nothing stays open and no logging program runs.
pub fn open(streams: &Streams, owner: Owner<'_>) -> Result<Opened> {
    let mut opened = Opened::default();
    let stdin = match non_empty(&streams.stdin) {
        Some(text) => {
            let (child, ours) = pipe(owner, Ours::Write)?;
            input(&Uri::parse(text)?.path, ours, &mut opened)?;
            child
        }
        None => null()?,
    };
    let (stdout, stderr) = match non_empty(&streams.stdout).map(Uri::parse).transpose()? {
        Some(uri) if matches!(uri.scheme, Scheme::Binary | Scheme::BinaryV2) => {
            logged(&uri, owner, &mut opened)?
        }
        Some(uri) if uri.scheme == Scheme::File => {
            let file = append(&uri.path)?;
            let (stdout, from_stdout) = pipe(owner, Ours::Read)?;
            let (stderr, from_stderr) = pipe(owner, Ours::Read)?;
            opened.outputs.push(Flow::Copy(Copy::new(from_stdout, duplicate(file.as_fd())?)));
            opened.outputs.push(Flow::Copy(Copy::new(from_stderr, file)));
            (stdout, stderr)
        }
        _ => {
            let stdout = output(&streams.stdout, Stream::Stdout, owner, &mut opened)?;
            (stdout, output(&streams.stderr, Stream::Stderr, owner, &mut opened)?)
        }
    };
    opened.child = Some(ChildStdio { stdin, stdout, stderr });
    Ok(opened)
}

/// Opens the ends of a terminal, whose master side the runtime has given us.
///
/// # Errors
/// See [`OpenError`].
pub fn open_terminal(streams: &Streams, console: &OwnedFd, owner: Owner<'_>) -> Result<Opened> {
    let mut opened = Opened::default();
    rustix::io::ioctl_fionbio(console, true).map_err(|errno| OpenError::Pipe(errno.into()))?;
    if let Some(text) = non_empty(&streams.stdin) {
        input(&Uri::parse(text)?.path, duplicate(console.as_fd())?, &mut opened)?;
    }
    let sink = match non_empty(&streams.stdout).map(Uri::parse).transpose()? {
        Some(uri) if matches!(uri.scheme, Scheme::Binary | Scheme::BinaryV2) => {
            let (from_ours, ours) = pipe(owner, Ours::Write)?;
            // A terminal has one output; the logger's second descriptor is at its end from the start.
            let (unused, _) = pipe(owner, Ours::Write)?;
            opened.logger = Some(start_logger(&uri, owner, from_ours, unused)?);
            Some(ours)
        }
        Some(uri) if uri.scheme == Scheme::File => Some(append(&uri.path)?),
        Some(uri) if uri.scheme == Scheme::Cri => {
            log(&uri, Stream::Stdout, duplicate(console.as_fd())?, &mut opened)?;
            return Ok(opened);
        }
        Some(uri) => Some(sink(&uri.path)?),
        None => None,
    };
    let sink = match sink {
        Some(sink) => sink,
        // Somebody must read the terminal, or the process stops at the first full buffer.
        None => null()?,
    };
    opened.outputs.push(Flow::Copy(Copy::new(duplicate(console.as_fd())?, sink)));
    Ok(opened)
}

fn non_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// One output of the process by FIFO or to the log; none is `/dev/null`.
fn output(text: &str, stream: Stream, owner: Owner<'_>, opened: &mut Opened) -> Result<OwnedFd> {
    let Some(text) = non_empty(text) else { return null() };
    let uri = Uri::parse(text)?;
    let (child, ours) = pipe(owner, Ours::Read)?;
    if uri.scheme == Scheme::Cri {
        log(&uri, stream, ours, opened)?;
    } else {
        opened.outputs.push(Flow::Copy(Copy::new(ours, sink(&uri.path)?)));
    }
    Ok(child)
}

/// The output that `source` carries goes to the process's log, which is opened for the first of its outputs.
fn log(uri: &Uri, stream: Stream, source: OwnedFd, opened: &mut Opened) -> Result<()> {
    let max_line = match uri.argument("max_line") {
        None => MAX_LINE,
        Some(text) => match text.parse().map_err(|_| OpenError::MaxLine(text.into()))? {
            0 => UNLIMITED_LINE,
            limit => UNLIMITED_LINE.min(limit),
        },
    };
    let length = uri.path.as_os_str().len();
    if length > MAX_PATH {
        return Err(OpenError::LongPath(length));
    }
    match &opened.log {
        Some(log) if log.path() != uri.path => {
            return Err(OpenError::TwoLogs(log.path().into(), uri.path.clone()));
        }
        Some(_) => {}
        None => {
            let failed = |source| OpenError::Log { path: uri.path.clone(), source };
            opened.log = Some(LogFile::open(&uri.path).map_err(failed)?);
        }
    }
    opened.outputs.push(Flow::Logged(Logged::new(source, stream, max_line)));
    Ok(())
}

/// The input of the process: `path` is copied to `ours`.
fn input(path: &Path, ours: OwnedFd, opened: &mut Opened) -> Result<()> {
    let failed = |source: rustix::io::Errno| OpenError::Open { path: path.into(), source: source.into() };
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let from = rustix::fs::open(path, OFlags::RDONLY | flags, Mode::empty()).map_err(failed)?;
    // Held so that the end of the input is when the client says so, not when it goes away.
    opened.input_hold = Some(rustix::fs::open(path, OFlags::WRONLY | flags, Mode::empty()).map_err(failed)?);
    opened.input = Some(Copy::new(from, ours));
    Ok(())
}

fn logged(uri: &Uri, owner: Owner<'_>, opened: &mut Opened) -> Result<(OwnedFd, OwnedFd)> {
    let failed = |errno: rustix::io::Errno| OpenError::Pipe(errno.into());
    let (from_stdout, stdout) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let (from_stderr, stderr) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    opened.logger = Some(start_logger(uri, owner, from_stdout, from_stderr)?);
    Ok((stdout, stderr))
}

fn start_logger(uri: &Uri, owner: Owner<'_>, stdout: OwnedFd, stderr: OwnedFd) -> Result<Logger> {
    Logger::start(uri, owner.id, owner.namespace, stdout, stderr)
        .map_err(|source| OpenError::Logger { path: uri.path.clone(), source })
}

/// Where an output goes: a FIFO held at both ends, or a file that grows.
fn sink(path: &Path) -> Result<OwnedFd> {
    let failed = |source| OpenError::Open { path: path.into(), source };
    let fifo = fs::metadata(path).map_err(failed)?.file_type().is_fifo();
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let access = if fifo { OFlags::RDWR } else { OFlags::WRONLY | OFlags::APPEND };
    rustix::fs::open(path, access | flags, Mode::empty()).map_err(|errno| failed(errno.into()))
}

/// A log file, made with its directory if need be.
fn append(path: &Path) -> Result<OwnedFd> {
    let failed = |source| OpenError::Open { path: path.into(), source };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path).map_err(failed)?;
    Ok(file.into())
}

/// Which end of a pipe is the shim's: it never blocks on it, while the process's end blocks as processes expect.
#[derive(Clone, Copy)]
enum Ours {
    Read,
    Write,
}

/// A pipe between the shim and a process: the process's end, then ours.
fn pipe(owner: Owner<'_>, ours: Ours) -> Result<(OwnedFd, OwnedFd)> {
    let failed = |errno: rustix::io::Errno| OpenError::Pipe(errno.into());
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let (child, own) = match ours {
        Ours::Read => (write, read),
        Ours::Write => (read, write),
    };
    rustix::io::ioctl_fionbio(&own, true).map_err(failed)?;
    if owner.uid != 0 || owner.gid != 0 {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::fchown(&child, Some(uid), Some(gid)).map_err(failed)?;
    }
    Ok((child, own))
}

fn null() -> Result<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| OpenError::Open { path: "/dev/null".into(), source: errno.into() })
}

fn duplicate(fd: std::os::fd::BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned().map_err(OpenError::Pipe)
}
