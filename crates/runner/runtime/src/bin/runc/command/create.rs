//! `runc create` and `runc run`.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::{ContainerError, Create, Created, Stdio};
use spec::runtime::Spec;
use spec::{Error, Result};

use super::{invalid, io_error, one_id, read_document, root};
use crate::args::{self, Bundle, Global};
use crate::diagnosis;
use crate::foreground::Foreground;
use crate::log::Log;
use crate::relay::Relay;

/// How long the removal of a container may take.
const REMOVAL: Duration = Duration::from_secs(10);

/// Makes a container that waits for start.
pub fn create(global: &Global, args: &args::Create, log: &Log) -> Result<u8> {
    let id = one_id("create", &args.bundle.args)?;
    let bundle = OpenBundle::open(global, &args.bundle)?;
    if bundle.has_terminal() && args.bundle.console_socket.is_none() {
        return Err(invalid("cannot allocate tty if runc will detach without setting console socket"));
    }
    if !bundle.has_terminal() && args.bundle.console_socket.is_some() {
        return Err(invalid("cannot use console socket if runc will not detach or allocate tty"));
    }
    bundle.diagnose(log);
    let streams = Streams::Inherited(args.bundle.console_socket.as_deref());
    let created = bundle.create(&root(global)?, id, &args.bundle, streams)?;
    diagnosis::created(log, created.pid);
    send_pidfd(args.bundle.pidfd_socket.as_deref(), &created)?;
    Ok(0)
}

/// Makes a container, starts it and, unless detached, stands in for it until it ends.
pub fn run(global: &Global, args: &args::Run, log: &Log) -> Result<u8> {
    let id = one_id("run", &args.bundle.args)?;
    let bundle = OpenBundle::open(global, &args.bundle)?;
    let socket = args.bundle.console_socket.as_deref();
    if args.detach && bundle.has_terminal() && socket.is_none() {
        return Err(invalid("cannot allocate tty if runc will detach without setting console socket"));
    }
    if (!args.detach || !bundle.has_terminal()) && socket.is_some() {
        return Err(invalid("cannot use console socket if runc will not detach or allocate tty"));
    }
    let foreground = if args.detach { None } else { Some(Foreground::take()?) };
    if !args.no_subreaper && !args.detach {
        sys::process::become_subreaper().map_err(|error| Error::internal(error.to_string()))?;
    }
    let (relay, streams) = match &foreground {
        None => (None, Streams::Inherited(socket)),
        Some(_) => Streams::shown(&bundle)?,
    };
    bundle.diagnose(log);
    let mut created = bundle.create(&root(global)?, id, &args.bundle, streams)?;
    diagnosis::created(log, created.pid);
    if let Err(error) = send_pidfd(args.bundle.pidfd_socket.as_deref(), &created) {
        let _ = created.container.delete(true, REMOVAL);
        return Err(error);
    }
    if let Err(error) = created.container.start() {
        let _ = created.container.delete(true, REMOVAL);
        return not_started(error, foreground.is_some());
    }
    let Some(foreground) = foreground else { return Ok(0) };
    let console = created.console.take();
    let status = foreground.wait(created.pid, console, relay);
    if !args.keep
        && let Err(error) = created.container.delete(true, REMOVAL)
    {
        log.warn(&Error::from(error).to_string());
    }
    status
}

/// A program that could not be executed is the container's own failure: runc's init says so in plain words, where the
/// program would have written, and ends with this status.
fn not_started(error: ContainerError, is_shown: bool) -> Result<u8> {
    match error {
        ContainerError::Program(text) if is_shown => {
            eprintln!("{text}");
            Ok(255)
        }
        other => Err(other.into()),
    }
}

/// What a container's standard streams are.
enum Streams<'a> {
    /// The caller's, or a terminal whose master goes to this socket.
    Inherited(Option<&'a Path>),
    /// A terminal that is shown on the caller's, or the caller's streams.
    Shown,
    /// Pipes that are copied to the caller's.
    Copied(Stdio),
}

