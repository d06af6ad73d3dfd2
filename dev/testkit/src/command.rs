//! Programs run with a deadline, everything they said kept.
//!
//! ```no_run
//! # use testkit::command::Run;
//! let out = Run::new("ctr").args(["version"]).ok();
//! ```
//!
//! Invariant: no call outlives its deadline, even when a descendant of the program keeps its pipes open.

use std::ffi::OsStr;
use std::io::{Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// How long a program may take unless the test says otherwise.
pub const LIMIT: Duration = Duration::from_secs(60);

/// After a program's end, how long its pipes may stay open: a descendant that keeps them is a leak, not a reason to wait.
const DRAIN: Duration = Duration::from_secs(3);

/// A program to run.
#[must_use]
pub struct Run {
    command: Command,
    stdin: Option<Vec<u8>>,
    limit: Duration,
}

impl Run {
    /// Runs `program`, an absolute path or a name on PATH.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(program), stdin: None, limit: LIMIT }
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Adds the words of a line, split at blanks and at nothing else.
    pub fn line(self, line: &str) -> Self {
        self.args(line.split_whitespace())
    }

    /// Sets one variable of the environment.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Sets the working directory.
    pub fn cwd(mut self, dir: impl AsRef<std::path::Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Gives the program these bytes to read, then end of file; without, it reads /dev/null.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Sets how long the program may take.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts the program.
    pub fn start(mut self) -> Running {
        let line = format!("{:?}", self.command).replace('"', "");
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        let began = Instant::now();
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
        if let (Some(bytes), Some(mut pipe)) = (self.stdin, child.stdin.take()) {
            // The program may end before it has read everything; that is its business.
            std::thread::spawn(move || pipe.write_all(&bytes));
        }
        let stdout = Stream::read(child.stdout.take().expect("stdout is piped"));
        let stderr = Stream::read(child.stderr.take().expect("stderr is piped"));
        Running { child, line, stdout, stderr, began, limit: self.limit, reaped: None }
    }

    /// Runs the program to its end.
    pub fn run(self) -> Done {
        self.start().wait()
    }

    /// Runs the program, which must succeed, and returns its standard output.
    pub fn ok(self) -> String {
        self.run().ok()
    }

    /// Runs the program, which must fail, and returns what it printed on both streams.
    pub fn fails(self) -> String {
        self.run().fails()
    }
}

/// A program that runs.
#[must_use]
pub struct Running {
    child: Child,
    line: String,
    stdout: Stream,
    stderr: Stream,
    began: Instant,
    limit: Duration,
    reaped: Option<std::process::ExitStatus>,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; one to a program that has just ended is lost, as everywhere.
    pub fn signal(&self, signal: Signal) {
        if self.reaped.is_none() {
            let _ = kill_process(pid(&self.child), signal);
        }
    }

    /// Everything it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Everything it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until standard output holds `text`; panics when the deadline comes first.
    pub fn sees(&self, text: &str) {
        if !self.stdout.holds(text, self.limit) {
            panic!(
                "{}: never printed {text:?}\nstdout: {}\nstderr: {}",
                self.line,
                self.stdout(),
                self.stderr()
            );
        }
    }

    /// Waits for its end; kills it and panics when the deadline comes first.
    pub fn wait(mut self) -> Done {
        match self.ends_within(self.limit) {
            Some(done) => done,
            None => {
                let (line, limit, stdout, stderr) =
                    (self.line.clone(), self.limit, self.stdout(), self.stderr());
                drop(self);
                panic!("{line}: not done after {limit:?}\nstdout: {stdout}\nstderr: {stderr}")
            }
        }
    }

    /// What it was if it ends within `limit`.
    pub fn ends_within(&mut self, limit: Duration) -> Option<Done> {
        if !ended(&self.child, limit) {
            return None;
        }
        let status = self.child.wait().expect("an ended child can be waited for");
        self.reaped = Some(status);
        let took = self.began.elapsed();
        self.stdout.close(DRAIN);
        self.stderr.close(DRAIN);
        Some(Done {
            line: self.line.clone(),
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: self.stdout(),
            stderr: self.stderr(),
            took,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.reaped.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A program that has ended.
#[must_use]
#[derive(Debug, Clone)]
pub struct Done {
    /// The command line, for messages.
    pub line: String,
    /// The exit code, or 128 and the signal's number.
    pub code: i32,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Done {
    /// Its standard output; panics unless it succeeded.
    pub fn ok(self) -> String {
        assert!(self.code == 0, "{self}");
        self.stdout
    }

    /// Both its outputs; panics if it succeeded.
    pub fn fails(self) -> String {
        assert!(self.code != 0, "succeeded, and should not have: {self}");
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nexit code {}\nstdout: {}\nstderr: {}", self.line, self.code, self.stdout, self.stderr)
    }
}

/// Whether `child` has ended, waiting at most `limit`; it stays to be reaped.
pub(crate) fn ended(child: &Child, limit: Duration) -> bool {
    let Ok(pidfd) = pidfd_open(pid(child), PidfdFlags::empty()) else { return true };
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(_) => continue, // interrupted by a signal
        }
    }
}

/// The process id of a child as the system calls take it.
pub(crate) fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// What a thread has read from a pipe so far.
#[derive(Clone)]
struct Stream(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    closed: bool,
}

impl Stream {
    fn read(mut pipe: impl Read + Send + 'static) -> Self {
        let stream = Self(Arc::default());
        let writer = stream.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            loop {
                let count = match pipe.read(&mut buffer) {
                    Ok(count) => count,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(_) => 0,
                };
                let mut state = writer.0.0.lock().unwrap_or_else(PoisonError::into_inner);
                state.bytes.extend_from_slice(&buffer[..count]);
                state.closed = count == 0;
                writer.0.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        stream
    }

    fn text(&self) -> String {
        let state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&state.bytes).into_owned()
    }

    fn holds(&self, text: &str, limit: Duration) -> bool {
        self.until(limit, |state| state.bytes.windows(text.len()).any(|part| part == text.as_bytes()))
    }

    fn close(&self, limit: Duration) {
        self.until(limit, |_| false);
    }

    /// Waits until `done`, or the pipe is closed, or `limit`; tells whether `done`.
    fn until(&self, limit: Duration, done: impl Fn(&Heard) -> bool) -> bool {
        let state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) = self
            .0
            .1
            .wait_timeout_while(state, limit, |state| !done(state) && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        done(&state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_code_are_kept() {
        let done = Run::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]).run();
        assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (3, "out\n", "err\n"));
    }

    #[test]
    fn standard_input_reaches_the_program() {
        assert_eq!(Run::new("cat").stdin("hello").ok(), "hello");
    }

    #[test]
    fn a_program_past_its_deadline_is_killed() {
        let mut running = Run::new("sleep").args(["60"]).start();
        assert!(running.ends_within(Duration::from_millis(20)).is_none());
        let pid = running.pid();
        drop(running);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_death_by_signal_is_128_and_its_number() {
        assert_eq!(Run::new("sh").args(["-c", "kill -9 $$"]).run().code, 137);
    }

    #[test]
    fn what_a_running_program_prints_is_seen_at_once() {
        let running = Run::new("sh").args(["-c", "echo ready; exec sleep 60"]).start();
        running.sees("ready");
    }
}
