//! runc's command line protocol, for any `BinaryName` that speaks it: runc itself, crun, kata's wrapper.
//!
//! The program writes `<bundle>/log.json` (`{"level","msg","time"}` lines); its last error is the verb's error.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use api::containerd::runc::v1::Options;
use rustix::fs::{MemfdFlags, memfd_create};
use serde::Deserialize;
use spec::error::Kind;
use sys::event::start_unblocked;

use super::console::ConsoleSocket;
use super::{Begun, Call, ChildStdio, Driver, DriverError, Outcome, PID_FILE};

/// How long a program may take to make a container or a process: hooks and slow disks included.
const LONG: Duration = Duration::from_secs(120);
/// How long any other verb may take.
const SHORT: Duration = Duration::from_secs(30);
/// The most of a log or an output that is read back.
const MAX_OUTPUT: u64 = 256 << 10;

const SIGKILL: i32 = 9;

/// Runs a container through a program.
#[derive(Debug)]
pub struct Command {
    binary: String,
    root: PathBuf,
    id: String,
    bundle: PathBuf,
    systemd_cgroup: bool,
    no_pivot: bool,
    no_new_keyring: bool,
}

impl Command {
    /// The program `options.binary_name` for container `id`, with its state below `root`.
    pub fn new(options: &Options, root: PathBuf, id: &str, bundle: &Path) -> Self {
        Self {
            binary: options.binary_name.clone(),
            root,
            id: id.into(),
            bundle: bundle.into(),
            systemd_cgroup: options.systemd_cgroup,
            no_pivot: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
        }
    }

    /// The program with its global flags.
    fn program(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.binary);
        command.current_dir(&self.bundle).arg("--root").arg(&self.root);
        command.arg("--log").arg(self.bundle.join("log.json")).args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        // A group of its own, so that a program that hangs is killed with its helpers.
        command.process_group(0);
        command.stdin(Stdio::null());
        start_unblocked(&mut command);
        command
    }

    /// Starts `command`; whatever it prints is kept for the error or the result.
    fn spawn(&self, mut command: std::process::Command, expect: Expect) -> Result<Running, DriverError> {
        let program = |reason| DriverError::Program { binary: self.binary.clone(), reason };
        let log = self.bundle.join("log.json");
        let log_start = fs::metadata(&log).map_or(0, |found| found.len());
        let output = match &expect {
            Expect::Process { console: None, .. } => None,
            _ => {
                let file = output_file().map_err(program)?;
                command.stdout(file.try_clone().map_err(program)?);
                command.stderr(file.try_clone().map_err(program)?);
                Some(file)
            }
        };
        let limit = match &expect {
            Expect::Process { .. } => LONG,
            _ => SHORT,
        };
        let child = command.spawn().map_err(program)?;
        Ok(Running {
            child,
            binary: self.binary.clone(),
            deadline: spec::time::deadline(limit),
            limit,
            killed: None,
            log,
            log_start,
            output,
            expect,
        })
    }

    fn create(&self, stdio: Option<ChildStdio>) -> Result<Running, DriverError> {
        let pid_file = self.bundle.join(PID_FILE);
        let mut command = self.program();
        command.args(["create", "--bundle"]).arg(&self.bundle).arg("--pid-file").arg(&pid_file);
        let console = self.stdio(&mut command, stdio, "console.sock")?;
        if self.no_pivot {
            command.arg("--no-pivot");
        }
        if self.no_new_keyring {
            command.arg("--no-new-keyring");
        }
        command.arg(&self.id);
        self.spawn(command, Expect::Process { pid_file, console, _scratch: None })
    }

    fn exec(
        &self,
        (exec_id, process): (&str, &[u8]),
        stdio: Option<ChildStdio>,
        until: Option<Instant>,
    ) -> Result<Running, DriverError> {
        let pid_file = self.bundle.join(format!("{exec_id}.pid"));
        let document = self.bundle.join(format!("{exec_id}.process.json"));
        fs::write(&document, process)
            .map_err(|source| DriverError::Reply { what: "cannot write the process document", source })?;
        let scratch = Some(Scratch(document));
        let mut command = self.program();
        command.arg("exec").arg("--process").args(scratch.as_ref().map(|scratch| &scratch.0));
        let console = self.stdio(&mut command, stdio, &format!("{exec_id}.sock"))?;
        command.args(["--detach", "--pid-file"]).arg(&pid_file).arg(&self.id);
        let mut running = self.spawn(command, Expect::Process { pid_file, console, _scratch: scratch })?;
        if let Some(until) = until.filter(|until| *until < running.deadline) {
            running.limit = until.saturating_duration_since(Instant::now());
            running.deadline = until;
        }
        Ok(running)
    }

    /// Gives the program the container's files, or the socket that the terminal comes back on.
    fn stdio(
        &self,
        command: &mut std::process::Command,
        stdio: Option<ChildStdio>,
        socket: &str,
    ) -> Result<Option<ConsoleSocket>, DriverError> {
        if let Some(stdio) = stdio {
            command.stdin(stdio.stdin).stdout(stdio.stdout).stderr(stdio.stderr);
            return Ok(None);
        }
        let console = ConsoleSocket::listen(&self.bundle, socket).map_err(|source| DriverError::Reply {
            what: "failed to create OCI runtime console socket",
            source,
        })?;
        command.arg("--console-socket").arg(self.bundle.join(socket));
        Ok(Some(console))
    }

    fn simple(&self, words: &[&str]) -> Result<Running, DriverError> {
        let mut command = self.program();
        command.args(words);
        self.spawn(command, Expect::Nothing)
    }

    fn update(&self, resources: &[u8]) -> Result<Running, DriverError> {
        let document = self.bundle.join("resources.json");
        fs::write(&document, resources)
            .map_err(|source| DriverError::Reply { what: "cannot write the resources document", source })?;
        let mut command = self.program();
        command.args(["update", "--resources"]).arg(&document).arg(&self.id);
        self.spawn(command, Expect::Update { _scratch: Scratch(document) })
    }

    fn run(&self, call: Call<'_>) -> Result<Running, DriverError> {
        let id = self.id.as_str();
        match call {
            Call::Create { stdio } => self.create(stdio),
            Call::Start => self.simple(&["start", id]),
            Call::Delete { force: false } => self.simple(&["delete", id]),
            Call::Delete { force: true } => self.simple(&["delete", "--force", id]),
            Call::Kill { signal, all: false } => self.simple(&["kill", id, &signal.to_string()]),
            Call::Kill { signal, all: true } => self.simple(&["kill", "--all", id, &signal.to_string()]),
            Call::Pause => self.simple(&["pause", id]),
            Call::Resume => self.simple(&["resume", id]),
            Call::Update { resources } => self.update(resources),
            Call::Processes => {
                let mut command = self.program();
                command.args(["ps", "--format", "json", id]);
                self.spawn(command, Expect::Pids)
            }
            Call::Exec { exec_id, process, stdio, until } => self.exec((exec_id, process), stdio, until),
        }
    }
}

