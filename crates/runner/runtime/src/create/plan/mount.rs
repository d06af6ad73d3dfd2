//! Mounts of a container.

use std::path::{Path, PathBuf};

use spec::runtime::IdMapping;
use sys::mount::fstab::{Options, split};

use super::{Namespaces, PlanError};

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
    /// By what.
    pub owners: Owners,
    /// Whether mounts below are shifted too.
    pub recursive: bool,
}

/// How owners are shifted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owners {
    /// By these texts of `uid_map` and `gid_map`.
    Maps {
        /// Text of `uid_map`.
        uid_map: String,
        /// Text of `gid_map`.
        gid_map: String,
    },
    /// As the user namespace of this file does.
    Namespace(PathBuf),
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

/// What mounts are planned with.
#[derive(Debug)]
pub(super) struct Context<'a> {
    /// The bundle directory: a relative source counts from it.
    pub bundle: &'a Path,
    /// The container's root file system on the host.
    pub rootfs: &'a Path,
    /// The container's namespaces, whose mappings `idmap` alone means.
    pub namespaces: &'a Namespaces,
}

/// Checks and sorts the options of every mount.
pub(super) fn plan(mounts: &[spec::runtime::Mount], context: &Context<'_>) -> Result<Vec<Mount>, PlanError> {
    mounts.iter().map(|mount| one(mount, context)).collect()
}

fn one(mount: &spec::runtime::Mount, context: &Context<'_>) -> Result<Mount, PlanError> {
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
    let id_map = id_map(mount, &options, context, &refuse)?;
    if id_map.is_some() && !matches!(kind, MountKind::Bind { .. }) {
        return Err(refuse("id-mapped mounts are only supported for bind-mounts"));
    }
    Ok(Mount {
        target: below_root(&mount.destination, context.rootfs),
        kind,
        file_system: mount.kind.clone(),
        source: match kind {
            // A relative source counts from the bundle.
            MountKind::Bind { .. } => context.bundle.join(&mount.source),
            MountKind::Cgroup | MountKind::FileSystem => PathBuf::from(&mount.source),
        },
        options,
        id_map,
    })
}

/// `path` as an absolute path in the container. One that begins with the root file system's own path on the host counts
/// from there, and a relative one, which is deprecated, from the root: both as runc takes them.
pub(super) fn below_root(path: &str, rootfs: &Path) -> PathBuf {
    let clean = sys::path::clean(path.as_ref());
    let root = sys::path::clean(rootfs);
    let below = clean.strip_prefix(&root).unwrap_or(&clean);
    PathBuf::from("/").join(below)
}

fn id_map(
    mount: &spec::runtime::Mount,
    options: &Options,
    context: &Context<'_>,
    refuse: &dyn Fn(&str) -> PlanError,
) -> Result<Option<IdMap>, PlanError> {
    let text = |mappings: &[IdMapping]| super::id_map(mappings);
    let owners = match (mount.uid_mappings.is_empty(), mount.gid_mappings.is_empty()) {
        (true, true) if options.idmap.is_some() => match own_owners(context.namespaces) {
            Some(owners) => owners,
            None => return Err(refuse("id-mapped mounts must have both uid and gid mappings specified")),
        },
        (true, true) => return Ok(None),
        (false, false) => {
            Owners::Maps { uid_map: text(&mount.uid_mappings), gid_map: text(&mount.gid_mappings) }
        }
        _ => return Err(refuse("id-mapped mounts must have both uid and gid mappings specified")),
    };
    Ok(Some(IdMap { owners, recursive: options.idmap == Some(true) }))
}

/// The mappings of the container's own user namespace.
fn own_owners(namespaces: &Namespaces) -> Option<Owners> {
    let joined = namespaces.joined.iter().find(|(kind, _)| *kind == sys::namespace::Kind::User);
    if let Some((_, path)) = joined {
        return Some(Owners::Namespace(path.clone()));
    }
    let (uid_map, gid_map) = (namespaces.uid_map.clone(), namespaces.gid_map.clone());
    (!uid_map.is_empty() && !gid_map.is_empty()).then_some(Owners::Maps { uid_map, gid_map })
}
