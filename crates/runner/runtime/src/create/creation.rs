//! A creation under way: the conversation with init until it waits at the gate, or the removal of what was made.
//!
//! ```text
//! Talking --hooks wanted--> Hooks --run--> Talking --ready--> (created)
//!    |                        |
//!    +--------failure---------+--> Ending --> Killing --> Removing --> (the error)
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use spec::runtime::{Hook, State};
use sys::namespace::Kind;

use super::{CreateError, Created, Site, hand_over, idmap, limit, parent, settle, write_pid_file};
use crate::cgroup::systemd::Placeholder;
use crate::cgroup::{Cgroup, Killing, Removal};
use crate::child::{Child, KILL_TIMEOUT};
use crate::container::Container;
use crate::conversation::{Conversation, Event, Failure};
use crate::hooks::{self, Point, Surroundings};
use crate::init;
use crate::ongoing::{Ongoing, Wait, after};
use crate::state::Record;
use crate::talk::{Script, Talk, Word};

/// How long init may work between two messages, hooks not counted. Mounting can meet a slow disk.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);

const SIGKILL: i32 = 9;

/// What [`super::Create`] has decided and opened before the clone.
#[derive(Debug)]
pub(super) struct Known {
    /// State root.
    pub root: PathBuf,
    pub cgroup: Cgroup,
    /// What hooks are told.
    pub state: State,
    pub console_socket: Option<OwnedFd>,
    pub pid_file: Option<PathBuf>,
}

/// A container whose init is getting ready.
#[derive(Debug)]
pub struct Creation {
    site: Site,
    known: Known,
    /// The process that holds a scope of systemd open, and whether limits are still to be narrowed.
    placeholder: Option<(Placeholder, bool)>,
    /// Master of the terminal.
    console: Option<OwnedFd>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Init works.
    Talking(Conversation),
    /// Init waits for hooks, of which those of a point run.
    Hooks(Conversation, hooks::Run, Point),
    /// Init was killed; until when its end is waited for.
    Ending(Child, Instant, CreateError),
    /// What init may have made is killed.
    Killing(Killing, CreateError),
    /// The cgroup is removed.
    Removing(Removal, CreateError),
    /// The result was returned.
    Over,
}

/// What comes after a turn.
enum Turn {
    Wait(Phase),
    Next(Phase),
    Over(Box<Result<Created, CreateError>>),
}

impl Creation {
    pub(super) fn new(site: Site, known: Known, child: Child, talk: Talk) -> Self {
        let new_user = site.plan.namespaces.is_new(Kind::User);
        let hooks = &site.plan.hooks;
        let mut script = Script::readiness()
            .with_hooks(!hooks.prestart.is_empty() || !hooks.create_runtime.is_empty())
            .with_terminal(site.plan.process.terminal)
            .with_process(site.plan.namespaces.joined.iter().any(|(kind, _)| *kind == Kind::Pid));
        let staged = init::needs_stage(&site.plan.namespaces);
        if staged {
            script = script.with_stage(new_user).with_offsets(!site.plan.namespaces.time_offsets.is_empty());
        }
        script = script.with_trees(idmap::late(&site.plan));
        let maps_first = new_user && !staged;
        let within = message_timeout(&hooks.create_container);
        let talking = Conversation::new(child, talk, script, "set up the container", within);
        let mut creation = Self { site, known, placeholder: None, console: None, phase: Phase::Over };
        let begun = match maps_first {
            true => creation.write_maps(&talking).and_then(|()| creation.admit(&talking)),
            false => Ok(()),
        };
        creation.phase = match begun {
            Ok(()) => Phase::Talking(talking),
            Err(error) => ending(talking, error),
        };
        creation
    }

    /// The same, for init in a scope that `placeholder` holds open; with `narrow` its limits are set once that has ended.
    pub(super) fn beside(self, placeholder: Placeholder, narrow: bool) -> Self {
        Self { placeholder: Some((placeholder, narrow)), ..self }
    }

    /// Init as far as it is known: the stage until that has named it.
    pub fn pid(&self) -> Option<i32> {
        match &self.phase {
            Phase::Talking(talking) | Phase::Hooks(talking, ..) => Some(talking.child.pid()),
            Phase::Ending(child, ..) => Some(child.pid()),
            Phase::Killing(..) | Phase::Removing(..) | Phase::Over => None,
        }
    }

