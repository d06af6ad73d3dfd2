//! What clients ask without changing anything.

use api::Message;
use api::containerd::task::v3::{
    ConnectRequest, ConnectResponse, PidsRequest, StateRequest, StateResponse, StatsRequest, StatsResponse,
    WaitRequest, WaitResponse,
};
use api::containerd::v1::types::Status;
use spec::error::{Error, Kind};

use super::{Answer, Parked, decode, no_process};
use crate::bootstrap::VERSION;
use crate::driver::Call;
use crate::metrics;
use crate::process::{Freeze, Phase};
use crate::serve::{Doing, ReplyTo, Shim};

/// The most clients that wait for one process.
const MAX_WAITS: usize = 4096;

impl Shim {
    /// What a process is doing.
    pub(super) fn state(&mut self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let request: StateRequest = decode(payload)?;
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id).ok_or_else(|| no_process(&request.exec_id))?;
        let status = match (process.phase, container.freeze) {
            // An exec that could not be started is as it was, as in Go's shim.
            (Phase::Stopped(_), _) if process.pid == 0 => Status::Created,
            (Phase::Stopped(_), _) => Status::Stopped,
            (_, Freeze::Pausing) => Status::Pausing,
            (_, Freeze::Frozen) => Status::Paused,
            (Phase::Created, Freeze::Thawed) => Status::Created,
            (Phase::Running, Freeze::Thawed) => Status::Running,
        };
        let exit = process.exit();
        let response = StateResponse {
            id: if request.exec_id.is_empty() { request.id.clone() } else { request.exec_id.clone() },
            bundle: container.bundle.display().to_string(),
            pid: process.pid,
            status: status.into(),
            stdin: process.streams.stdin.clone(),
            stdout: process.streams.stdout.clone(),
            stderr: process.streams.stderr.clone(),
            terminal: process.streams.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| exit.timestamp()),
            exec_id: request.exec_id,
        };
        Ok(response.encode_to_vec())
    }

    /// Answers when a process has ended.
    pub(super) fn wait(&mut self, reply: ReplyTo, payload: &[u8]) -> Answer {
        let found =
            decode::<WaitRequest>(payload).and_then(|request| self.process(&request.id, &request.exec_id));
        let process = match found {
            Ok(process) => process,
            Err(error) => return Answer::Now(Err(error)),
        };
        match process.exit() {
            Some(exit) => {
                let response = WaitResponse { exit_status: exit.status, exited_at: Some(exit.timestamp()) };
                Answer::Now(Ok(response.encode_to_vec()))
            }
            None if process.waits.len() >= MAX_WAITS => {
                Answer::Now(Err(Error::worded(Kind::ResourceExhausted, "waits for one process")))
            }
            None => {
                process.waits.push(reply);
                Answer::Later
            }
        }
    }

    /// Lists the processes of a container.
    pub(super) fn pids(&mut self, reply: ReplyTo, payload: &[u8]) -> Parked {
        let request: PidsRequest = decode(payload)?;
        self.container(&request.id)?;
        self.run(&request.id, Doing::Pids(reply), Call::Processes);
        Ok(())
    }

    /// Use of resources, in the form of the host's cgroups.
    pub(super) fn stats(&mut self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let request: StatsRequest = decode(payload)?;
        let container = self.container(&request.id)?;
        let cgroup = container.cgroup.as_ref().filter(|cgroup| cgroup.exists());
        let stats = metrics::of(cgroup.ok_or_else(|| Error::not_found("cgroup does not exist"))?)?;
        Ok(StatsResponse { stats: Some(stats) }.encode_to_vec())
    }

    /// Says who serves.
    pub(super) fn connect(&mut self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let request: ConnectRequest = decode(payload)?;
        let response = ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: self.container(&request.id).map_or(0, |container| container.init.pid),
            version: VERSION.into(),
        };
        Ok(response.encode_to_vec())
    }
}
