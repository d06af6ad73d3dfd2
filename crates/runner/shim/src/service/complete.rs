//! The second half of every verb: the driver is done.

use api::containerd::events::{TaskCreate, TaskExecStarted, TaskIo, TaskPaused, TaskResumed, TaskStart};
use api::containerd::runc::v1::ProcessDetails;
use api::containerd::task::v3::{CreateTaskResponse, PidsResponse, StartResponse};
use api::containerd::v1::types::ProcessInfo;
use api::{Message, encode_any};
use spec::error::{Error, HasKind, Kind};

use super::create::{Creating, abandon};
use super::{empty, no_process, runtime_failed};
use crate::driver::{Call, DriverError, Outcome};
use crate::process::{Freeze, Phase};
use crate::serve::{Doing, ReplyTo, Shim};
use crate::stdio::{self, Opened, Owner};
use crate::{cgroup, log, rootfs};

impl Shim {
    /// Goes on with `doing` on container `id` now that the driver has `result`.
    pub(crate) fn complete(&mut self, id: &str, doing: Doing, result: Result<Outcome, DriverError>) {
        match doing {
            Doing::Create(reply, creating) => self.created(id, reply, *creating, result),
            Doing::Start(reply) => self.started(id, reply, result),
            Doing::Exec(reply, exec_id, opened) => self.exec_started(id, (&exec_id, *opened), reply, result),
            Doing::Undo => {
                if let Err(error) = result {
                    log::warn(format_args!("container {id}: {error}"));
                }
                self.forget(id);
            }
            Doing::Delete(reply) => self.deleted(id, reply, result.map(drop)),
            Doing::Kill(reply) => {
                let result = result.map(|_| empty()).map_err(kill_failed);
                self.answer(reply, result);
            }
            Doing::Pause(reply) => self.frozen(id, reply, result.map(drop)),
            Doing::Resume(reply) => self.thawed(id, reply, result.map(drop)),
            Doing::Update(reply) => {
                let result = result.map(|_| empty());
                self.answer(
                    reply,
                    result.map_err(|error| runtime_failed("OCI runtime update failed", error)),
                );
            }
            Doing::Pids(reply) => self.listed(id, reply, result),
        }
    }