    /// Takes the messages that have come.
    fn talk(&mut self, mut talking: Conversation) -> Turn {
        let done = match talking.next() {
            Ok(None) => return Turn::Wait(Phase::Talking(talking)),
            Ok(Some(Event::End)) => Err(CreateError::Died),
            Ok(Some(Event::Word(word))) => match word {
                Word::Maps => self.write_maps(&talking).and_then(|()| go(&talking)),
                Word::Offsets => self.write_offsets(&talking).and_then(|()| go(&talking)),
                Word::Sibling(_) | Word::Process(_) => self.admit(&talking),
                Word::Tree(index) => self.give_tree(&talking, index),
                Word::Hooks => match self.hooks(&talking, Point::Prestart) {
                    Ok(run) => return Turn::Next(Phase::Hooks(talking, run, Point::Prestart)),
                    Err(error) => Err(error),
                },
                Word::Console(master) => {
                    self.console = Some(master);
                    Ok(())
                }
                Word::Ready => return self.ready(talking),
                Word::Failed(errno, text) => Err(CreateError::Init { errno, text }),
            },
            Err(failure) => Err(failure.into()),
        };
        Turn::Next(match done {
            Ok(()) => {
                talking.extend(message_timeout(&self.site.plan.hooks.create_container));
                Phase::Talking(talking)
            }
            Err(error) => ending(talking, error),
        })
    }

    fn write_maps(&self, talking: &Conversation) -> Result<(), CreateError> {
        let namespaces = &self.site.plan.namespaces;
        parent::write_maps(talking.child.pid(), &namespaces.uid_map, &namespaces.gid_map)
            .map_err(CreateError::at("write the maps of the user namespace"))
    }

    /// From outside, because the root of a new user namespace may not write the files of a process of the host's root.
    fn write_offsets(&self, talking: &Conversation) -> Result<(), CreateError> {
        let offsets = &self.site.plan.namespaces.time_offsets;
        parent::write_offsets(talking.child.pid(), offsets).map_err(CreateError::at("set time offsets"))
    }

    fn give_tree(&self, talking: &Conversation, index: u32) -> Result<(), CreateError> {
        let tree = idmap::late_tree(&self.site.plan, index, talking.child.pidfd())?;
        talking.go_with(tree.as_fd()).map_err(CreateError::at("let init go on"))
    }

    /// Sets what init may not set itself, and lets it go on.
    fn admit(&self, talking: &Conversation) -> Result<(), CreateError> {
        settle(talking.child.pid(), &self.site.plan.process)?;
        go(talking)
    }

    /// The hooks of `point`. They may want to read the state, which is written before.
    fn hooks(&self, talking: &Conversation, point: Point) -> Result<hooks::Run, CreateError> {
        let pid = talking.child.pid();
        let hooks = &self.site.plan.hooks;
        let hooks = match point {
            Point::Prestart => {
                self.record(pid).save(&self.site.dir)?;
                &hooks.prestart
            }
            _ => &hooks.create_runtime,
        };
        let state = State { pid, ..self.known.state.clone() };
        // As under runc, they start in the bundle.
        Ok(hooks::Run::new(hooks.clone(), &state, point, Surroundings::of_bundle(&self.site.bundle)))
    }

    fn hook(&mut self, mut talking: Conversation, mut run: hooks::Run, point: Point) -> Turn {
        let done = match (run.advance(), point) {
            (None, _) => return Turn::Wait(Phase::Hooks(talking, run, point)),
            (Some(Err(error)), _) => Err(error.into()),
            (Some(Ok(())), Point::Prestart) => match self.hooks(&talking, Point::CreateRuntime) {
                Ok(run) => return Turn::Next(Phase::Hooks(talking, run, Point::CreateRuntime)),
                Err(error) => Err(error),
            },
            (Some(Ok(())), _) => go(&talking),
        };
        Turn::Next(match done {
            Ok(()) => {
                talking.expect("enter its root file system");
                talking.extend(message_timeout(&self.site.plan.hooks.create_container));
                Phase::Talking(talking)
            }
            Err(error) => ending(talking, error),
        })
    }

    /// Init waits at the gate: makes the container known.
    fn ready(&mut self, talking: Conversation) -> Turn {
        match self.publish(talking.child.pid()) {
            Ok((record, console)) => {
                let (child, talk) = talking.into_parts();
                let (pid, pidfd) = child.into_parts();
                let container = Container::created(&self.known.root, record, talk);
                Turn::Over(Box::new(Ok(Created { container, pid, pidfd, console })))
            }
            Err(error) => Turn::Next(ending(talking, error)),
        }
    }

