//! The runtime library, called in this process: no program is started but the container's own.
//!
//! Invariant: the container's parsed configuration is kept between create and start, and from the first exec on, since
//! who runs one (a probe) runs many; other shims at rest hold none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::containerd::runc::v1::Options;
use runtime::cgroup::Joiner;
use runtime::{Container, ContainerError, Create, Exec, Stdio};
use spec::error::{Error, HasKind, Kind};
use spec::runtime::{LinuxResources, Process};

use super::{Begun, Call, ChildStdio, Driver, DriverError, Outcome, PID_FILE};

/// How long a delete may fight for the cgroup of a container whose processes are dying.
const DELETE_LIMIT: Duration = Duration::from_secs(10);

/// Runs a container with the library.
#[derive(Debug)]
pub struct InProcess {
    root: PathBuf,
    id: String,
    bundle: PathBuf,
    no_pivot: bool,
    no_new_keyring: bool,
    systemd_cgroup: bool,
    created: Option<Container>,
    entered: Option<Entered>,
}

/// A container that processes are added to.
#[derive(Debug)]
struct Entered {
    container: Container,
    doors: Option<Joiner>,
}

impl InProcess {
    /// Container `id` of `bundle`, with its state below `root`.
    pub fn new(options: &Options, root: PathBuf, id: &str, bundle: &Path) -> Self {
        Self {
            root,
            id: id.into(),
            bundle: bundle.into(),
            no_pivot: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            systemd_cgroup: options.systemd_cgroup,
            created: None,
            entered: None,
        }
    }

    fn load(&self) -> Result<Container, DriverError> {
        Container::load(&self.root, &self.id).map_err(failed)
    }

    fn create(&mut self, stdio: Option<ChildStdio>) -> Result<Outcome, DriverError> {
        let pid_file = self.bundle.join(PID_FILE);
        let mut create = Create::new(&self.root, &self.id, &self.bundle);
        create.stdio = streams(stdio);
        create.pid_file = Some(&pid_file);
        create.no_pivot = self.no_pivot;
        create.no_new_keyring = self.no_new_keyring;
        create.systemd_cgroup = self.systemd_cgroup;
        let created = create.run().map_err(failed)?;
        self.created = Some(created.container);
        Ok(Outcome { pid: created.pid.cast_unsigned(), console: created.console, processes: Vec::new() })
    }

    fn exec(
        &mut self,
        exec_id: &str,
        process: &[u8],
        stdio: Option<ChildStdio>,
    ) -> Result<Outcome, DriverError> {
        let process = Process::from_slice(process)
            .map_err(|error| DriverError::Runtime { text: error.to_string(), kind: Kind::InvalidArgument })?;
        let entered = match self.entered.take() {
            Some(entered) => entered,
            None => {
                let container = self.load()?;
                Entered { doors: container.doors().map_err(failed)?, container }
            }
        };
        let pid_file = self.bundle.join(format!("{exec_id}.pid"));
        let mut exec = Exec::new(&entered.container, process);
        exec.doors = entered.doors.as_ref();
        exec.stdio = streams(stdio);
        exec.pid_file = Some(&pid_file);
        exec.no_new_keyring = self.no_new_keyring;
        let started = exec.run().map_err(failed)?;
        // Only what has worked is used again.
        self.entered = Some(entered);
        Ok(Outcome { pid: started.pid.cast_unsigned(), console: started.console, processes: Vec::new() })
    }

    fn delete(&mut self, force: bool) -> Result<Outcome, DriverError> {
        let container = match self.created.take() {
            Some(container) => container,
            None => match Container::load(&self.root, &self.id) {
                // Deleted by another hand, or a create that was killed half way.
                Err(ContainerError::NotFound(_)) => {
                    Container::remove_remains(&self.root, &self.id).map_err(failed)?;
                    return Ok(Outcome::default());
                }
                // Whoever deletes knows that it has ended, or wants it to: nothing in the file is needed for that.
                Err(error) if error.kind() == Kind::DataLoss => {
                    let removed = Container::remove_damaged(&self.root, &self.id, DELETE_LIMIT);
                    return removed.map(|()| Outcome::default()).map_err(failed);
                }
                loaded => loaded.map_err(failed)?,
            },
        };
        container.delete(force, DELETE_LIMIT).map(|()| Outcome::default()).map_err(failed)
    }

    fn run(&mut self, call: Call<'_>) -> Result<Outcome, DriverError> {
        match call {
            Call::Create { stdio } => return self.create(stdio),
            Call::Exec { exec_id, process, stdio } => return self.exec(exec_id, process, stdio),
            Call::Delete { force } => {
                self.entered = None;
                return self.delete(force);
            }
            Call::Start => {
                let mut container = match self.created.take() {
                    Some(container) => container,
                    None => self.load()?,
                };
                container.start().map_err(failed)?;
            }
            Call::Kill { signal, all } => {
                self.load()?.kill(signal.cast_signed(), all).map_err(failed)?;
            }
            Call::Pause => self.load()?.pause().map_err(failed)?,
            Call::Resume => self.load()?.resume().map_err(failed)?,
            Call::Update { resources } => {
                let resources = LinuxResources::from_slice(resources).map_err(|error| {
                    DriverError::Runtime { text: error.to_string(), kind: Kind::InvalidArgument }
                })?;
                self.entered = None;
                self.load()?.update(&resources).map_err(failed)?;
            }
            Call::Processes => {
                let list = self.load()?.processes().map_err(failed)?;
                let processes = list.into_iter().map(i32::cast_unsigned).collect();
                return Ok(Outcome { processes, ..Outcome::default() });
            }
        }
        Ok(Outcome::default())
    }
}

impl Driver for InProcess {
    fn begin(&mut self, call: Call<'_>) -> Begun {
        Begun::Done(self.run(call))
    }
}

fn streams(stdio: Option<ChildStdio>) -> Stdio {
    match stdio {
        Some(stdio) => {
            Stdio { stdin: Some(stdio.stdin), stdout: Some(stdio.stdout), stderr: Some(stdio.stderr) }
        }
        None => Stdio::default(),
    }
}

/// The library's error with its causes, as one text.
fn failed<E: HasKind + std::error::Error + Send + Sync + 'static>(error: E) -> DriverError {
    let error = Error::from(error);
    DriverError::Runtime { kind: error.kind(), text: error.text().to_owned() }
}

/// The library's own features document.
///
/// # Errors
/// It cannot be encoded, which no document of plain words can meet.
pub fn features() -> Result<Vec<u8>, DriverError> {
    serde_json::to_vec(&runtime::features::features())
        .map_err(|error| DriverError::Reply { what: "features", source: error.into() })
}
