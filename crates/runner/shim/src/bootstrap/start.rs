//! `start`: makes the socket, starts the process that serves it or becomes that process, answers with the address.
//!
//! Invariant: the socket listens before the daemon is answered, so its first connect(2) succeeds.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use std::time::Duration;

use api::berth::shim::v1::{ProbeRequest, ProbeResponse};
use spec::error::{Error, Kind};

use super::params::{Environment, Params, Reply, Serves};
use super::socket::{self, Socket};
use super::{address, group};
use crate::args::Args;
use crate::log;
use crate::service::logs;
use crate::ttrpc::Client;

/// How long a shim that serves already may take to say what it can do.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// A shim that serves, or is about to.
#[derive(Debug)]
pub struct Started {
    /// What the daemon is to be told.
    pub reply: Vec<u8>,
    /// The socket, when this process is to serve it once the daemon has been told.
    pub here: Option<UnixListener>,
    /// Where events go.
    pub events: String,
}

/// Starts a shim for the bundle that is the working directory, or finds the one of its group.
///
/// # Errors
/// There is no bundle, no socket or no process; nothing is left of the attempt.
pub fn start(args: &Args, input: &mut dyn Read) -> Result<Started, Error> {
    let params = Params::read(args, Environment::current(), input)?;
    let bundle = std::env::current_dir().map_err(|error| Error::internal(format!("getwd: {error}")))?;
    let group = group::group(&bundle, &params.id)?;
    let address = address(&params.socket_dir, &params.grpc_address, &params.namespace, &group);
    if params.names_socket_dir {
        link_socket_dir(&bundle, &params.socket_dir)?;
    }
    let path = socket::path_of(&address);
    let mut writes_logs = true;
    let mut here = None;
    // Before the socket is made: whoever cleans up after a start that was killed finds it by this.
    write(&bundle.join("address"), &address)?;
    if let Socket::New(listener) = socket::listen(path)? {
        here = serve(&params, listener, &bundle).inspect_err(|_| {
            let _ = fs::remove_file(path);
        })?;
    } else {
        // It may be of an older program than this one.
        writes_logs = params.reply == Reply::Binary && probe(path, &params.namespace);
    }
    let serves = if here.is_some() { Serves::InPlace } else { Serves::Apart };
    let reply = params.reply.encode(&address, writes_logs, serves);
    Ok(Started { reply, here, events: params.ttrpc_address })
}

/// Sees to a process that serves `listener`; it is this one if that is given back.
fn serve(params: &Params, listener: UnixListener, bundle: &Path) -> Result<Option<UnixListener>, Error> {
    // A library path that is still to be cleaned takes a new process.
    let clean = std::env::var_os(LIBRARY_PATH) == library_path().map(OsString::from);
    if params.may_stay && clean && sys::exe::is_sealed().unwrap_or(false) {
        share_no_core()?;
        let own = std::process::id();
        settle(params, own)?;
        record_pid(bundle, own)?;
        return Ok(Some(listener));
    }
    let mut child = spawn(params, listener)?;
    let settled = settle(params, child.id()).and_then(|()| record_pid(bundle, child.id()));
    settled.inspect_err(|_| {
        let _ = child.kill();
        let _ = child.wait();
    })?;
    Ok(None)
}

/// Whether the shim that serves at `path` writes logs. One that does not answer in time counts as one that does not.
fn probe(path: &Path, namespace: &str) -> bool {
    Client::connect(path, namespace, PROBE_LIMIT)
        .and_then(|mut client| client.call(logs::SERVICE, "Probe", &ProbeRequest::default()))
        .map(|ProbeResponse {}| ())
        .is_ok()
}

/// Leaves the way to the sockets in the bundle, as containerd 2.3's shim does.
fn link_socket_dir(bundle: &Path, dir: &Path) -> Result<(), Error> {
    let link = bundle.join("s");
    // An older link may point elsewhere; its absence is the usual case.
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(dir, &link)
        .map_err(|error| Error::internal(format!("failed to write socket-dir: {error}")))
}

