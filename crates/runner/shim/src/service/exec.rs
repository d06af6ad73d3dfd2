//! Exec: a further process is described first and started later.

use api::containerd::events::TaskExecAdded;
use api::containerd::task::v3::ExecProcessRequest;
use spec::error::{Error, Kind};

use super::{Parked, decode, empty, no_process};
use crate::driver::Call;
use crate::process::{Exit, Freeze, Phase, Process, Streams};
use crate::serve::{Doing, ReplyTo, Shim};

/// The most processes of one container that clients may describe.
const MAX_EXECS: usize = 4096;

impl Shim {
    /// Takes the description of a process.
    pub(super) fn exec(&mut self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let request: ExecProcessRequest = decode(payload)?;
        spec::name::check_identifier(&request.exec_id).map_err(Error::invalid)?;
        let container = self.container(&request.id)?;
        if container.execs.contains_key(&request.exec_id) {
            return Err(Error::already_exists(format_args!("id {}", request.exec_id)));
        }
        // One whose end is still held counts as running, as in Go's shim; the start is refused.
        if container.init.exit().is_some() {
            return Err(Error::failed_precondition("cannot exec in a stopped state"));
        }
        if container.freeze != Freeze::Thawed {
            return Err(Error::failed_precondition("cannot exec in a paused state"));
        }
        if container.execs.len() >= MAX_EXECS {
            return Err(Error::worded(Kind::ResourceExhausted, "execs of one container"));
        }
        let document = request.spec.map(|any| any.value).unwrap_or_default();
        let document = with_terminal(&document, request.terminal)?;
        let streams = Streams {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        container.execs.insert(request.exec_id.clone(), Process::new(streams, document));
        self.publish(
            "/tasks/exec-added",
            &TaskExecAdded { container_id: request.id, exec_id: request.exec_id },
        );
        Ok(empty())
    }

    /// Runs a process that was described.
    pub(super) fn start_exec(&mut self, reply: ReplyTo, id: &str, exec_id: &str) -> Parked {
        let container = self.container(id)?;
        if container.init.exit().is_some() || container.held_exit.is_some() {
            let text = format!("container {id} init process is not running");
            return Err(Error::failed_precondition(text));
        }
        let io_owner = container.io_owner;
        let process = container.execs.get_mut(exec_id).ok_or_else(|| no_process(exec_id))?;
        let (streams, document) = (process.streams.clone(), std::mem::take(&mut process.document));
        let mut opened = self.open_files(exec_id, &streams, io_owner)?;
        let stdio = opened.child.take();
        let call = Call::Exec { exec_id, process: &document, stdio, until: reply.until };
        self.run(id, Doing::Exec(reply, exec_id.into(), Box::new(opened)), call);
        Ok(())
    }

    /// An exec that could not be started: it is over, and can only be deleted.
    pub(super) fn exec_failed(&mut self, id: &str, exec_id: &str) {
        let exit = Exit::now(255);
        let Some(process) = self.containers.get_mut(id).and_then(|known| known.execs.get_mut(exec_id)) else {
            return;
        };
        process.phase = Phase::Stopped(exit);
        let waits = std::mem::take(&mut process.waits);
        self.answer_waits(waits, exit);
        // A client may have asked for its delete while it was being started, and init may have ended.
        self.finish_drained(id, exec_id);
        self.release_held(id, false);
    }
}

/// The process document with its `terminal` as the request has it, which counts.
fn with_terminal(json: &[u8], terminal: bool) -> Result<Vec<u8>, Error> {
    let invalid = |error: serde_json::Error| Error::invalid(format_args!("process document: {error}"));
    let mut process = spec::runtime::Process::from_slice(json).map_err(invalid)?;
    if process.terminal == terminal {
        return Ok(json.to_vec());
    }
    process.terminal = terminal;
    serde_json::to_vec(&process).map_err(invalid)
}
