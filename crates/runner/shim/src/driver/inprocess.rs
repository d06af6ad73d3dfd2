//! The runtime library, called in this process: no program is started but the container's own.
//!
//! Invariant: the container's parsed configuration is kept between create and start, and from the first exec on, since
//! who runs one (a probe) runs many; other shims at rest hold none.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use api::containerd::runc::v1::Options;
use runtime::cgroup::Joiner;
use runtime::exec::START_TIMEOUT;
use runtime::ongoing::Ongoing;
use runtime::{Container, ContainerError, Create, Exec, Stdio};
use spec::error::{Error, HasKind, Kind};
use spec::runtime::{LinuxResources, Process};

use super::verb::{Verb, Work};
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
    kept: Rc<RefCell<Kept>>,
}

/// What is kept from verb to verb, and what a verb under way adds when it is done.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The container, from create to start.
    pub(super) created: Option<Container>,
    /// The container, from its first exec on.
    pub(super) entered: Option<Entered>,
}

/// A container that processes are added to.
#[derive(Debug)]
pub(super) struct Entered {
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
            kept: Rc::default(),
        }
    }

    fn load(&self) -> Result<Container, DriverError> {
        Container::load(&self.root, &self.id).map_err(failed)
    }

    fn create(&self, stdio: Option<ChildStdio>) -> Result<Begun, DriverError> {
        let pid_file = self.bundle.join(PID_FILE);
        let mut create = Create::new(&self.root, &self.id, &self.bundle);
        create.stdio = streams(stdio);
        create.pid_file = Some(&pid_file);
        create.no_pivot = self.no_pivot;
        create.no_new_keyring = self.no_new_keyring;
        create.systemd_cgroup = self.systemd_cgroup;
        let creation = create.begin().map_err(failed)?;
        Ok(self.ongoing(Work::Create(Box::new(creation))))
    }

    fn exec(
        &self,
        (exec_id, process): (&str, &[u8]),
        stdio: Option<ChildStdio>,
        within: Duration,
    ) -> Result<Begun, DriverError> {
        let process = Process::from_slice(process)
            .map_err(|error| DriverError::Runtime { text: error.to_string(), kind: Kind::InvalidArgument })?;
        let known = self.kept.borrow_mut().entered.take();
        let entered = match known {
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
        exec.within = within;
        let launch = exec.begin().map_err(failed)?;
        self.kept.borrow_mut().entered = Some(entered);
        Ok(self.ongoing(Work::Exec(Box::new(launch))))
    }

    fn delete(&self, force: bool) -> Result<Begun, DriverError> {
        self.kept.borrow_mut().entered = None;
        let created = self.kept.borrow_mut().created.take();
        let container = match created {
            Some(container) => container,
            None => match Container::load(&self.root, &self.id) {
                // Deleted by another hand, or a create that was killed half way.
                Err(ContainerError::NotFound(_)) => {
                    let remains = Container::begin_remove_remains(&self.root, &self.id);
                    return Ok(match remains.map_err(failed)? {
                        Some(deletion) => self.advanced(Work::Delete(Box::new(deletion))),
                        None => Begun::Done(Ok(Outcome::default())),
                    });
                }
                // Whoever deletes knows that it has ended, or wants it to: nothing in the file is needed for that.
                Err(error) if error.kind() == Kind::DataLoss => {
                    let removal = Container::begin_remove_damaged(&self.root, &self.id, DELETE_LIMIT);
                    return Ok(self.advanced(Work::Delete(Box::new(removal.map_err(failed)?))));
                }
                loaded => loaded.map_err(failed)?,
            },
        };
        let deletion = container.begin_delete(force, DELETE_LIMIT).map_err(failed)?;
        Ok(self.advanced(Work::Delete(Box::new(deletion))))
    }

    fn start(&self) -> Result<Begun, DriverError> {
        let created = self.kept.borrow_mut().created.take();
        let mut container = match created {
            Some(container) => container,
            None => self.load()?,
        };
        let start = container.begin_start().map_err(failed)?;
        Ok(self.advanced(Work::Start(Box::new(start))))
    }

    fn update(&self, resources: &[u8]) -> Result<Begun, DriverError> {
        let resources = LinuxResources::from_slice(resources)
            .map_err(|error| DriverError::Runtime { text: error.to_string(), kind: Kind::InvalidArgument })?;
        self.kept.borrow_mut().entered = None;
        self.load()?.update(&resources).map_err(failed)?;
        Ok(Begun::Done(Ok(Outcome::default())))
    }

    fn run(&self, call: Call<'_>) -> Result<Begun, DriverError> {
        match call {
            Call::Create { stdio } => self.create(stdio),
            Call::Exec { exec_id, process, stdio, until } => {
                let asked =
                    until.map_or(START_TIMEOUT, |until| until.saturating_duration_since(Instant::now()));
                self.exec((exec_id, process), stdio, asked.min(START_TIMEOUT))
            }
            Call::Delete { force } => self.delete(force),
            Call::Start => self.start(),
            Call::Kill { signal, all } => {
                Ok(match self.load()?.begin_kill(signal.cast_signed(), all).map_err(failed)? {
                    Some(killing) => self.advanced(Work::Kill(killing)),
                    None => Begun::Done(Ok(Outcome::default())),
                })
            }
            Call::Pause => Ok(self.advanced(Work::Pause(self.load()?.begin_pause().map_err(failed)?))),
            Call::Resume => {
                self.load()?.resume().map_err(failed)?;
                Ok(Begun::Done(Ok(Outcome::default())))
            }
            Call::Update { resources } => self.update(resources),
            Call::Processes => {
                let list = self.load()?.processes().map_err(failed)?;
                let processes = list.into_iter().map(i32::cast_unsigned).collect();
                Ok(Begun::Done(Ok(Outcome { processes, ..Outcome::default() })))
            }
        }
    }

    fn ongoing(&self, work: Work) -> Begun {
        Begun::Ongoing(Verb::new(work, Rc::clone(&self.kept)))
    }

    /// A verb that is usually over at once.
    fn advanced(&self, work: Work) -> Begun {
        let mut verb = Verb::new(work, Rc::clone(&self.kept));
        match verb.advance() {
            Some(result) => Begun::Done(result),
            None => Begun::Ongoing(verb),
        }
    }
}

impl Driver for InProcess {
    fn begin(&mut self, call: Call<'_>) -> Begun {
        self.run(call).unwrap_or_else(|error| Begun::Done(Err(error)))
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
pub(super) fn failed<E: HasKind + std::error::Error + Send + Sync + 'static>(error: E) -> DriverError {
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