    fn created(
        &mut self,
        id: &str,
        reply: ReplyTo,
        creating: Creating,
        result: Result<Outcome, DriverError>,
    ) {
        let Creating { request, opened } = creating;
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => {
                abandon(opened);
                self.forget(id);
                return self.answer(reply, Err(runtime_failed("OCI runtime create failed", error)));
            }
        };
        let Some(container) = self.containers.get_mut(id) else { return };
        container.ready = true;
        container.init.pid = outcome.pid;
        container.cgroup = cgroup::of(outcome.pid);
        self.attach(id, "", opened);
        if let Err(error) = self.attach_terminal(id, "", outcome.console) {
            // The container is there but deaf and dumb: as good as not made.
            return self.undo_create(id, reply, error);
        }
        let event = TaskCreate {
            container_id: id.into(),
            bundle: request.bundle,
            rootfs: request.rootfs,
            io: Some(TaskIo {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
            }),
            checkpoint: String::new(),
            pid: outcome.pid,
        };
        self.publish("/tasks/create", &event);
        self.watch_oom(id);
        self.answer(reply, Ok(CreateTaskResponse { pid: outcome.pid }.encode_to_vec()));
    }

    /// Answers for a verb whose container has been deleted meanwhile.
    pub(crate) fn outlived(&mut self, doing: Doing) {
        let reply = match doing {
            Doing::Create(reply, creating) => {
                abandon(creating.opened);
                reply
            }
            Doing::Exec(reply, _, opened) => {
                abandon(*opened);
                reply
            }
            Doing::Undo => return,
            Doing::Start(reply) | Doing::Delete(reply) | Doing::Kill(reply) | Doing::Pause(reply) => reply,
            Doing::Resume(reply) | Doing::Update(reply) | Doing::Pids(reply) => reply,
        };
        self.answer(reply, Err(Error::not_found("container not created")));
    }

    /// Takes back a container that the client never heard of.
    fn undo_create(&mut self, id: &str, reply: ReplyTo, error: Error) {
        self.answer(reply, Err(error));
        if let Some(container) = self.containers.get_mut(id) {
            container.ready = false;
        }
        self.run(id, Doing::Undo, Call::Delete { force: true });
    }

    /// Removes the record of a container that does not exist, and its mounts.
    fn forget(&mut self, id: &str) {
        let Some(mut container) = self.containers.remove(id) else { return };
        self.close_streams(&mut container.init);
        if let Err(error) = rootfs::unmount(&container.bundle.join("rootfs")) {
            log::warn(format_args!("failed to cleanup rootfs mount: {error}"));
        }
        for queued in container.queue {
            self.answer(queued.reply, Err(Error::not_found("container not created")));
        }
    }

    fn attach_terminal(
        &mut self,
        id: &str,
        exec_id: &str,
        console: Option<std::os::fd::OwnedFd>,
    ) -> Result<(), Error> {
        let Some(console) = console else { return Ok(()) };
        let Some(container) = self.containers.get_mut(id) else { return Ok(()) };
        let (uid, gid) = container.io_owner;
        let Some(process) = container.process_mut(exec_id) else { return Ok(()) };
        let name = if exec_id.is_empty() { id } else { exec_id };
        let owner = Owner { id: name, namespace: &self.namespace, uid, gid };
        let opened = stdio::open_terminal(&process.streams, &console, owner)
            .map_err(|error| Error::from(error).context("failed to start console copy"))?;
        process.console = Some(console);
        self.attach(id, exec_id, opened);
        Ok(())
    }

    fn started(&mut self, id: &str, reply: ReplyTo, result: Result<Outcome, DriverError>) {
        if let Err(error) = result {
            return self.answer(reply, Err(runtime_failed("OCI runtime start failed", error)));
        }
        let Some(container) = self.containers.get_mut(id) else { return };
        container.init.phase = Phase::Running;
        let pid = container.init.pid;
        self.publish("/tasks/start", &TaskStart { container_id: id.into(), pid });
        self.answer(reply, Ok(StartResponse { pid }.encode_to_vec()));
    }

    /// Goes on with an exec; its files are only now the client's, so that what a runtime prints when it fails is not
    /// taken for the process's output.
    fn exec_started(
        &mut self,
        id: &str,
        (exec_id, opened): (&str, Opened),
        reply: ReplyTo,
        result: Result<Outcome, DriverError>,
    ) {
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => {
                abandon(opened);
                // A process that its container has stopped is the only one whose time runs out here.
                let late = error.kind() == Kind::DeadlineExceeded;
                let error = runtime_failed("OCI runtime exec failed", error);
                let kind = if late { Kind::DeadlineExceeded } else { error.kind() };
                self.answer(reply, Err(Error::new(kind, error.text())));
                return self.exec_failed(id, exec_id);
            }
        };
        let pid = outcome.pid;
        let Some(process) = self.containers.get_mut(id).and_then(|known| known.process_mut(exec_id)) else {
            abandon(opened);
            return self.answer(reply, Err(no_process(exec_id)));
        };
        process.pid = pid;
        process.phase = Phase::Running;
        self.attach(id, exec_id, opened);
        if let Err(error) = self.attach_terminal(id, exec_id, outcome.console) {
            log::warn(format_args!("exec {exec_id}: {}", error.text()));
        }
        let event = TaskExecStarted { container_id: id.into(), exec_id: exec_id.into(), pid };
        self.publish("/tasks/exec-started", &event);
        self.answer(reply, Ok(StartResponse { pid }.encode_to_vec()));
    }

    fn frozen(&mut self, id: &str, reply: ReplyTo, result: Result<(), DriverError>) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.freeze = if result.is_ok() { Freeze::Frozen } else { Freeze::Thawed };
        if let Err(error) = result {
            return self.answer(reply, Err(runtime_failed("OCI runtime pause failed", error)));
        }
        self.publish("/tasks/paused", &TaskPaused { container_id: id.into() });
        self.answer(reply, Ok(empty()));
    }

    fn thawed(&mut self, id: &str, reply: ReplyTo, result: Result<(), DriverError>) {
        if let Err(error) = result {
            return self.answer(reply, Err(runtime_failed("OCI runtime resume failed", error)));
        }
        let Some(container) = self.containers.get_mut(id) else { return };
        container.freeze = Freeze::Thawed;
        self.publish("/tasks/resumed", &TaskResumed { container_id: id.into() });
        self.answer(reply, Ok(empty()));
    }

    fn listed(&mut self, id: &str, reply: ReplyTo, result: Result<Outcome, DriverError>) {
        let Some(container) = self.containers.get(id) else { return };
        let info = |pid: u32| {
            let exec = container.execs.iter().find(|(_, process)| process.pid == pid);
            let info = exec.map(|(exec_id, _)| encode_any(&ProcessDetails { exec_id: exec_id.clone() }));
            ProcessInfo { pid, info }
        };
        let result = result
            .map(|outcome| PidsResponse { processes: outcome.processes.into_iter().map(info).collect() })
            .map(|response| response.encode_to_vec())
            .map_err(|error| runtime_failed("OCI runtime ps failed", error));
        self.answer(reply, result);
    }
}

/// The words of containerd's shim for a kill that found nothing to kill.
fn kill_failed(error: DriverError) -> Error {
    let text = error.to_string();
    let lower = text.to_lowercase();
    if ["process already finished", "not running", "no such process"]
        .iter()
        .any(|words| lower.contains(words))
    {
        Error::not_found("process already finished")
    } else if lower.contains("does not exist") {
        Error::not_found("no such container")
    } else {
        Error::new(Kind::Unknown, format!("unknown error after kill: {text}"))
    }
}
