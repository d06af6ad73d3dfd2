//! `runc exec`.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use runtime::cgroup::Below;
use runtime::create::plan::plan_exec;
use runtime::state::Record;
use runtime::{Exec, Stdio};
use spec::runtime::{Process, Spec, Status};
use spec::{Error, Result};

use super::{first_id, invalid, load, precondition, read_document, record, status};
use crate::args::{self, Global};
use crate::diagnosis;
use crate::foreground::Foreground;
use crate::log::Log;
use crate::relay::Relay;

/// Runs one more process in a container.
pub fn exec(global: &Global, args: args::Exec, log: &Log) -> Result<u8> {
    let id = first_id("exec", &args.args)?.to_owned();
    let container = load(global, &id)?;
    match status(global, &id)? {
        Status::Stopped => return Err(precondition("cannot exec in a stopped container")),
        Status::Paused if !args.ignore_paused => {
            return Err(precondition("cannot exec in a paused container (use --ignore-paused to override)"));
        }
        _ => {}
    }
    let cgroup = match args.cgroup.as_slice() {
        [] => None,
        arguments => Some(Below::parse(arguments)?),
    };
    let process = process(&args, &record(global, &id)?)?;
    if args.detach && process.terminal && args.console_socket.is_none() {
        return Err(invalid("cannot allocate tty if runc will detach without setting console socket"));
    }
    if (!args.detach || !process.terminal) && args.console_socket.is_some() {
        return Err(invalid("cannot use console socket if runc will not detach or allocate tty"));
    }
    let foreground = if args.detach { None } else { Some(Foreground::take()?) };
    let record = record(global, &id)?;
    let linux = record.spec.as_deref().and_then(|spec| spec.linux.as_ref());
    let owner = linux.and_then(super::namespace_root).filter(|_| foreground.is_some() && !process.terminal);
    let (relay, stdio) = match owner {
        Some((uid, gid)) => {
            let (relay, stdio) = Relay::open(uid, gid)?;
            (Some(relay), stdio)
        }
        None => (None, Stdio::default()),
    };
    let unfilled = Spec::default();
    if let Ok(plan) = plan_exec(record.spec.as_deref().unwrap_or(&unfilled), &process) {
        diagnosis::before(log, &plan);
    }
    let exec = Exec {
        stdio,
        keep_line_ends: foreground.is_some(),
        console_socket: args.console_socket.as_deref(),
        pid_file: args.pid_file.as_deref(),
        preserve_fds: args.preserve_fds,
        ignore_paused: args.ignore_paused,
        cgroup,
        ..Exec::new(&container, process)
    };
    let started = exec.run()?;
    diagnosis::joined(log, started.pid);
    send_pidfd(args.pidfd_socket.as_deref(), started.pidfd.as_fd())?;
    match foreground {
        Some(foreground) => foreground.wait(started.pid, started.console, relay),
        None => Ok(0),
    }
}

/// The process of `--process`, or the container's own with what the flags change.
fn process(args: &args::Exec, record: &Record) -> Result<Process> {
    if let Some(path) = &args.process {
        let text = read_document(path)?;
        return Process::from_slice(&text).map_err(|error| invalid(format!("{}: {error}", path.display())));
    }
    let mut process = bundle_process(record)?;
    if args.args.len() < 2 {
        return Err(invalid("exec args cannot be empty"));
    }
    process.args = args.args[1..].to_vec();
    process.terminal = args.tty;
    process.no_new_privileges |= args.no_new_privs;
    process.env.extend(args.env.iter().cloned());
    set(&mut process.cwd, args.cwd.as_ref());
    set(&mut process.apparmor_profile, args.apparmor.as_ref());
    set(&mut process.selinux_label, args.process_label.as_ref());
    add_capabilities(&mut process, &args.cap);
    if let Some(user) = &args.user {
        (process.user.uid, process.user.gid) = parse_user(user, process.user.gid)?;
    }
    for &gid in &args.additional_gids {
        let gid = u32::try_from(gid)
            .map_err(|_| invalid(format!("additional-gids must be a positive number {gid}")))?;
        process.user.additional_gids.push(gid);
    }
    Ok(process)
}

/// What the container's own process was made from: the bundle's document as it is now, as runc reads it.
fn bundle_process(record: &Record) -> Result<Process> {
    let path = Path::new(record.bundle()).join("config.json");
    let text = read_document(&path)?;
    let spec = Spec::from_slice(&text).map_err(|error| invalid(format!("{}: {error}", path.display())))?;
    spec.process.ok_or_else(|| invalid("process property must not be empty"))
}

fn set(target: &mut String, value: Option<&String>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        target.clone_from(value);
    }
}

fn add_capabilities(process: &mut Process, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let capabilities = process.capabilities.get_or_insert_default();
    let ambient = !capabilities.inheritable.is_empty();
    for name in names {
        capabilities.bounding.push(name.clone());
        capabilities.effective.push(name.clone());
        capabilities.permitted.push(name.clone());
        if ambient {
            capabilities.ambient.push(name.clone());
        }
    }
}

/// `uid[:gid]`, digits only: anything else (a sign, a name, too large a number) is refused rather than guessed at.
fn parse_user(text: &str, gid: u32) -> Result<(u32, u32)> {
    let number = |what: &str, digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse::<u32>().ok().filter(|&number| is_number && number != u32::MAX);
        number.ok_or_else(|| invalid(format!("bad {what}: {digits:?}")))
    };
    match text.split_once(':') {
        Some((user, group)) => Ok((number("uid", user)?, number("gid", group)?)),
        None => Ok((number("uid", text)?, gid)),
    }
}

/// Sends a process descriptor to whoever listens on `socket`.
pub fn send_pidfd(socket: Option<&Path>, pidfd: BorrowedFd<'_>) -> Result<()> {
    let Some(path) = socket else { return Ok(()) };
    let send = |socket: std::os::fd::OwnedFd| sys::socket::send(socket.as_fd(), b"pidfd", &[pidfd]);
    let sent = sys::socket::connect(path).and_then(send);
    sent.map_err(|error| Error::internal(format!("failed to send pidfd to {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers_and_nothing_else() {
        assert_eq!(parse_user("7", 5).unwrap(), (7, 5));
        assert_eq!(parse_user("7:8", 5).unwrap(), (7, 8));
        for text in ["", "-1", "+1", "7:", ":8", "root", "4294967295", "4294967296", "1:2:3", " 1"] {
            assert!(parse_user(text, 5).is_err(), "{text:?}");
        }
    }
}
