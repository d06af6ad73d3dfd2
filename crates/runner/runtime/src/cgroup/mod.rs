//! Cgroups of containers: through the cgroup file systems themselves (what runc calls the cgroupfs driver), or as
//! scopes of [`systemd`], which then makes and removes the directories.
//!
//! A container has one directory in every hierarchy: on cgroup v1 and hybrid hosts one a mounted controller, the named
//! `systemd` hierarchy and the v2 tree beside them; on v2 hosts a single one.
//!
//! ```text
//! v1, hybrid  /sys/fs/cgroup/{cpu,memory,...,systemd,unified}/<namespace>/<id>
//! v2          /sys/fs/cgroup/<namespace>/<id>
//! ```
//!
//! A process enters through a [`Joiner`]: it is cloned into the v2 directory, and writes "0" into the v1 `tasks` files
//! itself as its first act. A thread that moves itself needs no lock against its own fork and exit, so this costs 0.1
//! ms for ten hierarchies where writing its pid to `cgroup.procs` from outside waits out an RCU grace period: 15 ms.
//!
//! Invariant: nothing outside the container's own directory is changed, but that missing parents are made and that
//! v2 parents pass their controllers on. Parents stay when the container goes: siblings may be about to use them.
//! Invariant: every wait is bounded.

pub mod convert;
mod device;
mod file;
mod freeze;
mod hierarchy;
mod join;
mod oom;
mod place;
mod processes;
mod remove;
pub mod stats;
pub mod systemd;
mod v1;
mod v2;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use spec::error::{HasKind, Kind};
use spec::runtime::LinuxResources;

pub use freeze::{FreezerState, Freezing};
pub use hierarchy::{Layout, Mode, layout};
pub use join::{Below, Joiner};
pub use oom::{OomEvent, OomWatch};
pub use processes::Killing;
pub use remove::Removal;
pub use stats::Stats;

/// Key of the v2 directory among [`Cgroup::paths`], as runc's state file has it.
pub const UNIFIED: &str = "";

/// Why something could not be done to a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup file system where one belongs.
    #[error("no cgroup hierarchy is mounted on /sys/fs/cgroup")]
    NoHierarchy,
    /// A path that cannot be one.
    #[error("invalid cgroup path {0:?}")]
    Path(String),
    /// The systemd form of a path.
    #[error("cgroup path {0:?} is for the systemd cgroup driver, which was not asked for")]
    SystemdPath(String),
    /// Any other form of a path, where systemd is to make it.
    #[error(
        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {0:?} instead"
    )]
    NotSystemdPath(String),
    /// Somebody else's container is in there.
    #[error("container's cgroup is not empty: {0} process(es) found")]
    NotEmpty(usize),
    /// Processes put in there would hang.
    #[error("container's cgroup unexpectedly frozen")]
    Frozen,
    /// A limit whose controller does not exist here.
    #[error("cannot set {controller} limit: the {controller} controller is not available")]
    NoController {
        /// Its name.
        controller: &'static str,
    },
    /// A value that makes no sense, in words for the user.
    #[error("{0}")]
    Value(String),
    /// It did not happen in time.
    #[error("timed out waiting for cgroup {path} to {what}")]
    Timeout {
        /// Its directory.
        path: PathBuf,
        /// What it should have done.
        what: &'static str,
    },
    /// Systemd would not.
    #[error(transparent)]
    Systemd(#[from] systemd::SystemdError),
    /// A system call failed.
    #[error(transparent)]
    System(#[from] sys::Error),
}

impl HasKind for CgroupError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoHierarchy | Self::NoController { .. } => Kind::Unimplemented,
            Self::Path(_) | Self::Value(_) | Self::SystemdPath(_) | Self::NotSystemdPath(_) => {
                Kind::InvalidArgument
            }
            Self::NotEmpty(_) | Self::Frozen => Kind::FailedPrecondition,
            Self::Timeout { .. } => Kind::DeadlineExceeded,
            Self::Systemd(source) => source.kind(),
            Self::System(source) => Kind::from_errno(source.errno()),
        }
    }
}

/// The cgroup of one container: its directory in every hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// By controller name, `name=systemd` and [`UNIFIED`], as runc's state file has them.
    paths: BTreeMap<String, PathBuf>,
    /// The scope that it is the cgroup of, where systemd made it.
    unit: Option<systemd::Unit>,
}

impl Cgroup {
    /// The cgroup at `path` (`linux.cgroupsPath`) or, if that is empty, the cgroup `id` below the caller's own, before
    /// it is [made](Self::make). An absolute path counts from the mount points, a relative one from the caller's cgroup.
    ///
    /// # Errors
    /// A directory that is there holds processes: they are another container's.
    pub fn plan(path: &str, id: &str) -> Result<Self, CgroupError> {
        let place = place::parse(path, id)?;
        let cgroup = Self::open(place::directories(layout()?, &place)?);
        cgroup.check_empty()?;
        Ok(cgroup)
    }

