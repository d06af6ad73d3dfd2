//! Creation: plan, cgroup, clone, and the parent's half of the talk with init.
//!
//! ```text
//! <root>/<id>/            made first; its existence is what reserves the id
//!     creation.json       names the cgroup before it is made, so that what a killed creation left can be removed
//!     exec.fifo           the gate; goes when the container is started
//!     state.json          written when init is ready
//! ```
//!
//! Invariant: whatever fails, the directory, the cgroup and init are gone again before the error is returned.

mod creation;
mod error;
mod idmap;
mod parent;
pub mod plan;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use spec::runtime::{LinuxResources, MAX_CONFIG_BYTES, Spec, State, Status, VERSION};
use sys::namespace;
use sys::process::{self, Fork};

use crate::cgroup::Cgroup;
use crate::cgroup::systemd::{self, Scope};
use crate::child::Child;
use crate::container::Container;
use crate::init::{self, Init};
use crate::ongoing::complete;
use crate::state::{GATE, Record};
use crate::talk::Talk;

pub use creation::Creation;
pub use error::CreateError;
pub(crate) use parent::{limit, nr_open, settle};
use plan::Plan;

/// The standard streams of a new process; `None` inherits the caller's.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// A container to be created.
#[derive(Debug)]
pub struct Create<'a> {
    /// State root, such as `/run/containerd/runc/<namespace>`.
    pub root: &'a Path,
    /// Its id.
    pub id: &'a str,
    /// The bundle directory.
    pub bundle: &'a Path,
    /// The configuration; `None` reads `<bundle>/config.json`.
    pub spec: Option<Spec>,
    /// Standard streams; unused when the process has a terminal.
    pub stdio: Stdio,
    /// Unix socket that receives the terminal's master; without one it is [`Created::console`].
    pub console_socket: Option<&'a Path>,
    /// File that receives init's pid.
    pub pid_file: Option<&'a Path>,
    /// Use `MS_MOVE` and `chroot(2)` instead of `pivot_root(2)`.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// Have systemd make the cgroup; its path is then `slice:prefix:name`.
    pub systemd_cgroup: bool,
    /// How many descriptors after the standard three the process keeps.
    pub preserve_fds: u32,
    /// Leave line ends on the process's terminal as its program writes them.
    pub keep_line_ends: bool,
}

/// What [`Create::run`] made.
#[derive(Debug)]
pub struct Created {
    /// The container.
    pub container: Container,
    /// Pid of init.
    pub pid: i32,
    /// Pidfd of init, a child of the caller.
    pub pidfd: OwnedFd,
    /// Master of the terminal, when it has one and no console socket took it.
    pub console: Option<OwnedFd>,
}

impl<'a> Create<'a> {
    /// The container `id` of `bundle`, with inherited streams and nothing special.
    pub fn new(root: &'a Path, id: &'a str, bundle: &'a Path) -> Self {
        Self {
            root,
            id,
            bundle,
            spec: None,
            stdio: Stdio::default(),
            console_socket: None,
            pid_file: None,
            no_pivot: false,
            no_new_keyring: false,
            systemd_cgroup: false,
            preserve_fds: 0,
            keep_line_ends: false,
        }
    }

    /// Creates it: afterwards init waits at the gate for [`Container::start`].
    pub fn run(self) -> Result<Created, CreateError> {
        complete(self.begin()?)
    }

    /// Makes the cgroup and clones init; the rest is for [`Creation`] to see through.
    pub fn begin(mut self) -> Result<Creation, CreateError> {
        check_id(self.id)?;
        let bundle = std::fs::canonicalize(self.bundle).map_err(io_error("resolve", self.bundle))?;
        let spec = match self.spec.take() {
            Some(spec) => spec,
            None => read_spec(&bundle)?,
        };
        let mut plan = plan::plan(&spec, &bundle)?;
        plan.process.keep_line_ends = self.keep_line_ends;
        plan.process.check_descriptors(parent::nr_open())?;
        let scope = match self.systemd_cgroup {
            true => Some(Scope::plan(&plan.cgroups_path, self.id, &spec.annotations)?),
            false => None,
        };
        let dir = self.root.join(self.id);
        reserve(self.root, &dir, self.id)?;
        let site = Site { spec, plan, bundle, dir: dir.clone() };
        let begun = self.make(site, scope);
        if begun.is_err() {
            // Best effort: the error that matters is the one that led here.
            let _ = std::fs::remove_dir_all(&dir);
        }
        begun
    }

