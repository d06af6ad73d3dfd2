//! Delete: what a process wrote goes out first, then nothing of it stays.

use std::time::{Duration, Instant};

use api::Message;
use api::containerd::events::TaskDelete;
use api::containerd::task::v3::{DeleteRequest, DeleteResponse};
use spec::error::Error;

use super::{Parked, decode, no_process, runtime_failed};
use crate::driver::{Call, DriverError};
use crate::process::{ParkedDelete, Phase, Process};
use crate::serve::{Doing, ReplyTo, Shim};
use crate::{log, rootfs};

/// How long a delete waits for output that has nowhere to go.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

impl Shim {
    /// Deletes a process that has ended or never ran.
    pub(super) fn delete(&mut self, reply: ReplyTo, payload: &[u8]) -> Parked {
        let request: DeleteRequest = decode(payload)?;
        let is_starting = self.is_starting(&request.id, &request.exec_id);
        let container = self.container(&request.id)?;
        let process = container.process_mut(&request.exec_id).ok_or_else(|| no_process(&request.exec_id))?;
        if process.is_running() {
            return Err(Error::failed_precondition("cannot delete a running process"));
        }
        if process.deleting.is_some() {
            return Err(Error::failed_precondition("the process is being deleted"));
        }
        if is_starting && !request.exec_id.is_empty() {
            process.deleting = Some(ParkedDelete { reply, deadline: Instant::now() + DRAIN_LIMIT });
            self.cancel_start(&request.id, &request.exec_id);
            return Ok(());
        }
        // A process that never ran has written nothing, though its files are open.
        if !process.is_drained() && process.exit().is_some() {
            process.deleting = Some(ParkedDelete { reply, deadline: Instant::now() + DRAIN_LIMIT });
            return Ok(());
        }
        self.delete_now(&request.id, &request.exec_id, reply);
        Ok(())
    }

    /// Deletes a process, whatever is still in its files.
    pub(crate) fn delete_now(&mut self, id: &str, exec_id: &str, reply: ReplyTo) {
        if exec_id.is_empty() {
            let Some(container) = self.containers.get(id) else { return };
            // An init that still waits at the gate is killed with its container.
            let force = matches!(container.init.phase, Phase::Created);
            self.starting(id).iter().for_each(|exec| self.cancel_start(id, exec));
            return self.run(id, Doing::Delete(reply), Call::Delete { force });
        }
        let Some(container) = self.containers.get_mut(id) else { return };
        // Absent when the exec never got so far.
        let _ = std::fs::remove_file(container.bundle.join(format!("{exec_id}.pid")));
        let Some(mut process) = container.execs.remove(exec_id) else { return };
        self.close_streams(&mut process);
        self.disappoint_waits(std::mem::take(&mut process.waits));
        self.answer(reply, Ok(response(&process).encode_to_vec()));
    }

    /// The runtime has deleted a container, or not.
    pub(super) fn deleted(&mut self, id: &str, reply: ReplyTo, result: Result<(), DriverError>) {
        let result = match result {
            // Somebody else has: what is left is ours.
            Err(DriverError::Runtime { text, .. }) if text.contains("does not exist") => Ok(()),
            other => other,
        };
        // An init that never ran was killed just now: its end is told before its delete.
        self.reap();
        let Some(container) = self.containers.get(id) else { return };
        let unmounted = rootfs::unmount(&container.bundle.join("rootfs"));
        if let Err(error) = result {
            return self.answer(reply, Err(runtime_failed("failed to delete task", error)));
        }
        if let Err(error) = unmounted {
            log::warn(format_args!("failed to cleanup rootfs mount: {error}"));
            return self.answer(reply, Err(Error::internal(format!("failed rootfs umount: {error}"))));
        }
        let Some(mut container) = self.containers.remove(id) else { return };
        for (_, process) in container.processes_mut() {
            self.close_streams(process);
            self.disappoint_waits(std::mem::take(&mut process.waits));
        }
        let response = response(&container.init);
        let event = TaskDelete {
            container_id: id.into(),
            pid: response.pid,
            exit_status: response.exit_status,
            exited_at: response.exited_at,
            id: String::new(),
        };
        self.publish("/tasks/delete", &event);
        self.answer(reply, Ok(response.encode_to_vec()));
        for queued in container.queue {
            self.answer(queued.reply, Err(Error::not_found("container not created")));
        }
    }
}

fn response(process: &Process) -> DeleteResponse {
    let exit = process.exit();
    DeleteResponse {
        pid: process.pid,
        exit_status: exit.map_or(0, |exit| exit.status),
        exited_at: exit.map(|exit| exit.timestamp()),
    }
}
