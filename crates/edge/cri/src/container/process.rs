//! A running container, as whoever runs a further process in it sees it.

use std::sync::Arc;

use ::spec::runtime::{Process, Spec};
use ::spec::{Error, Kind};
use api::runtime::v1;
use model::Result;
use model::task::Task;

use crate::Cri;
use crate::state::{Container, Phase};

/// The most bytes of a command: more, the kernel would not take.
const MAX_COMMAND: usize = 2 << 20;

impl Cri {
    /// The task of a container that runs.
    ///
    /// # Errors
    /// `FailedPrecondition`: it does not run, in containerd's words.
    pub(crate) fn running_task(&self, container: &Container) -> Result<Arc<dyn Task>> {
        match container.phase() {
            Phase::Running => self.engine.tasks.get(&self.namespace, &container.record.id),
            phase => Err(Error::new(
                Kind::FailedPrecondition,
                format!("container is in {} state", state_name(phase)),
            )),
        }
    }

    /// A further process of `container`: as its init, but for `command` and the terminal.
    ///
    /// # Errors
    /// The container's record is gone; the command is too long.
    pub(crate) async fn exec_process(
        &self,
        container: &Container,
        command: Vec<String>,
        terminal: bool,
    ) -> Result<Process> {
        if command.is_empty() || command[0].is_empty() {
            return Err(Error::invalid("command must not be empty"));
        }
        if command.iter().map(|word| word.len() + 1).sum::<usize>() > MAX_COMMAND {
            return Err(Error::invalid(format_args!("command of more than {MAX_COMMAND} bytes")));
        }
        let mut process = Process::clone(&*self.init_process(container).await?);
        process.args = command;
        process.terminal = terminal;
        process.console_size = None;
        if terminal {
            process.env.retain(|line| !line.starts_with("TERM="));
            process.env.push("TERM=xterm".into());
        }
        Ok(process)
    }

    /// What the init of `container` runs as; read from its record the first time.
    pub(crate) async fn init_process(&self, container: &Container) -> Result<Arc<Process>> {
        if let Some(process) = container.process.get() {
            return Ok(Arc::clone(process));
        }
        let spec = self.stored_spec(container).await?;
        let process = Arc::new(spec.process.unwrap_or_default());
        Ok(Arc::clone(container.process.get_or_init(|| process)))
    }

    /// The spec of `container`, as the store has it.
    pub(crate) async fn stored_spec(&self, container: &Container) -> Result<Spec> {
        let id = container.record.id.clone();
        let record = self.on_disk(&self.ctx(), move |engine, cx| engine.containers.get(cx, &id)).await?;
        super::record::spec(&record)
    }
}

/// A process as JSON, for a shim.
pub(crate) fn process_json(process: &Process) -> Result<Vec<u8>> {
    serde_json::to_vec(process).map_err(|error| Error::internal(format!("cannot write a process: {error}")))
}

/// Where a container stands, as the CRI has it.
pub(super) fn state_of(phase: Phase) -> v1::ContainerState {
    match phase {
        Phase::Created => v1::ContainerState::ContainerCreated,
        Phase::Running => v1::ContainerState::ContainerRunning,
        Phase::Exited => v1::ContainerState::ContainerExited,
        Phase::Unknown => v1::ContainerState::ContainerUnknown,
    }
}

/// Where a container stands, in the CRI's words.
pub(super) fn state_name(phase: Phase) -> &'static str {
    state_of(phase).as_str_name()
}