    fn make(&self, site: Site, scope: Option<Scope>) -> Result<Creation, CreateError> {
        let Some(scope) = scope else {
            let cgroup = Cgroup::plan(&site.plan.cgroups_path, self.id)?;
            self.record_plan(&site, &cgroup)?;
            let cgroup = match is_users(&site.plan) {
                true => cgroup.make_permitted()?,
                false => cgroup.make().map(|()| cgroup)?,
            };
            let limits = site.plan.resources.clone();
            let begun = self.make_in(site, cgroup.clone(), &limits);
            return begun.inspect_err(|_| undo_cgroup(&cgroup));
        };
        let wider = systemd::beside_placeholder(&site.plan.resources);
        let limits = wider.as_ref().unwrap_or(&site.plan.resources).clone();
        self.record_plan(&site, &scope.cgroup()?)?;
        let (cgroup, placeholder) = scope.start(&limits)?;
        match self.make_in(site, cgroup.clone(), &limits) {
            Ok(creation) => Ok(creation.beside(placeholder, wider.is_some())),
            Err(error) => {
                placeholder.release();
                undo_cgroup(&cgroup);
                Err(error)
            }
        }
    }

    /// Writes down what is about to be made, for whoever removes it should this process be killed.
    fn record_plan(&self, site: &Site, cgroup: &Cgroup) -> Result<(), CreateError> {
        let record = Record::planned(self.id, &site.spec, &site.bundle, &site.plan.rootfs, cgroup);
        Ok(record.save_planned(&site.dir)?)
    }

    /// Everything up to the clone. An error means that there is no process yet.
    fn make_in(&self, site: Site, cgroup: Cgroup, limits: &LinuxResources) -> Result<Creation, CreateError> {
        match is_users(&site.plan) {
            true => cgroup.apply_permitted(limits)?,
            false => cgroup.apply(limits)?,
        }
        let gate = make_gate(&site.dir)?;
        let console_socket = self.console_socket.map(sys::socket::connect).transpose();
        let console_socket = console_socket.map_err(CreateError::at("connect to the console socket"))?;
        let state = State {
            oci_version: VERSION.into(),
            id: self.id.to_owned(),
            status: Status::Creating,
            pid: 0,
            bundle: site.bundle.display().to_string(),
            annotations: site.spec.annotations.clone(),
        };
        let (child, talk) = self.clone_init(&site.plan, &cgroup, &state, gate.as_fd())?;
        let known = creation::Known {
            root: self.root.to_owned(),
            cgroup,
            state,
            console_socket,
            pid_file: self.pid_file.map(Path::to_owned),
        };
        Ok(Creation::new(site, known, child, talk))
    }

    /// Makes init, or the stage that makes it.
    fn clone_init(
        &self,
        plan: &Plan,
        cgroup: &Cgroup,
        state: &State,
        gate: std::os::fd::BorrowedFd<'_>,
    ) -> Result<(Child, Talk), CreateError> {
        let joiner = cgroup.joiner()?;
        let trees = idmap::trees(plan)?;
        let (ours, theirs) = Talk::pair().map_err(CreateError::at("make the talk"))?;
        let staged = init::needs_stage(&plan.namespaces);
        let shared = plan.namespaces.joined.iter().find(|(kind, _)| *kind == namespace::Kind::Pid);
        let shared = shared.map(|(kind, path)| namespace::open(path, *kind)).transpose();
        let shared = shared.map_err(CreateError::at("open the pid namespace"))?;
        let stages = u8::from(staged) + u8::from(shared.is_some());
        let new_user = plan.namespaces.is_new(namespace::Kind::User);
        match parent::clone(&plan.namespaces, &joiner, staged)? {
            Fork::Parent { pid, pidfd } => Ok((Child::new(pid, pidfd, stages), ours)),
            Fork::Child => {
                let mut trees = trees;
                if let Some(pids) = &shared {
                    let made =
                        init::join_cgroup(&joiner).and_then(|()| init::shared_procfs(plan, pids.as_fd()));
                    match made {
                        Ok(made) => trees.extend(made),
                        Err(error) => init::fail(&theirs, &error),
                    }
                }
                if staged {
                    init::stage(&plan.namespaces, &joiner, &theirs);
                }
                init::run(&Init {
                    plan,
                    talk: &theirs,
                    stdio: &self.stdio,
                    gate,
                    joiner: (!staged).then_some(&joiner),
                    cgroup,
                    state,
                    trees: &trees,
                    pids: shared.as_ref().map(AsFd::as_fd),
                    wait_first: staged || new_user,
                    join_namespaces: !staged,
                    privileged: !plan.namespaces.has(namespace::Kind::User),
                    no_pivot: self.no_pivot,
                    no_new_keyring: self.no_new_keyring,
                    preserve_fds: self.preserve_fds,
                })
            }
        }
    }
}