    /// Makes the created container known: its state, its pid, its terminal.
    fn publish(&mut self, pid: i32) -> Result<(Record, Option<OwnedFd>), CreateError> {
        let plan = &self.site.plan;
        if plan.namespaces.has(Kind::User) {
            limit(pid, &plan.process)?;
        }
        let record = self.record(pid);
        record.save(&self.site.dir)?;
        let console = hand_over(self.console.take(), self.known.console_socket.take())
            .map_err(CreateError::at("hand over the terminal"))?;
        if let Some(path) = &self.known.pid_file {
            write_pid_file(path, pid).map_err(CreateError::at("write the pid file"))?;
        }
        if let Some((placeholder, narrow)) = self.placeholder.take() {
            placeholder.release();
            if narrow {
                self.known.cgroup.update(&self.site.plan.resources)?;
            }
        }
        Ok((record, console))
    }

    fn record(&self, pid: i32) -> Record {
        let Site { spec, plan, bundle, .. } = &self.site;
        Record::new(&self.known.state.id, pid, spec, bundle, &plan.rootfs, &self.known.cgroup)
    }

    fn end(&mut self, mut child: Child, deadline: Instant, error: CreateError) -> Turn {
        if !child.reap() && Instant::now() < deadline {
            return Turn::Wait(Phase::Ending(child, deadline, error));
        }
        if let Some((placeholder, _)) = self.placeholder.take() {
            placeholder.release();
        }
        Turn::Next(Phase::Killing(self.known.cgroup.begin_kill(SIGKILL), error))
    }

    fn kill(&self, mut killing: Killing, error: CreateError) -> Turn {
        match killing.advance() {
            None => Turn::Wait(Phase::Killing(killing, error)),
            // Best effort, here and below: the error that matters is the one that led here.
            Some(_) => Turn::Next(Phase::Removing(self.known.cgroup.begin_destroy(), error)),
        }
    }

    fn remove(&self, mut removal: Removal, error: CreateError) -> Turn {
        if removal.advance().is_none() {
            return Turn::Wait(Phase::Removing(removal, error));
        }
        let _ = std::fs::remove_dir_all(&self.site.dir);
        Turn::Over(Box::new(Err(error)))
    }
}

impl Ongoing for Creation {
    type Output = Result<Created, CreateError>;

    fn wait(&self) -> Wait<'_> {
        match &self.phase {
            Phase::Talking(talking) => talking.wait(),
            Phase::Hooks(_, run, _) => run.wait(),
            Phase::Ending(child, deadline, _) => Wait { fd: Some(child.pidfd()), until: *deadline },
            Phase::Killing(killing, _) => killing.wait(),
            Phase::Removing(removal, _) => removal.wait(),
            Phase::Over => Wait { fd: None, until: Instant::now() },
        }
    }

    fn advance(&mut self) -> Option<Self::Output> {
        loop {
            let turn = match std::mem::replace(&mut self.phase, Phase::Over) {
                Phase::Talking(talking) => self.talk(talking),
                Phase::Hooks(talking, run, point) => self.hook(talking, run, point),
                Phase::Ending(child, deadline, error) => self.end(child, deadline, error),
                Phase::Killing(killing, error) => self.kill(killing, error),
                Phase::Removing(removal, error) => self.remove(removal, error),
                Phase::Over => return None,
            };
            match turn {
                Turn::Next(phase) => self.phase = phase,
                Turn::Wait(phase) => {
                    self.phase = phase;
                    return None;
                }
                Turn::Over(result) => return Some(*result),
            }
        }
    }

    fn awaits(&self, pid: i32) -> bool {
        match &self.phase {
            Phase::Talking(talking) => talking.child.awaits(pid),
            Phase::Hooks(talking, run, _) => talking.child.awaits(pid) || run.awaits(pid),
            Phase::Ending(child, ..) => child.awaits(pid),
            Phase::Killing(..) | Phase::Removing(..) | Phase::Over => false,
        }
    }
}

/// Kills init, which has failed.
fn ending(talking: Conversation, error: CreateError) -> Phase {
    Phase::Ending(talking.kill(), after(KILL_TIMEOUT), error)
}

fn go(talking: &Conversation) -> Result<(), CreateError> {
    talking.go().map_err(CreateError::at("let init go on"))
}

/// How long init may take for its next message when it runs `hooks` itself before that.
fn message_timeout(hooks: &[Hook]) -> Duration {
    MESSAGE_TIMEOUT.saturating_add(hooks::time_limit(hooks))
}

impl From<Failure> for CreateError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Timeout { step } => Self::Timeout { step },
            Failure::Unexpected(name) => Self::Unexpected(name),
            Failure::System(source) => Self::at("receive from container init")(source),
        }
    }
}