impl Streams<'_> {
    /// The streams of a container in the foreground. In a user namespace pipes are needed: the caller's files belong to
    /// nobody there.
    fn shown(bundle: &OpenBundle) -> Result<(Option<Relay>, Self)> {
        match bundle.spec.linux.as_ref().and_then(super::namespace_root) {
            Some((uid, gid)) if !bundle.has_terminal() => {
                let (relay, stdio) = Relay::open(uid, gid)?;
                Ok((Some(relay), Self::Copied(stdio)))
            }
            _ => Ok((None, Self::Shown)),
        }
    }
}

/// A bundle directory and the document in it.
struct OpenBundle {
    path: PathBuf,
    spec: Spec,
    preserve_fds: u32,
    systemd_cgroup: bool,
}

impl OpenBundle {
    fn open(global: &Global, args: &Bundle) -> Result<Self> {
        let path =
            args.bundle.clone().filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| ".".into());
        let path = std::fs::canonicalize(&path).map_err(|error| io_error("chdir", &path, &error))?;
        let config = path.join("config.json");
        if !config.exists() {
            return Err(Error::new(spec::Kind::NotFound, "JSON specification file config.json not found"));
        }
        let text = read_document(&config)?;
        let mut spec =
            Spec::from_slice(&text).map_err(|error| invalid(format!("{}: {error}", config.display())))?;
        let passed = socket_activation(&mut spec);
        let preserve_fds = args.preserve_fds + passed;
        Ok(Self { path, spec, preserve_fds, systemd_cgroup: global.systemd_cgroup })
    }

    /// Logs what is known before anything is made; a document that is refused is [`Self::create`]'s to report.
    fn diagnose(&self, log: &Log) {
        if let Ok(plan) = runtime::create::plan::plan(&self.spec, &self.path) {
            diagnosis::before(log, &plan.process);
        }
    }

    fn has_terminal(&self) -> bool {
        self.spec.process.as_ref().is_some_and(|process| process.terminal)
    }

    fn create(self, root: &Path, id: &str, args: &Bundle, streams: Streams<'_>) -> Result<Created> {
        for number in 3..3 + self.preserve_fds {
            if !Path::new(&format!("/proc/self/fd/{number}")).exists() {
                let (index, count) = (number - 3, self.preserve_fds);
                return Err(invalid(format!("unable to stat preserved-fd {index} (of {count})")));
            }
        }
        let (stdio, console_socket, keep_line_ends) = match streams {
            Streams::Inherited(socket) => (Stdio::default(), socket, false),
            Streams::Shown => (Stdio::default(), None, true),
            Streams::Copied(stdio) => (stdio, None, false),
        };
        let created = Create {
            root,
            id,
            bundle: &self.path,
            spec: Some(self.spec),
            stdio,
            console_socket,
            pid_file: args.pid_file.as_deref(),
            no_pivot: args.no_pivot,
            no_new_keyring: args.no_new_keyring,
            systemd_cgroup: self.systemd_cgroup,
            preserve_fds: self.preserve_fds,
            keep_line_ends,
        };
        Ok(created.run()?)
    }
}

/// Sockets that a service manager opened for us are the container's: how many there are. `sd_listen_fds(3)`.
fn socket_activation(spec: &mut Spec) -> u32 {
    let variable = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    match (variable("LISTEN_PID"), variable("LISTEN_FDS")) {
        (Some(pid), Some(count @ 1..=1024)) if pid == std::process::id() => {
            let process = spec.process_mut();
            process.env.push(format!("LISTEN_FDS={count}"));
            process.env.push("LISTEN_PID=1".into());
            count
        }
        _ => 0,
    }
}

fn send_pidfd(socket: Option<&Path>, created: &Created) -> Result<()> {
    super::exec::send_pidfd(socket, created.pidfd.as_fd())
}
