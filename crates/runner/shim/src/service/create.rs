//! Create and Start.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use api::containerd::task::v3::{CreateTaskRequest, StartRequest};
use serde::Deserialize;
use spec::error::{Error, Kind};

use super::{Parked, decode, no_process};
use crate::driver::{self, Call};
use crate::process::{Container, Freeze, Phase, Process, Streams};
use crate::serve::{Doing, ReplyTo, Shim};
use crate::stdio::{self, Opened, Owner};
use crate::{options, rootfs};

/// What a create keeps until its container is there.
#[derive(Debug)]
pub struct Creating {
    /// The request, for the event.
    pub request: CreateTaskRequest,
    /// The shim's ends of the files.
    pub opened: Opened,
}

/// The only parts of `config.json` that the shim itself looks at.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Namespaced {
    linux: Option<Namespaces>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Namespaces {
    namespaces: Option<Vec<Namespace>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Namespace {
    r#type: String,
    path: Option<String>,
}

/// Whether the container has no pid namespace of its own.
fn shares_pid(bundle: &Path) -> Result<bool, Error> {
    let mut json = Vec::new();
    File::open(bundle.join("config.json"))
        .and_then(|file| file.take(spec::runtime::MAX_CONFIG_BYTES).read_to_end(&mut json))
        .map_err(|error| {
            Error::new(Kind::Unknown, format!("open {}/config.json: {error}", bundle.display()))
        })?;
    let document: Namespaced = spec::json::first_from_slice(&json)
        .map_err(|error| Error::new(Kind::InvalidArgument, format!("parse config.json: {error}")))?;
    let namespaces = document.linux.unwrap_or_default().namespaces.unwrap_or_default();
    let own = namespaces.iter().any(|ns| ns.r#type == "pid" && ns.path.as_deref().is_none_or(str::is_empty));
    Ok(!own)
}

impl Shim {
    /// Mounts the root, opens the files, and has the runtime make the container.
    pub(super) fn create(&mut self, reply: ReplyTo, payload: &[u8]) -> Parked {
        let request: CreateTaskRequest = decode(payload)?;
        let id = request.id.clone();
        spec::name::check_identifier(&id).map_err(Error::invalid)?;
        if self.containers.contains_key(&id) {
            return Err(Error::already_exists(format_args!("container {id}")));
        }
        if !request.checkpoint.is_empty() {
            return Err(Error::unimplemented("restore from a checkpoint is not supported by this shim"));
        }
        let options = options::decode(request.options.as_ref())?;
        let bundle = PathBuf::from(&request.bundle);
        if !bundle.is_absolute() {
            return Err(Error::invalid(format_args!("bundle path {:?}", request.bundle)));
        }
        let shares_pid = shares_pid(&bundle)?;
        options::store(&bundle, &options)?;
        let streams = streams(&request);
        let io_owner = (options.io_uid, options.io_gid);
        let mut opened = self.open_files(&id, &streams, io_owner)?;
        let child = opened.child.take();
        let mounted = rootfs::mount(&request.rootfs, &bundle.join("rootfs"));
        if let Err(error) = mounted {
            abandon(opened);
            return Err(error.into());
        }
        let container = Container {
            serial: self.new_id(),
            driver: driver::open(&options, &self.namespace, &id, &bundle),
            bundle,
            init: Process::new(streams, Vec::new()),
            execs: BTreeMap::new(),
            shares_pid,
            freeze: Freeze::Thawed,
            io_owner,
            ready: false,
            busy: 0,
            queue: VecDeque::new(),
            held_exit: None,
            cgroup: None,
            oom: None,
        };
        self.containers.insert(id.clone(), container);
        self.run(
            &id,
            Doing::Create(reply, Box::new(Creating { request, opened })),
            Call::Create { stdio: child },
        );
        Ok(())
    }

    /// The files of a process; with a terminal they are opened when the terminal is there.
    pub(super) fn open_files(
        &self,
        id: &str,
        streams: &Streams,
        (uid, gid): (u32, u32),
    ) -> Result<Opened, Error> {
        if streams.terminal {
            return Ok(Opened::default());
        }
        Ok(stdio::open(streams, Owner { id, namespace: &self.namespace, uid, gid })?)
    }

    /// Lets init, or an exec, run.
    pub(super) fn start(&mut self, reply: ReplyTo, payload: &[u8]) -> Parked {
        let request: StartRequest = decode(payload)?;
        let is_starting = self.is_starting(&request.id, &request.exec_id);
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id).ok_or_else(|| no_process(&request.exec_id))?;
        match process.phase {
            Phase::Created if is_starting => {
                return Err(Error::failed_precondition("cannot start a process that is being started"));
            }
            Phase::Created => {}
            Phase::Running => return Err(Error::failed_precondition("cannot start a running process")),
            Phase::Stopped(_) => return Err(Error::failed_precondition("cannot start a stopped process")),
        }
        if !request.exec_id.is_empty() {
            return self.start_exec(reply, &request.id, &request.exec_id);
        }
        self.run(&request.id, Doing::Start(reply), Call::Start);
        Ok(())
    }
}

fn streams(request: &CreateTaskRequest) -> Streams {
    Streams {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
    }
}

/// Gives up files whose process never came to be.
pub(super) fn abandon(opened: Opened) {
    if let Some(logger) = opened.logger {
        logger.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_namespace_is_own_only_without_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let check = |json: &str, expected: bool| {
            std::fs::write(dir.path().join("config.json"), json).unwrap();
            assert_eq!(shares_pid(dir.path()).unwrap(), expected, "{json}");
        };
        check(r#"{"linux":{"namespaces":[{"type":"mount"},{"type":"pid"}]}}"#, false);
        check(r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#, true);
        check(r#"{"linux":null}"#, true);
    }
}