    /// Makes the planned directories. One that is there is taken if it is empty and thawed.
    pub fn make(&self) -> Result<(), CgroupError> {
        let layout = layout()?;
        let mut made = Vec::new();
        let result = if layout.mode == Mode::V2 {
            v2::make(self, layout, &mut made)
        } else {
            v1::make(self, &mut made)
        };
        result.inspect_err(|_| {
            for directory in made {
                let _ = std::fs::remove_dir(directory);
            }
        })
    }

    /// [`make`](Self::make) for a user whose cgroups may be the system's: hierarchies in which he may make none are left
    /// out, and with them the limits that they would hold.
    pub fn make_permitted(mut self) -> Result<Self, CgroupError> {
        let mut refused = Vec::new();
        for directory in self.directories() {
            match file::make(directory) {
                Err(error) if [file::EACCES, file::EPERM, file::EROFS].contains(&error.errno()) => {
                    refused.push(directory.to_owned());
                }
                done => drop(done?),
            }
        }
        self.paths.retain(|_, path| !refused.contains(path));
        if !self.paths.is_empty() {
            self.make()?;
        }
        Ok(self)
    }

    /// [`plan`](Self::plan), then [`make`](Self::make).
    pub fn create(path: &str, id: &str) -> Result<Self, CgroupError> {
        let cgroup = Self::plan(path, id)?;
        cgroup.make()?;
        Ok(cgroup)
    }

    /// The cgroup at `path`, as [`create`](Self::create) reads it, whoever made it; nothing is made.
    pub fn find(path: &str) -> Result<Self, CgroupError> {
        let place = place::parse(path, "")?;
        Ok(Self::open(place::directories(layout()?, &place)?))
    }

    /// The cgroup whose directories a state file recorded.
    pub fn open(paths: BTreeMap<String, PathBuf>) -> Self {
        Self { paths, unit: None }
    }

    /// The same, as the cgroup of the scope `unit`.
    pub fn open_unit(paths: BTreeMap<String, PathBuf>, unit: systemd::Unit) -> Self {
        Self { paths, unit: Some(unit) }
    }

    /// The scope that it is the cgroup of, where systemd made it.
    pub fn unit(&self) -> Option<&systemd::Unit> {
        self.unit.as_ref()
    }

    /// The cgroup that the process `pid` is in, whichever runtime put it there.
    pub fn of_process(pid: i32) -> Result<Self, CgroupError> {
        let text = file::read(Path::new(&format!("/proc/{pid}/cgroup")))?;
        let own = place::own_paths(&text);
        let directory = |(name, mount): &(String, PathBuf)| {
            let path = own.get(name)?.trim_start_matches('/');
            // A path that climbs out of our cgroup namespace cannot be reached from here.
            (!path.starts_with("..")).then(|| (name.clone(), mount.join(path)))
        };
        Ok(Self::open(layout()?.mounts.iter().filter_map(directory).collect()))
    }

    /// The directories by controller name, `name=systemd` and [`UNIFIED`].
    pub fn paths(&self) -> &BTreeMap<String, PathBuf> {
        &self.paths
    }

    /// The directory of a v1 controller, or the v2 directory on a v2 host.
    pub fn path(&self, controller: &str) -> Option<&Path> {
        let key = if self.is_v2() { UNIFIED } else { controller };
        self.paths.get(key).map(PathBuf::as_path)
    }

    /// Whether v2 is all there is; a user's container may have no cgroup at all.
    pub fn is_v2(&self) -> bool {
        !self.paths.is_empty() && self.paths.keys().all(|key| key == UNIFIED)
    }

    /// Whether its directories still exist.
    pub fn exists(&self) -> bool {
        self.directories().any(Path::exists)
    }

    /// Sets the limits of a new container of a user, who may not set rules for devices.
    pub fn apply_permitted(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        self.write(resources)
    }

    /// Sets every limit of a new container, device rules included.
    pub fn apply(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        self.apply_devices(resources)?;
        self.write(resources)
    }

    /// Changes limits of a running container; device rules stay as they are.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        if let Some(unit) = &self.unit {
            if let Some(path) = self.path(UNIFIED).filter(|_| self.is_v2()) {
                v2::check_update(path, resources)?;
            }
            systemd::update(unit, resources)?;
        }
        self.write(resources)
    }

    fn write(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let resources = &match self.unit {
            Some(_) => Cow::Owned(systemd::rounded(resources)),
            None => Cow::Borrowed(resources),
        };
        match self.is_v2() {
            true => v2::apply(self.path(UNIFIED).ok_or(CgroupError::NoHierarchy)?, resources),
            false => v1::apply(self, resources),
        }
    }

    fn apply_devices(&self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let rules = device::rules(&resources.devices)?;
        match self.path("devices") {
            Some(path) if self.is_v2() => device::attach(path, &rules),
            Some(path) => device::write_v1(path, &rules),
            None => Err(CgroupError::NoController { controller: "devices" }),
        }
    }

    /// Usage figures.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        stats::read(self)
    }

    /// Every directory once: controllers may share a hierarchy.
    fn directories(&self) -> impl Iterator<Item = &Path> {
        let mut seen: Vec<&Path> = Vec::with_capacity(self.paths.len());
        for path in self.paths.values() {
            if !seen.contains(&path.as_path()) {
                seen.push(path);
            }
        }
        seen.into_iter()
    }
}
