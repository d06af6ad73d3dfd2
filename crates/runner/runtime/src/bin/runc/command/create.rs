//! `runc create` and `runc run`.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::{Create, Created, Stdio};
use spec::runtime::Spec;
use spec::{Error, Result};

use super::{invalid, io_error, one_id, read_document, root};
use crate::args::{self, Bundle, Global};
use crate::foreground::Foreground;
use crate::log::Log;

/// How long the removal of a container may take.
const REMOVAL: Duration = Duration::from_secs(10);

/// Makes a container that waits for start.
pub fn create(global: &Global, args: &args::Create) -> Result<u8> {
    let id = one_id("create", &args.bundle.args)?;
    let bundle = OpenBundle::open(global, &args.bundle)?;
    if bundle.has_terminal() && args.bundle.console_socket.is_none() {
        return Err(invalid("cannot allocate tty if runc will detach without setting console socket"));
    }
    if !bundle.has_terminal() && args.bundle.console_socket.is_some() {
        return Err(invalid("cannot use console socket if runc will not detach or allocate tty"));
    }
    let created = bundle.create(&root(global)?, id, &args.bundle, args.bundle.console_socket.as_deref())?;
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
    let mut created = bundle.create(&root(global)?, id, &args.bundle, socket)?;
    let started = send_pidfd(args.bundle.pidfd_socket.as_deref(), &created)
        .and_then(|()| created.container.start().map_err(Error::from));
    if let Err(error) = started {
        let _ = created.container.delete(true, REMOVAL);
        return Err(error);
    }
    let Some(foreground) = foreground else { return Ok(0) };
    let console = created.console.take();
    let status = foreground.wait(created.pid, console);
    if !args.keep
        && let Err(error) = created.container.delete(true, REMOVAL)
    {
        log.warn(&Error::from(error).to_string());
    }
    status
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

    fn has_terminal(&self) -> bool {
        self.spec.process.as_ref().is_some_and(|process| process.terminal)
    }

    fn create(self, root: &Path, id: &str, args: &Bundle, console_socket: Option<&Path>) -> Result<Created> {
        for number in 3..3 + self.preserve_fds {
            if !Path::new(&format!("/proc/self/fd/{number}")).exists() {
                let (index, count) = (number - 3, self.preserve_fds);
                return Err(invalid(format!("unable to stat preserved-fd {index} (of {count})")));
            }
        }
        let created = Create {
            root,
            id,
            bundle: &self.path,
            spec: Some(self.spec),
            stdio: Stdio::default(),
            console_socket,
            pid_file: args.pid_file.as_deref(),
            no_pivot: args.no_pivot,
            no_new_keyring: args.no_new_keyring,
            systemd_cgroup: self.systemd_cgroup,
            preserve_fds: self.preserve_fds,
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
