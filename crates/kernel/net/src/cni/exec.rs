//! A plugin as a program: started without a shell, given its configuration, read with a bound, killed at its deadline.
//!
//! The program gets a process group of its own and an environment of `CNI_*`, `PATH`, `HOME` and `TMPDIR` alone: what
//! else is in the daemon's, proxies' passwords and sockets of the service manager among it, is not a plugin's.
//!
//! Invariant: [`run`] returns soon after the call's deadline, whatever the program does.
//! Invariant: of a call that did not succeed no process of the program's group is left.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::exchange::{Exchange, Said};
use super::{Call, CallError, Command, Error};

/// Most bytes of a result.
const MOST: usize = 1 << 20;
/// How long a program may take to end after it was killed.
const DYING: Duration = Duration::from_secs(2);
/// `ETXTBSY`: the program is being written, and will be there in a moment.
const BEING_WRITTEN: i32 = 26;

/// Programs that were killed and would not end: reaped at the next call, when the kernel lets them go.
static UNDEAD: Mutex<Vec<std::process::Child>> = Mutex::new(Vec::new());

/// Runs `program` and returns what it wrote to its standard output.
pub fn run(program: &Path, command: Command, call: &Call) -> Result<Vec<u8>, CallError> {
    reap();
    let begun = Instant::now();
    let failed = |source| CallError::Talk { program: program.display().to_string(), source };
    let mut child = start(program, command, call)?;
    let input = call.config.to_bytes();
    let said = Exchange::new(&mut child, &input, MOST)
        .and_then(|exchange| exchange.until(call.deadline))
        .map_err(failed);
    let broken = match said {
        Ok(Said::Ended { output, errors }) => {
            let status = child.wait().map_err(failed)?;
            return if status.success() { Ok(output) } else { Err(explain(&output, &errors, status).into()) };
        }
        Ok(Said::Late) => CallError::Timeout { after: begun.elapsed() },
        Ok(Said::TooMuch) => CallError::TooMuch { limit: MOST },
        Err(error) => error,
    };
    end(child);
    Err(broken)
}

/// The environment of a plugin.
pub fn environment(command: Command, call: &Call) -> Vec<(&'static str, OsString)> {
    let args: Vec<_> = call.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut path = OsString::new();
    for dir in &call.path {
        if !path.is_empty() {
            path.push(":");
        }
        path.push(dir);
    }
    let netns = call.netns.clone().map(PathBuf::into_os_string).unwrap_or_default();
    let mut environment = vec![
        ("CNI_COMMAND", command.as_str().into()),
        ("CNI_CONTAINERID", call.container_id.clone().into()),
        ("CNI_NETNS", netns),
        ("CNI_ARGS", args.join(";").into()),
        ("CNI_IFNAME", call.ifname.clone().into()),
        ("CNI_PATH", path),
    ];
    // A plugin that runs iptables finds it here even when the daemon was started with nothing.
    let default = OsStr::new("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    environment.push(("PATH", std::env::var_os("PATH").unwrap_or_else(|| default.to_owned())));
    for name in ["HOME", "TMPDIR"] {
        environment.extend(std::env::var_os(name).map(|value| (name, value)));
    }
    environment
}

fn start(program: &Path, command: Command, call: &Call) -> Result<std::process::Child, CallError> {
    let mut process = Process::new(program);
    process
        .env_clear()
        .envs(environment(command, call))
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    loop {
        match process.spawn() {
            Err(error) if error.raw_os_error() == Some(BEING_WRITTEN) && Instant::now() < call.deadline => {
                thread::sleep(Duration::from_millis(50));
            }
            started => {
                return started
                    .map_err(|source| CallError::Start { program: program.display().to_string(), source });
            }
        }
    }
}

/// Kills the program with its group. It has not been waited for, so its number is still its own.
fn end(mut child: std::process::Child) {
    let group = i32::try_from(child.id()).unwrap_or(0);
    if group > 1 {
        // Fails only when every process of the group has ended.
        let _ = sys::process::kill(-group, KILL);
    }
    let ended = sys::process::pidfd(group)
        .and_then(|pidfd| sys::process::ended(std::os::fd::AsFd::as_fd(&pidfd), DYING))
        .unwrap_or(false);
    if ended && child.wait().is_ok() {
        return;
    }
    UNDEAD.lock().unwrap_or_else(PoisonError::into_inner).push(child);
}

const KILL: i32 = 9;

fn reap() {
    let mut undead = UNDEAD.lock().unwrap_or_else(PoisonError::into_inner);
    undead.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
}

/// The plugin's own error, or one about what it wrote instead.
fn explain(output: &[u8], errors: &[u8], status: std::process::ExitStatus) -> Error {
    let excerpt = |bytes: &[u8]| excerpt(bytes, 1024);
    if output.iter().all(u8::is_ascii_whitespace) {
        return Error::new(
            super::code::UNKNOWN,
            match errors {
                [] => format!("netplugin failed with no error message: {status}"),
                errors => format!("netplugin failed: {:?}: {status}", excerpt(errors)),
            },
        );
    }
    match spec::json::from_slice::<Error>(output) {
        Ok(mut error) => {
            error.msg = self::excerpt(error.msg.as_bytes(), 4096);
            error.details = self::excerpt(error.details.as_bytes(), 4096);
            if error.msg.is_empty() {
                error.msg = format!("netplugin failed with error code {}", error.code);
            }
            error
        }
        Err(cause) => Error::new(
            super::code::UNKNOWN,
            format!(
                "netplugin failed but error parsing its diagnostic message {:?}: {cause}",
                excerpt(output)
            ),
        ),
    }
}

/// The first `most` bytes as text.
pub fn excerpt(bytes: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(most)]);
    let more = if bytes.len() > most { "..." } else { "" };
    format!("{}{more}", text.trim_end())
}

/// The program of the plugin `name` in the first of `dirs` that has one. A name that is no file's name has none.
pub fn find(name: &str, dirs: &[PathBuf]) -> Option<PathBuf> {
    super::validate::plugin_name(name).ok()?;
    dirs.iter().map(|dir| dir.join(name)).find(|path| is_regular(path))
}

fn is_regular(path: &Path) -> bool {
    std::fs::metadata(path).map_err(|error: io::Error| error.kind()).is_ok_and(|about| about.is_file())
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
