//! Kill, pause, resume, update, terminals, input, and the end of the shim.

use api::containerd::task::v3::{
    CheckpointTaskRequest, CloseIoRequest, KillRequest, PauseRequest, ResizePtyRequest, ResumeRequest,
    ShutdownRequest, UpdateTaskRequest,
};
use rustix::io::Errno;
use rustix::termios::Winsize;
use spec::error::{Error, Kind};

use super::{Answer, Parked, decode, empty, later, no_process};
use crate::driver::Call;
use crate::process::{Freeze, Phase, Process};
use crate::serve::{Doing, ReplyTo, Shim};

impl Shim {
    /// Signals init, every process, or an exec.
    pub(super) fn kill(&mut self, reply: ReplyTo, payload: &[u8]) -> Answer {
        match decode::<KillRequest>(payload) {
            Ok(request) if request.exec_id.is_empty() => later(self.kill_init(reply, &request)),
            Ok(request) => self.kill_exec(&request).into(),
            Err(error) => Answer::Now(Err(error)),
        }
    }

    fn kill_init(&mut self, reply: ReplyTo, request: &KillRequest) -> Parked {
        let container = self.container(&request.id)?;
        // With `all` there may be others than init, where the pid namespace is shared.
        if container.init.exit().is_some() && !request.all {
            return Err(Error::not_found("process already finished"));
        }
        let call = Call::Kill { signal: request.signal, all: request.all };
        self.run(&request.id, Doing::Kill(reply), call);
        Ok(())
    }

    fn kill_exec(&mut self, request: &KillRequest) -> Result<Vec<u8>, Error> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id).ok_or_else(|| no_process(&request.exec_id))?;
        match process.phase {
            Phase::Created => {
                return self.kill_starting(&request.id, &request.exec_id, request.signal).map(|()| empty());
            }
            Phase::Stopped(_) => return Err(Error::not_found("process already finished")),
            Phase::Running => {}
        }
        // Not reaped yet, since its end is not known: the number is still its own.
        match sys::process::kill(process.pid.cast_signed(), request.signal.cast_signed()) {
            Ok(()) => Ok(empty()),
            Err(error) if error.is(Errno::SRCH.raw_os_error()) => {
                Err(Error::not_found("process already finished"))
            }
            Err(error) if error.is(Errno::INVAL.raw_os_error()) => {
                Err(Error::invalid(format_args!("signal {}", request.signal)))
            }
            Err(error) => Err(Error::new(Kind::Unknown, format!("exec kill error: {}", error.words()))),
        }
    }

    /// Holds every process of a container still.
    pub(super) fn pause(&mut self, reply: ReplyTo, payload: &[u8]) -> Parked {
        let request: PauseRequest = decode(payload)?;
        let container = self.container(&request.id)?;
        match (container.init.phase, container.freeze) {
            (Phase::Running, Freeze::Thawed) => {}
            (Phase::Running, _) => return Err(Error::failed_precondition("cannot pause a paused container")),
            (Phase::Created, _) => {
                return Err(Error::failed_precondition("cannot pause task in created state"));
            }
            (Phase::Stopped(_), _) => {
                return Err(Error::failed_precondition("cannot pause a stopped container"));
            }
        }
        container.freeze = Freeze::Pausing;
        self.run(&request.id, Doing::Pause(reply), Call::Pause);
        Ok(())
    }

    /// Lets them go on.
    pub(super) fn resume(&mut self, reply: ReplyTo, payload: &[u8]) -> Parked {
        let request: ResumeRequest = decode(payload)?;
        let container = self.container(&request.id)?;
        match (container.init.phase, container.freeze) {
            (Phase::Running, Freeze::Frozen) => {}
            (Phase::Running, _) => {
                return Err(Error::failed_precondition("cannot resume a running process"));
            }
            (Phase::Created, _) => {
                return Err(Error::failed_precondition("cannot resume task in created state"));
            }
            (Phase::Stopped(_), _) => {
                return Err(Error::failed_precondition("cannot resume a stopped container"));
            }
        }
        self.run(&request.id, Doing::Resume(reply), Call::Resume);
        Ok(())
    }

    /// Applies new limits.
    pub(super) fn update(&mut self, reply: ReplyTo, payload: &[u8]) -> Parked {
        let request: UpdateTaskRequest = decode(payload)?;
        let container = self.container(&request.id)?;
        if container.init.exit().is_some() {
            return Err(Error::failed_precondition("cannot update a stopped container"));
        }
        let resources = request.resources.map(|any| any.value).unwrap_or_default();
        self.run(&request.id, Doing::Update(reply), Call::Update { resources: &resources });
        Ok(())
    }

    /// Refused: this shim knows no checkpoints.
    pub(super) fn checkpoint(&mut self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let request: CheckpointTaskRequest = decode(payload)?;
        self.container(&request.id)?;
        Err(Error::unimplemented("checkpoint is not supported by this shim"))
    }

    /// Sets the size of a terminal; without one there is nothing to do.
    pub(super) fn resize_pty(&mut self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let request: ResizePtyRequest = decode(payload)?;
        let process = self.process(&request.id, &request.exec_id)?;
        if let Some(console) = &process.console {
            let size = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
            let size = Winsize {
                ws_row: size(request.height),
                ws_col: size(request.width),
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            rustix::termios::tcsetwinsize(console, size)
                .map_err(|errno| Error::new(Kind::Unknown, format!("resize: {errno}")))?;
        }
        Ok(empty())
    }

    /// Ends the input of a process, once what is in its FIFO is read.
    pub(super) fn close_io(&mut self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let request: CloseIoRequest = decode(payload)?;
        let process = self.process(&request.id, &request.exec_id)?;
        process.input_hold = None;
        process.input_closed = true;
        Ok(empty())
    }

    /// Ends the shim, unless it still has containers.
    pub(super) fn shutdown(&mut self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let _: ShutdownRequest = decode(payload)?;
        if self.containers.is_empty() {
            self.close();
        }
        Ok(empty())
    }

    /// A process of a container.
    pub(super) fn process(&mut self, id: &str, exec_id: &str) -> Result<&mut Process, Error> {
        self.container(id)?.process_mut(exec_id).ok_or_else(|| no_process(exec_id))
    }
}