/// What is created, and where.
#[derive(Debug)]
struct Site {
    spec: Spec,
    plan: Plan,
    bundle: PathBuf,
    dir: PathBuf,
}

/// Whether a user without rights over the host's cgroups makes the container, who has not chosen a cgroup: what he may
/// not limit stays without limits, as runc leaves it.
fn is_users(plan: &Plan) -> bool {
    let is_root = || sys::identity::uid() == 0 && namespace::is_initial_user().unwrap_or(true);
    plan.cgroups_path.is_empty() && !is_root()
}

/// Removes a cgroup that no process has entered. Best effort: the error that matters is the one that led here.
fn undo_cgroup(cgroup: &Cgroup) {
    let _ = cgroup.destroy();
}

/// Sends the terminal's master to the console socket, when there are both.
pub(crate) fn hand_over(
    console: Option<OwnedFd>,
    socket: Option<OwnedFd>,
) -> Result<Option<OwnedFd>, sys::Error> {
    match (&console, socket) {
        (Some(master), Some(socket)) => {
            sys::socket::send(socket.as_fd(), b"/dev/ptmx", &[master.as_fd()])?;
            Ok(None)
        }
        _ => Ok(console),
    }
}

/// Writes `pid` so that a reader sees all of it or no file.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<(), sys::Error> {
    let name = path.file_name().unwrap_or_default();
    let fresh = path.with_file_name(format!(".{}", name.display()));
    let failed = |error: std::io::Error| {
        sys::Error::new(error.raw_os_error().unwrap_or(0), format!("write({path:?})"))
    };
    std::fs::write(&fresh, pid.to_string()).map_err(failed)?;
    std::fs::rename(&fresh, path).map_err(failed)
}

/// An id is one name of a directory, as runc takes it.
fn check_id(id: &str) -> Result<(), CreateError> {
    let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte));
    if id.is_empty() || id.len() > 255 || !plain || id == "." || id == ".." {
        return Err(CreateError::Id(id.to_owned()));
    }
    Ok(())
}

/// Reads `<bundle>/config.json`, at most as large as a configuration may be.
pub fn read_spec(bundle: &Path) -> Result<Spec, CreateError> {
    let path = bundle.join("config.json");
    let limit = usize::try_from(MAX_CONFIG_BYTES).unwrap_or(usize::MAX);
    let text = sys::fd::open(&path, O_NONBLOCK).and_then(|file| sys::fd::read_all(file.as_fd(), limit));
    let text = text.map_err(|source| CreateError::Read { path: path.clone(), source })?;
    Spec::from_slice(&text).map_err(|source| CreateError::Json { path, source })
}

const O_NONBLOCK: i32 = 0o4000;

/// Makes the container's directory, and its parents; the one that made it owns the id.
fn reserve(root: &Path, dir: &Path, id: &str) -> Result<(), CreateError> {
    let make = || std::fs::DirBuilder::new().mode(0o711).create(dir);
    let made = make().or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root)?;
            make()
        }
        _ => Err(error),
    });
    made.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => CreateError::Exists(id.to_owned()),
        _ => io_error("mkdir", dir)(error),
    })
}

/// Makes the gate and opens it for both sides, so that neither open nor read ever meets its end.
fn make_gate(dir: &Path) -> Result<OwnedFd, CreateError> {
    let path = dir.join(GATE);
    sys::fd::make_fifo(&path, 0o622)
        .and_then(|()| sys::fd::open(&path, O_RDWR))
        .map_err(CreateError::at("make the start gate"))
}

const O_RDWR: i32 = 2;

fn io_error(call: &str, path: &Path) -> impl FnOnce(std::io::Error) -> CreateError {
    let (call, path) = (format!("{call}({path:?})"), PathBuf::from(path));
    move |error| CreateError::Read { path, source: sys::Error::new(error.raw_os_error().unwrap_or(0), call) }
}

/// Waits a moment for a process that was told to end.
pub(crate) fn reap(pidfd: std::os::fd::BorrowedFd<'_>) {
    let gone = process::ended(pidfd, std::time::Duration::from_secs(10));
    if gone.unwrap_or(false) {
        let _ = process::try_wait(pidfd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_plain_name() {
        for id in ["a", "k8s.io_x+1-2", "..."] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(256)] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }

    #[test]
    fn an_id_is_reserved_once() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().join("not/yet");
        reserve(&base, &base.join("x"), "x").unwrap();
        assert!(matches!(reserve(&base, &base.join("x"), "x"), Err(CreateError::Exists(_))));
    }
}
