//! From a process just started to one that serves.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::event::epoll::EventFlags;
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use spec::error::Error;

use super::attachments::Attachments;
use super::publisher::Publisher;
use super::{BUFFER_BYTES, Poll, Shim, Token};
use crate::args::Args;
use crate::{log, stdio};

/// Sets the process up; returns the socket's path too, which is to be removed at the end.
pub fn prepare(args: &Args) -> Result<(Shim, Option<PathBuf>), Error> {
    // What a daemon leaks into its shims stays open for as long as they live, and would reach the containers.
    sys::fd::close_all_but(&[]).map_err(|error| failed("close", &error))?;
    // First of all, while the numbers are free.
    stdio::reserve_descriptors().map_err(|error| failed("open(/dev/null)", &error))?;
    // Executed by descriptor, the process would be named after a number. The kernel keeps 15 bytes.
    let _ = rustix::thread::set_name(c"containerd-shim");
    let listener = listener(args)?;
    let path = listener.local_addr().ok().and_then(|name| name.as_pathname().map(Path::to_path_buf));
    listener.set_nonblocking(true).map_err(|error| failed("no socket to serve", &error))?;
    own_session();
    open_log();
    let watched = [Signal::CHILD, Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1].map(Signal::as_raw);
    let signals = sys::event::Signals::take(&watched).map_err(|error| Error::internal(error.to_string()))?;
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own))
        .map_err(|errno| failed("prctl(CHILD_SUBREAPER)", &errno))?;
    let poll = Poll::new()?;
    poll.add(&listener, Token::Listener, EventFlags::IN)?;
    poll.add(signals.as_fd(), Token::Signals, EventFlags::IN)?;
    let events = args.events.clone().or_else(|| std::env::var("TTRPC_ADDRESS").ok());
    let events = events.filter(|address| !address.is_empty());
    let events = events.map(|address| PathBuf::from(address.trim_start_matches("unix://")));
    let shim = Shim {
        namespace: args.namespace.clone(),
        containers: BTreeMap::new(),
        poll,
        listener,
        signals,
        connections: BTreeMap::new(),
        streams: BTreeMap::new(),
        attachments: Attachments::default(),
        oom_watches: BTreeMap::new(),
        jobs: BTreeMap::new(),
        early: Vec::new(),
        publisher: Publisher::new(events, &args.namespace),
        next_id: 0,
        closing: None,
        expecting: Some(std::time::Instant::now() + super::EXPECTING),
        buffer: vec![0; BUFFER_BYTES],
    };
    Ok((shim, path))
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::internal(format!("{what}: {error}"))
}

/// Takes on what `start` gives a serving process: the socket as standard input, and nothing to write to. Whoever read
/// this process's output until now sees its end.
///
/// # Errors
/// A descriptor cannot be made.
pub fn take_standard_files(listener: UnixListener) -> io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&listener)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// The socket to serve: the one named, or the one that `start` left as standard input.
fn listener(args: &Args) -> Result<UnixListener, Error> {
    if let Some(path) = &args.socket {
        return UnixListener::bind(path).map_err(|error| failed(&path.display().to_string(), &error));
    }
    let inherited: OwnedFd = rustix::stdio::stdin()
        .try_clone_to_owned()
        .map_err(|error| failed("no socket to serve on standard input", &error))?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failed("open(/dev/null)", &errno))?;
    rustix::stdio::dup2_stdin(&null).map_err(|errno| failed("dup2", &errno))?;
    Ok(UnixListener::from(inherited))
}

/// Leaves the daemon's session, so that no signal to its group or terminal reaches the shim.
fn own_session() {
    // Fails for a group leader, which is nobody's group member either.
    let _ = rustix::process::setsid();
}

/// Makes the bundle's `log` FIFO standard error.
///
/// It is opened for reading too: without a reader, as after the daemon's death, writes then fill the pipe and are
/// dropped instead of failing, and the next daemon finds what fits into it.
fn open_log() {
    let Ok(found) = fs::symlink_metadata("log") else { return };
    if !found.file_type().is_fifo() {
        return;
    }
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::open("log", flags, Mode::empty()) {
        Ok(log) => {
            // The old standard error stays if this fails, and nothing else could be said.
            let _ = rustix::stdio::dup2_stderr(&log);
        }
        Err(errno) => log::warn(format_args!("open log: {errno}")),
    }
}
