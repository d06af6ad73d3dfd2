//! The commands, one file each but for the smallest.

mod create;
mod delete;
mod events;
mod exec;
mod kill;
mod list;
mod ps;
mod spec;
mod update;

use std::path::{Path, PathBuf};

use ::spec::runtime::Status;
use ::spec::{Error, Kind, Result};
use runtime::Container;
use runtime::state::{Record, RecordError};

use crate::args::{Command, Global};
use crate::log::Log;
use crate::output;

/// Runs `command`; its exit status.
pub fn run(global: &Global, command: Command, log: &Log) -> Result<u8> {
    match command {
        Command::Create(args) => create::create(global, &args, log),
        Command::Run(args) => create::run(global, &args, log),
        Command::Start(args) => start(global, &args.args),
        Command::Exec(args) => exec::exec(global, args, log),
        Command::Kill(args) => kill::kill(global, &args),
        Command::Delete(args) => delete::delete(global, &args),
        Command::State(args) => list::state(global, &args.args),
        Command::List(args) => list::list(global, &args),
        Command::Ps(args) => ps::ps(global, &args),
        Command::Pause(args) => pause(global, &args.args),
        Command::Resume(args) => resume(global, &args.args),
        Command::Update(args) => update::update(global, &args, log),
        Command::Events(args) => events::events(global, &args),
        Command::Spec(args) => spec::spec(&args),
        Command::Checkpoint(_) => Err(unsupported("checkpoint")),
        Command::Restore(_) => Err(unsupported("restore")),
        Command::Features(args) => {
            exactly("features", &args.args, 0)?;
            let mut text = output::pretty(&runtime::features::features(), "    ")?;
            text.push(b'\n');
            output::bytes(&text).map(|()| 0)
        }
    }
}

fn start(global: &Global, args: &[String]) -> Result<u8> {
    let id = one_id("start", args)?;
    let mut container = load(global, id)?;
    match status(global, id)? {
        Status::Created => {}
        Status::Stopped => return Err(precondition("cannot start a container that has stopped")),
        Status::Running => return Err(precondition("cannot start an already running container")),
        other => return Err(precondition(format!("cannot start a container in the {other} state"))),
    }
    container.start()?;
    Ok(0)
}

fn pause(global: &Global, args: &[String]) -> Result<u8> {
    let id = one_id("pause", args)?;
    let container = load(global, id)?;
    match status(global, id)? {
        Status::Running | Status::Created => container.pause()?,
        _ => return Err(precondition("container not running")),
    }
    Ok(0)
}

fn resume(global: &Global, args: &[String]) -> Result<u8> {
    let id = one_id("resume", args)?;
    let container = load(global, id)?;
    match status(global, id)? {
        Status::Paused => container.resume()?,
        _ => return Err(precondition("container not paused")),
    }
    Ok(0)
}

/// The state root: the flag's, or the place for this user.
pub(crate) fn root(global: &Global) -> Result<PathBuf> {
    if let Some(root) = &global.root {
        let root = std::path::absolute(root).map_err(|error| Error::internal(crate::log::words(&error)))?;
        if root == Path::new("/") {
            return Err(invalid("Option --root argument should not be set to /"));
        }
        return Ok(root);
    }
    match runtime_dir() {
        Some(own) => make_private(&own.join("runc")),
        None => Ok(PathBuf::from("/run/runc")),
    }
}

/// The user's own runtime directory. Root of the host has none; root of a user namespace has the one of the user who
/// made that, unless it is a login of its own.
fn runtime_dir() -> Option<PathBuf> {
    let dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty())?;
    let is_host_root =
        rustix::process::geteuid().is_root() && sys::namespace::is_initial_user().unwrap_or(true);
    let is_login = || {
        rustix::process::geteuid().is_root() && std::env::var_os("USER").is_some_and(|user| user == "root")
    };
    (!is_host_root && !is_login()).then(|| dir.into())
}

/// Makes the state root of a user. The sticky bit keeps it from being pruned, as the XDG specification says.
fn make_private(dir: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let made = std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o1700)));
    made.map_err(|error| {
        io_error("the path in $XDG_RUNTIME_DIR must be writable by the user: mkdir", dir, &error)
    })?;
    Ok(dir.to_owned())
}

fn unsupported(command: &str) -> Error {
    Error::new(Kind::Unimplemented, format!("cannot {command} containers: not supported by this runtime"))
}

/// The host's user and group that are root in the user namespace of a document, if it has one with mappings.
fn namespace_root(linux: &::spec::runtime::Linux) -> Option<(u32, u32)> {
    let of = |mappings: &[::spec::runtime::IdMapping]| {
        mappings.iter().find(|map| map.container_id == 0).map(|map| map.host_id)
    };
    Some((of(&linux.uid_mappings)?, of(&linux.gid_mappings)?))
}

/// The only argument, a container id.
fn one_id<'a>(command: &str, args: &'a [String]) -> Result<&'a str> {
    exactly(command, args, 1)?;
    check_id(&args[0])
}

/// The first argument, a container id.
fn first_id<'a>(command: &str, args: &'a [String]) -> Result<&'a str> {
    match args.first() {
        Some(id) => check_id(id),
        None => Err(usage(command, "a minimum of 1")),
    }
}

fn exactly(command: &str, args: &[String], count: usize) -> Result<()> {
    if args.len() == count { Ok(()) } else { Err(usage(command, &format!("exactly {count}"))) }
}

fn usage(command: &str, wanted: &str) -> Error {
    println!("Incorrect Usage.\n");
    invalid(format!("runc: {command:?} requires {wanted} argument(s)"))
}

/// An id is a file name of letters, digits and `_+-.`: it is joined to the state root, and removed with all below.
fn check_id(id: &str) -> Result<&str> {
    const LONGEST: usize = 1024;
    if id.is_empty() {
        return Err(invalid("container id cannot be empty"));
    }
    let is_name = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte));
    if is_name && id != "." && id != ".." && id.len() <= LONGEST {
        Ok(id)
    } else {
        Err(invalid("invalid container ID format"))
    }
}

fn load(global: &Global, id: &str) -> Result<Container> {
    // Asked first, for runc's own words: shims match them.
    record(global, id)?;
    Ok(Container::load(&root(global)?, id)?)
}

fn record(global: &Global, id: &str) -> Result<Record> {
    Record::load(&root(global)?.join(id)).map_err(|error| match error {
        RecordError::NotFound => Error::new(Kind::NotFound, "container does not exist"),
        other => other.into(),
    })
}

fn status(global: &Global, id: &str) -> Result<Status> {
    Ok(record(global, id)?.status(&root(global)?.join(id)))
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(Kind::InvalidArgument, text)
}

fn precondition(text: impl Into<String>) -> Error {
    Error::new(Kind::FailedPrecondition, text)
}

fn io_error(what: &str, path: &Path, error: &std::io::Error) -> Error {
    let kind = Kind::from_errno(error.raw_os_error().unwrap_or(0));
    Error::new(kind, format!("{what} {}: {}", path.display(), crate::log::words(error)))
}

/// The text of a file that a user names, at most as long as a document may be.
fn read_document(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut text = Vec::new();
    let limit = ::spec::runtime::MAX_CONFIG_BYTES;
    let read = std::fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut text));
    read.map_err(|error| io_error("open", path, &error))?;
    if text.len() as u64 > limit {
        Err(invalid(format!("{} is too large", path.display())))
    } else {
        Ok(text)
    }
}
