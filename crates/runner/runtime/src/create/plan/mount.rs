//! Mounts of a container.

use std::path::{Path, PathBuf};

use spec::runtime::IdMapping;
use sys::mount::fstab::{Options, split};

use super::PlanError;

/// What a mount shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// Something that exists, with or without what is mounted below it.
    Bind {
        /// Whether mounts below come along.
        recursive: bool,
    },
    /// The container's own cgroups.
    Cgroup,
    /// A file system of the type that the mount names.
    FileSystem,
}

/// Owners of a mount, shifted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// Text of `uid_map`.
    pub uid_map: String,
    /// Text of `gid_map`.
    pub gid_map: String,
    /// Whether mounts below are shifted too.
    pub recursive: bool,
}

/// A mount to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where, as an absolute path in the container.
    pub target: PathBuf,
    /// What it shows.
    pub kind: MountKind,
    /// Type of the file system (`proc`, `tmpfs`, ...).
    pub file_system: String,
    /// A path of the host for a bind, any text otherwise.
    pub source: PathBuf,
    /// How.
    pub options: Options,
    /// Owners, when shifted.
    pub id_map: Option<IdMap>,
}

impl Mount {
    /// Whether this binds something onto `/dev`, whose content is then not ours.
    pub fn binds_dev(&self) -> bool {
        matches!(self.kind, MountKind::Bind { .. }) && self.is_at("/dev")
    }

    /// Whether this is mounted exactly at `path`.
    pub fn is_at(&self, path: &str) -> bool {
        sys::path::clean(&self.target) == sys::path::clean(path.as_ref())
    }
}

/// Checks and sorts the options of every mount.
pub(super) fn plan(mounts: &[spec::runtime::Mount], bundle: &Path) -> Result<Vec<Mount>, PlanError> {
    mounts.iter().map(|mount| one(mount, bundle)).collect()
}

fn one(mount: &spec::runtime::Mount, bundle: &Path) -> Result<Mount, PlanError> {
    let refuse = |why: &str| PlanError::field("mounts", format!("{:?}: {why}", mount.destination));
    if mount.destination.is_empty()
        || [&mount.destination, &mount.source, &mount.kind].iter().any(|s| s.contains('\0'))
    {
        return Err(refuse("is empty or holds a zero byte"));
    }
    let options = split(&mount.options);
    let kind = match (options.bind, mount.kind.as_str()) {
        (Some(recursive), _) => MountKind::Bind { recursive },
        (None, "bind") => MountKind::Bind { recursive: false },
        (None, "rbind") => MountKind::Bind { recursive: true },
        (None, "cgroup" | "cgroup2") => MountKind::Cgroup,
        (None, "") => return Err(refuse("has no type")),
        (None, _) => MountKind::FileSystem,
    };
    if matches!(kind, MountKind::Bind { .. }) && mount.source.is_empty() {
        return Err(refuse("a bind needs a source"));
    }
    if options.copy_up && mount.kind != "tmpfs" {
        return Err(refuse("tmpcopyup is for tmpfs only"));
    }
    let id_map = id_map(mount, &options, &refuse)?;
    Ok(Mount {
        // Relative targets are deprecated but accepted, below the root.
        target: PathBuf::from("/").join(sys::path::clean(mount.destination.as_ref())),
        kind,
        file_system: mount.kind.clone(),
        source: match kind {
            // A relative source counts from the bundle.
            MountKind::Bind { .. } => bundle.join(&mount.source),
            MountKind::Cgroup | MountKind::FileSystem => PathBuf::from(&mount.source),
        },
        options,
        id_map,
    })
}

fn id_map(
    mount: &spec::runtime::Mount,
    options: &Options,
    refuse: &dyn Fn(&str) -> PlanError,
) -> Result<Option<IdMap>, PlanError> {
    let text = |mappings: &[IdMapping]| super::id_map(mappings);
    match (mount.uid_mappings.is_empty(), mount.gid_mappings.is_empty()) {
        (true, true) if options.idmap.is_some() => Err(refuse("idmap needs uidMappings and gidMappings")),
        (true, true) => Ok(None),
        (false, false) => Ok(Some(IdMap {
            uid_map: text(&mount.uid_mappings),
            gid_map: text(&mount.gid_mappings),
            recursive: options.idmap == Some(true),
        })),
        _ => Err(refuse("uidMappings and gidMappings go together")),
    }
}
