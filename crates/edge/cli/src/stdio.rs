//! A task's standard streams on the client's side: FIFOs to the shim, copied from and to this process's own.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::termios::{self, OptionalActions, Termios};

use crate::failure::{OrFail, Result};

/// Where FIFOs are made, unless `--fifo-dir` says otherwise.
const DEFAULT_DIR: &str = "/run/containerd/fifo";

/// The names that a task's streams are told to the shim by; empty is `/dev/null`.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Standard input.
    pub stdin: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error; empty with a terminal.
    pub stderr: String,
}

impl Names {
    /// Every output to the logger at `uri`.
    pub fn logger(uri: &str) -> Self {
        Self { stdin: String::new(), stdout: uri.to_owned(), stderr: uri.to_owned() }
    }
}

/// FIFOs in a directory of their own, removed when dropped.
#[derive(Debug)]
pub struct Fifos {
    dir: PathBuf,
    /// What the shim is told.
    pub names: Names,
}

impl Fifos {
    /// Makes the FIFOs of process `id`.
    pub fn create(dir: Option<&Path>, id: &str, terminal: bool) -> Result<Self> {
        let parent = dir.unwrap_or(Path::new(DEFAULT_DIR));
        std::fs::create_dir_all(parent).or_fail(format!("cannot create {}", parent.display()))?;
        let dir = unique_dir(parent)?;
        let fifos = Self { names: names(&dir, id, terminal), dir };
        for name in [&fifos.names.stdin, &fifos.names.stdout, &fifos.names.stderr] {
            if !name.is_empty() {
                let mode = rustix::fs::Mode::from_raw_mode(0o700);
                rustix::fs::mknodat(rustix::fs::CWD, name, rustix::fs::FileType::Fifo, mode, 0)
                    .map_err(io::Error::from)
                    .or_fail(format!("cannot make FIFO {name}"))?;
            }
        }
        Ok(fifos)
    }

    /// Starts copying. Both ends are opened at once, so a shim that never comes blocks nobody.
    pub fn copy(&self) -> Result<Copies> {
        copy(&self.names)
    }
}

/// Copies the FIFOs of `names` from and to our own streams.
pub fn copy(names: &Names) -> Result<Copies> {
    let mut outputs = Vec::new();
    for (name, to_stdout) in [(&names.stdout, true), (&names.stderr, false)] {
        if !name.is_empty() {
            outputs.push(copy_out(name, to_stdout)?);
        }
    }
    if !names.stdin.is_empty() {
        copy_in(&names.stdin);
    }
    Ok(Copies { outputs })
}

/// Removes the directory that [`Fifos::create`] made for the stream `name`, when it is one.
pub fn remove_left(name: &str) {
    let path = name.strip_prefix("fifo://").unwrap_or(name);
    if let Some(dir) = Path::new(path).parent()
        && dir.parent() == Some(Path::new(DEFAULT_DIR))
    {
        let _left = std::fs::remove_dir_all(dir);
    }
}

impl Fifos {
    /// Opens every FIFO for both reading and writing, so that neither end waits for the other.
    pub fn hold(&self) -> Result<Vec<File>> {
        let names = [&self.names.stdin, &self.names.stdout, &self.names.stderr];
        let made = names.into_iter().filter(|name| !name.is_empty());
        made.map(|name| OpenOptions::new().read(true).write(true).open(name).or_fail(name)).collect()
    }

    /// Leaves the FIFOs in place, for a later attach.
    pub fn keep(mut self) {
        self.dir = PathBuf::new();
    }
}