/// Starts the serving process with the socket as its standard input.
///
/// The program is executed through a sealed view of itself, so that nothing a container reaches by the shim's
/// `/proc/PID/exe` can be written (CVE-2019-5736).
fn spawn(params: &Params, listener: UnixListener) -> Result<Child, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::internal(format!("cannot start the shim: {error}"));
    share_no_core()?;
    // As the daemon called it: a program that is sealed already has no path.
    let own_name = std::env::args_os().next().unwrap_or_default();
    let program = sys::exe::open_sealed().map_err(|error| failed(&error))?;
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    command
        .arg0(own_name)
        .args(["-namespace", &params.namespace, "-id", &params.id, "-address", &params.grpc_address])
        .args(params.debug.then_some("-debug"))
        .env("TTRPC_ADDRESS", &params.ttrpc_address)
        // systemd's word to the daemon; a runtime that saw it would report the container's readiness there.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match library_path() {
        Some(path) => command.env(LIBRARY_PATH, path),
        None => command.env_remove(LIBRARY_PATH),
    };
    command.spawn().map_err(|error| failed(&error))
}

/// Where it is asked for, has the serving process and its containers, which inherit it, share a core with nobody else.
fn share_no_core() -> Result<(), Error> {
    if std::env::var_os("SCHED_CORE").is_some_and(|value| !value.is_empty()) {
        sys::core_scheduling::isolate()
            .map_err(|error| Error::internal(format!("cannot start the shim: {error}")))?;
    }
    Ok(())
}

/// Where the C library looks for libraries.
pub const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// A [`LIBRARY_PATH`] without what is not there and, above all, without its empty parts: they mean the working directory,
/// which is the bundle. containerd's opt plugin leaves one.
pub fn clean_library_path(path: &str) -> Option<String> {
    let parts: Vec<&str> =
        path.split(':').filter(|part| Path::new(part).is_absolute() && Path::new(part).is_dir()).collect();
    (!parts.is_empty()).then(|| parts.join(":"))
}

/// This process's, cleaned.
fn library_path() -> Option<String> {
    clean_library_path(&std::env::var(LIBRARY_PATH).ok()?)
}

/// Gives the new process its cgroup and its place in the queue of the out-of-memory killer.
fn settle(params: &Params, pid: u32) -> Result<(), Error> {
    if !params.options.shim_cgroup.is_empty() {
        join_cgroup(&params.options.shim_cgroup, pid)?;
    }
    // The daemon's: it is the parent of the process that runs here.
    let score = rustix::process::getppid()
        .and_then(|parent| {
            fs::read_to_string(format!("/proc/{}/oom_score_adj", parent.as_raw_nonzero())).ok()
        })
        .and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(score) = score {
        let wanted = (score + 1).min(1000).to_string();
        // Lowering needs a capability that a daemon in a container lacks; the shim then keeps what it inherited.
        if let Err(error) = fs::write(format!("/proc/{pid}/oom_score_adj"), wanted) {
            log::warn(format_args!("cannot set the shim's oom_score_adj: {error}"));
        }
    }
    Ok(())
}

/// Moves `pid` into the existing cgroup `path`, in every hierarchy that has it.
fn join_cgroup(path: &str, pid: u32) -> Result<(), Error> {
    let invalid = || Error::new(Kind::InvalidArgument, format!("failed to join cgroup {path}"));
    if path.split('/').any(|word| word == "..") {
        return Err(invalid());
    }
    let relative = path.trim_start_matches('/');
    let root = Path::new("/sys/fs/cgroup");
    let mut targets = vec![root.join(relative)];
    if let Ok(hierarchies) = fs::read_dir(root) {
        targets.extend(hierarchies.flatten().map(|entry| entry.path().join(relative)));
    }
    let joined = targets.iter().filter(|dir| fs::write(dir.join("cgroup.procs"), pid.to_string()).is_ok());
    if joined.count() == 0 {
        return Err(Error::not_found(format_args!("failed to load cgroup {path}")));
    }
    Ok(())
}

fn record_pid(bundle: &Path, pid: u32) -> Result<(), Error> {
    write(&bundle.join("shim.pid"), &pid.to_string())
}

/// Writes a small file of the bundle in one step: readers see the whole of it or the one before.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let draft = path.with_extension("new");
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, path))
        .map_err(|error| Error::internal(format!("cannot write {}: {error}", path.display())))
}