impl Driver for Command {
    fn begin(&mut self, call: Call<'_>) -> Begun {
        match self.run(call) {
            Ok(running) => Begun::Running(running),
            Err(error) => Begun::Done(Err(error)),
        }
    }
}

/// A file that is removed when the program that reads it has ended.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = fs::remove_file(&self.0);
    }
}

/// What a program leaves behind when it succeeds.
#[derive(Debug)]
enum Expect {
    Nothing,
    Update { _scratch: Scratch },
    Pids,
    Process { pid_file: PathBuf, console: Option<ConsoleSocket>, _scratch: Option<Scratch> },
}

/// A program at work.
#[derive(Debug)]
pub struct Running {
    child: Child,
    binary: String,
    deadline: Instant,
    limit: Duration,
    killed: Option<Why>,
    log: PathBuf,
    log_start: u64,
    output: Option<File>,
    expect: Expect,
}

/// Why a program was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It took too long.
    Deadline,
    /// Nobody wants its result any more.
    Canceled,
}

impl Running {
    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// When it must have ended.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Kills it and its helpers, because it takes too long; it is reaped as if it had ended by itself.
    pub fn kill(&mut self) {
        self.kill_because(Why::Deadline);
    }

    /// Kills it and its helpers, and what it may have made in the end.
    pub fn cancel(&mut self) {
        self.kill_because(Why::Canceled);
    }

    fn kill_because(&mut self, why: Why) {
        self.killed.get_or_insert(why);
        // Not yet reaped, so the number is still its own.
        if let Some(group) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }

    /// Waits for the end, at most until the deadline.
    ///
    /// # Errors
    /// See [`Running::finish`].
    pub fn wait(mut self) -> Result<Outcome, DriverError> {
        self.settle()
    }

    fn settle(&mut self) -> Result<Outcome, DriverError> {
        let status = loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                break status;
            }
            if Instant::now() >= self.deadline && self.killed.is_none() {
                self.kill();
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        self.conclude(status)
    }

    /// Reads what the program, which ended with the wait status `raw`, left behind.
    ///
    /// # Errors
    /// It failed; the text is its own last error.
    pub fn finish(&mut self, raw: i32) -> Result<Outcome, DriverError> {
        self.conclude(ExitStatus::from_raw(raw))
    }