impl Drop for Fifos {
    fn drop(&mut self) {
        if !self.dir.as_os_str().is_empty() {
            // What stays is a directory under /run that the next boot clears.
            let _left = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn names(dir: &Path, id: &str, terminal: bool) -> Names {
    let path = |stream: &str| dir.join(format!("{id}-{stream}")).display().to_string();
    let stderr = if terminal { String::new() } else { path("stderr") };
    Names { stdin: path("stdin"), stdout: path("stdout"), stderr }
}

/// Makes a directory for this user alone, of a name that nobody has, in `parent`.
pub fn unique_dir(parent: &Path) -> Result<PathBuf> {
    for attempt in 0..100_u32 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let dir = parent.join(format!("{}{:09}{attempt}", std::process::id(), now.subsec_nanos()));
        match rustix::fs::mkdir(&dir, rustix::fs::Mode::from_raw_mode(0o700)) {
            Ok(()) => return Ok(dir),
            Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => {
                return Err(io::Error::from(errno)).or_fail(format!("cannot create {}", dir.display()));
            }
        }
    }
    Err(crate::Failure::new(format!("cannot find a free name in {}", parent.display())))
}

/// The threads that copy a task's output; each tells when it is done.
#[derive(Debug)]
pub struct Copies {
    outputs: Vec<tokio::sync::oneshot::Receiver<()>>,
}

/// How long output may go on after its process has ended: another that inherited it may hold it open for ever.
const LINGER: Duration = Duration::from_secs(10);

impl Copies {
    /// Waits until all output has been written; the shim closes its ends when the process has ended.
    pub async fn finish(self) {
        let all = async {
            for output in self.outputs {
                let _done = output.await; // a thread that panicked is done, too
            }
        };
        if tokio::time::timeout(LINGER, all).await.is_err() {
            crate::ui::say("ctr: the output is still held open by another process; not waiting any longer");
        }
    }
}

/// Copies a FIFO to our own output until its writer leaves.
fn copy_out(name: &str, to_stdout: bool) -> Result<tokio::sync::oneshot::Receiver<()>> {
    let fifo = OpenOptions::new().read(true).custom_flags(libc_nonblock()).open(name).or_fail(name)?;
    let name = name.to_owned();
    let (done, is_done) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _done = done; // dropped when the thread ends, which is the message
        // Reads block from here on: the first waits for the shim to open its end, off the main thread.
        let Ok(fifo) = wait_for_writer(fifo) else { return };
        let copied = if to_stdout { pump(fifo, io::stdout()) } else { pump(fifo, io::stderr()) };
        if let Err(error) = copied
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            crate::ui::say(format!("ctr: copying {name}: {error}"));
        }
    });
    Ok(is_done)
}

fn libc_nonblock() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0)
}

/// Waits until a writer has opened the FIFO, and makes reads block from then on.
fn wait_for_writer(fifo: File) -> io::Result<File> {
    let mut fds = [rustix::event::PollFd::new(&fifo, rustix::event::PollFlags::IN)];
    loop {
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(_) => break,
        }
    }
    let flags = rustix::fs::fcntl_getfl(&fifo)?;
    rustix::fs::fcntl_setfl(&fifo, flags - rustix::fs::OFlags::NONBLOCK)?;
    Ok(fifo)
}

fn pump(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = [0; 32 << 10];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return to.flush(),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&buffer[..count])?;
        to.flush()?;
    }
}

/// Copies our input into a FIFO. The thread ends with the process: a read of a terminal cannot be taken back.
fn copy_in(name: &str) {
    let name = name.to_owned();
    std::thread::spawn(move || {
        // Waits here for the shim to open its end: what is written before that would go with our descriptor.
        let Ok(mut fifo) = OpenOptions::new().write(true).open(&name) else { return };
        let mut stdin = io::stdin().lock();
        let mut buffer = [0; 32 << 10];
        while let Ok(count) = stdin.read(&mut buffer) {
            if count == 0 || fifo.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        drop(fifo);
        INPUT_HAS_ENDED.store(true, std::sync::atomic::Ordering::Release);
        INPUT_ENDED.notify_waiters();
    });
}

static INPUT_ENDED: tokio::sync::Notify = tokio::sync::Notify::const_new();
static INPUT_HAS_ENDED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Waits until our input has ended, so that the shim can be told to close the process's.
pub async fn input_ended() {
    let ended = INPUT_ENDED.notified();
    tokio::pin!(ended);
    ended.as_mut().enable();
    if !INPUT_HAS_ENDED.load(std::sync::atomic::Ordering::Acquire) {
        ended.await;
    }
}

/// Our terminal, raw until dropped.
#[derive(Debug)]
pub struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Makes standard input raw.
    pub fn enter() -> Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Err(crate::Failure::new(
                "--tty needs a terminal on standard input: provided file is not a console",
            ));
        }
        let before = termios::tcgetattr(&stdin).map_err(io::Error::from)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(io::Error::from)?;
        Ok(Self { before })
    }

    /// Its width and height, in characters.
    pub fn size() -> (u32, u32) {
        termios::tcgetwinsize(io::stdin().as_fd())
            .map_or((0, 0), |size| (size.ws_col.into(), size.ws_row.into()))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that went away needs no resetting.
        let _gone = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Our terminal without echo until dropped, for a password.
#[derive(Debug)]
pub struct Hidden {
    before: Option<Termios>,
}

impl Hidden {
    /// Stops the echo of standard input, if it is a terminal.
    pub fn stdin() -> Self {
        let before = termios::tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut silent = before.clone();
            silent.local_modes.remove(termios::LocalModes::ECHO);
            let _gone = termios::tcsetattr(io::stdin(), OptionalActions::Now, &silent);
        }
        Self { before }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _gone = termios::tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}