    fn conclude(&mut self, status: ExitStatus) -> Result<Outcome, DriverError> {
        if let Some(why) = self.killed {
            self.kill_made();
            return Err(match why {
                Why::Deadline => DriverError::Deadline { binary: self.binary.clone(), limit: self.limit },
                Why::Canceled => DriverError::Runtime {
                    text: "the process was killed before it ran its program".into(),
                    kind: Kind::Unknown,
                },
            });
        }
        if !status.success() {
            return Err(self.failure(status));
        }
        match &self.expect {
            Expect::Nothing | Expect::Update { .. } => Ok(Outcome::default()),
            Expect::Pids => self.pids().map(|processes| Outcome { processes, ..Outcome::default() }),
            Expect::Process { pid_file, console, .. } => {
                let reply = |what| move |source| DriverError::Reply { what, source };
                let text = fs::read_to_string(pid_file)
                    .map_err(reply("failed to retrieve OCI runtime container pid"))?;
                let pid = text.trim().parse().map_err(|_| {
                    reply("failed to retrieve OCI runtime container pid")(io::ErrorKind::InvalidData.into())
                })?;
                let console = match console {
                    Some(socket) => {
                        Some(socket.receive().map_err(reply("failed to retrieve console master"))?)
                    }
                    None => None,
                };
                Ok(Outcome { pid, console, processes: Vec::new() })
            }
        }
    }

    /// Kills the process that a program made before it was killed itself: it is our child by then, as we are the
    /// subreaper.
    fn kill_made(&self) {
        let Expect::Process { pid_file, .. } = &self.expect else { return };
        let pid = fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse::<i32>().ok());
        let Some(Ok(process)) = pid.map(sys::process::pidfd) else { return };
        if sys::process::is_child(process.as_fd()).unwrap_or(false) {
            let _ = sys::process::signal(process.as_fd(), SIGKILL); // it may have ended by itself
        }
    }

    fn pids(&mut self) -> Result<Vec<u32>, DriverError> {
        let text = self.printed();
        // runc 1.1 prints null for a container without processes.
        spec::json::from_str(text.trim()).map_err(|error| DriverError::Reply {
            what: "cannot read the process list",
            source: error.into(),
        })
    }

    /// The program's words for its failure: its log's last error, or what it printed, or its status.
    fn failure(&mut self, status: ExitStatus) -> DriverError {
        let mut text = last_error(&self.log, self.log_start).unwrap_or_default();
        if text.is_empty() {
            text = self.printed().trim().to_owned();
        }
        if text.is_empty() {
            text = format!("{}: {status}", self.binary);
        }
        let kind = if text.contains("does not exist") { Kind::NotFound } else { Kind::Unknown };
        DriverError::Runtime { text, kind }
    }

    fn printed(&mut self) -> String {
        let mut bytes = Vec::new();
        if let Some(file) = &mut self.output
            && file.seek(SeekFrom::Start(0)).is_ok()
        {
            // What cannot be read is as good as not printed: the status still tells.
            let _ = file.take(MAX_OUTPUT).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Memory that a child can print into without a reader.
fn output_file() -> io::Result<File> {
    Ok(File::from(memfd_create(c"runtime-output", MemfdFlags::CLOEXEC)?))
}

/// One line of `log.json`.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct LogLine {
    level: String,
    msg: String,
}

/// The last error that was logged after `start`.
fn last_error(log: &Path, start: u64) -> Option<String> {
    let mut file = File::open(log).ok()?;
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut text = Vec::new();
    file.take(MAX_OUTPUT).read_to_end(&mut text).ok()?;
    let lines = text.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| spec::json::from_slice::<LogLine>(line).ok())
        .rfind(|line| line.level == "error")
        .map(|line| line.msg.trim().to_owned())
}

/// Asks a program for its features document.
///
/// # Errors
/// It has no such command, or cannot be run.
pub fn features(binary: &str) -> Result<Vec<u8>, DriverError> {
    let program = |reason| DriverError::Program { binary: binary.into(), reason };
    let file = output_file().map_err(program)?;
    let mut command = std::process::Command::new(binary);
    command.arg("features").stdin(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.stdout(file.try_clone().map_err(program)?);
    let mut running = Running {
        child: command.spawn().map_err(program)?,
        binary: binary.into(),
        deadline: Instant::now() + SHORT,
        limit: SHORT,
        killed: None,
        log: PathBuf::new(),
        log_start: 0,
        output: Some(file),
        expect: Expect::Nothing,
    };
    running.settle()?;
    Ok(running.printed().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_this_call_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.json");
        let old = "{\"level\":\"error\",\"msg\":\"old\",\"time\":\"t\"}\n";
        let new = "{\"level\":\"error\",\"msg\":\"first\"}\nnot json\n{\"level\":\"error\",\"msg\":\" last \"}\n\
                   {\"level\":\"warning\",\"msg\":\"w\"}\n";
        fs::write(&log, format!("{old}{new}")).unwrap();
        assert_eq!(last_error(&log, old.len() as u64).as_deref(), Some("last"));
        assert_eq!(last_error(&log, (old.len() + new.len()) as u64), None);
    }

    #[test]
    fn a_missing_program_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { binary_name: "/no/such/runtime".into(), ..Options::default() };
        let mut driver = Command::new(&options, dir.path().join("state"), "a", dir.path());
        let Begun::Done(Err(error)) = driver.begin(Call::Start) else { panic!("it cannot have started") };
        assert_eq!(error.to_string(), r#"exec: "/no/such/runtime": no such file or directory"#);
    }
}
