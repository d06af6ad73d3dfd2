//! The plan of a container: everything the specification asks for, checked and spelled for the kernel.
//!
//! Pure: no file is opened and nothing is made. What is wrong with a `config.json` is found here, before anything of a
//! container exists; what is left to fail later depends on the machine.
//!
//! Invariant: a namespaced thing (sysctl, host name, mask) is planned only when its namespace is the container's own.

mod device;
pub mod memory_policy;
mod mount;
mod process;
mod sysctl;

use std::path::{Path, PathBuf};

use spec::runtime::{Hooks, IdMapping, LinuxResources, NamespaceKind, Spec, TimeOffset};
use spec::{HasKind, Kind};
use sys::mount::Propagation;
use sys::namespace;

pub use device::{DEFAULT_LINKS, Device};
pub use mount::{IdMap, Mount, MountKind, Owners};
pub use process::{Capabilities, Limit, Process, StartCpus};

use crate::seccomp::CompileError;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A field has no meaning, or contradicts another.
    #[error("invalid configuration: {field}: {why}")]
    Field {
        /// The field of `config.json`.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// The system call filter does not compile.
    #[error("invalid configuration: linux.seccomp")]
    Seccomp(#[source] CompileError),
}

impl PlanError {
    /// `field: why`.
    pub(crate) fn field(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Field { field: field.into(), why: why.into() }
    }
}

impl HasKind for PlanError {
    fn kind(&self) -> Kind {
        match self {
            Self::Field { .. } => Kind::InvalidArgument,
            Self::Seccomp(source) => source.kind(),
        }
    }
}

/// The namespaces of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Kinds that are made anew, in no order.
    pub new: Vec<namespace::Kind>,
    /// Kinds that are joined, and the files they are joined by.
    pub joined: Vec<(namespace::Kind, PathBuf)>,
    /// Text for `uid_map`; empty without mappings.
    pub uid_map: String,
    /// Text for `gid_map`; empty without mappings.
    pub gid_map: String,
    /// Text for `timens_offsets`; empty without offsets.
    pub time_offsets: String,
}

impl Namespaces {
    /// Whether a namespace of `kind` is made anew.
    pub fn is_new(&self, kind: namespace::Kind) -> bool {
        self.new.contains(&kind)
    }

    /// Whether a namespace of `kind` is joined by path.
    pub fn is_joined(&self, kind: namespace::Kind) -> bool {
        self.joined.iter().any(|(joined, _)| *joined == kind)
    }

    /// Whether the container has a namespace of `kind` that is not the caller's.
    pub fn has(&self, kind: namespace::Kind) -> bool {
        self.is_new(kind) || self.is_joined(kind)
    }
}

/// A container, ready to be made.
#[derive(Debug)]
pub struct Plan {
    /// Its root file system on the host.
    pub rootfs: PathBuf,
    /// Whether the root file system becomes read-only.
    pub readonly_rootfs: bool,
    /// Propagation of the container's root, and whether it holds for all below.
    pub propagation: Option<(Propagation, bool)>,
    /// Its namespaces.
    pub namespaces: Namespaces,
    /// What is mounted, in order.
    pub mounts: Vec<Mount>,
    /// Device nodes to make in `/dev`; empty when `/dev` is bound from elsewhere.
    pub devices: Vec<Device>,
    /// Whether `/dev` is the container's own and gets the usual links.
    pub own_dev: bool,
    /// Paths to hide.
    pub masked_paths: Vec<PathBuf>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// Files below `/proc/sys` and their values.
    pub sysctls: Vec<(String, String)>,
    /// Host name to set.
    pub hostname: Option<String>,
    /// NIS domain name to set.
    pub domainname: Option<String>,
    /// The process.
    pub process: Process,
    /// Commands to run around the container's life.
    pub hooks: Hooks,
    /// Where in the cgroup tree it lives; empty for the default.
    pub cgroups_path: String,
    /// Its limits.
    pub resources: LinuxResources,
    /// SELinux label of mounts; empty for none.
    pub mount_label: String,
}

/// Plans the container that `spec` describes, whose bundle is the absolute directory `bundle`.
pub fn plan(spec: &Spec, bundle: &Path) -> Result<Plan, PlanError> {
    check_version(&spec.oci_version)?;
    let linux = spec.linux.clone().unwrap_or_default();
    let root = spec.root.as_ref().ok_or_else(|| PlanError::field("root", "is missing"))?;
    if root.path.is_empty() {
        return Err(PlanError::field("root.path", "is empty"));
    }
    let process = spec.process.as_ref().ok_or_else(|| PlanError::field("process", "is missing"))?;
    let namespaces = namespaces(&linux)?;
    check_names(spec, &namespaces)?;
    check_paths(&linux, &namespaces)?;
    check_supported(&linux)?;
    let mut process = process::plan(process)?;
    process.seccomp =
        linux.seccomp.as_ref().map(crate::seccomp::compile).transpose().map_err(PlanError::Seccomp)?;
    process.personality = process::personality(linux.personality.as_ref())?;
    process.limited_cpus = limits_cpus(spec);
    process.memory_policy = linux.memory_policy.as_ref().map(memory_policy::plan).transpose()?;
    let rootfs = bundle.join(&root.path);
    let context = mount::Context { bundle, rootfs: &rootfs, namespaces: &namespaces };
    let mounts = mount::plan(&spec.mounts, &context)?;
    let own_dev = !mounts.iter().any(Mount::binds_dev);
    Ok(Plan {
        readonly_rootfs: root.readonly,
        propagation: propagation(&linux.rootfs_propagation)?,
        sysctls: sysctl::plan(&linux.sysctl, &namespaces)?,
        namespaces,
        mounts,
        devices: if own_dev { device::plan(&linux.devices, &rootfs)? } else { Vec::new() },
        own_dev,
        rootfs,
        masked_paths: distinct(paths(&linux.masked_paths)),
        readonly_paths: paths(&linux.readonly_paths),
        hostname: Some(spec.hostname.clone()).filter(|name| !name.is_empty()),
        domainname: Some(spec.domainname.clone()).filter(|name| !name.is_empty()),
        process,
        hooks: spec.hooks.clone().unwrap_or_default(),
        cgroups_path: linux.cgroups_path,
        resources: linux.resources.unwrap_or_default(),
        mount_label: linux.mount_label,
    })
}

/// Plans a process that joins a container made from `spec`, whose filter and personality it takes over.
pub fn plan_exec(spec: &Spec, wanted: &spec::runtime::Process) -> Result<Process, PlanError> {
    let mut process = process::plan(wanted)?;
    if let Some(linux) = &spec.linux {
        process.seccomp =
            linux.seccomp.as_ref().map(crate::seccomp::compile).transpose().map_err(PlanError::Seccomp)?;
        process.personality = process::personality(linux.personality.as_ref())?;
        process.memory_policy = linux.memory_policy.as_ref().map(memory_policy::plan).transpose()?;
    }
    process.limited_cpus = limits_cpus(spec);
    Ok(process)
}

/// Whether the container's cgroup has a set of CPUs of its own.
fn limits_cpus(spec: &Spec) -> bool {
    let resources = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    resources.and_then(|resources| resources.cpu.as_ref()).is_some_and(|cpu| !cpu.cpus.is_empty())
}

/// What this runtime does not do is refused, never silently left out.
fn check_supported(linux: &spec::runtime::Linux) -> Result<(), PlanError> {
    let asked =
        [("linux.netDevices", !linux.net_devices.is_empty()), ("linux.intelRdt", linux.intel_rdt.is_some())];
    match asked.into_iter().find(|(_, asked)| *asked) {
        Some((field, _)) => Err(PlanError::field(field, "is not supported")),
        None => Ok(()),
    }
}

fn check_version(version: &str) -> Result<(), PlanError> {
    if version.starts_with("1.") {
        return Ok(());
    }
    Err(PlanError::field("ociVersion", format!("{version:?} is not supported, only 1.x is")))
}

fn paths(texts: &[String]) -> Vec<PathBuf> {
    texts.iter().map(PathBuf::from).collect()
}

/// Each path once, whatever its spelling: hiding one twice would stack two mounts.
fn distinct(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut seen = std::collections::BTreeSet::new();
    paths.into_iter().filter(|path| seen.insert(sys::path::clean(path))).collect()
}

fn propagation(text: &str) -> Result<Option<(Propagation, bool)>, PlanError> {
    if text.is_empty() {
        return Ok(None);
    }
    let options = sys::mount::fstab::split(&[text]);
    match options.propagation.as_slice() {
        [one] => Ok(Some(*one)),
        _ => Err(PlanError::field("linux.rootfsPropagation", format!("{text:?} is unknown"))),
    }
}

fn namespaces(linux: &spec::runtime::Linux) -> Result<Namespaces, PlanError> {
    let mut out = Namespaces::default();
    for wanted in &linux.namespaces {
        let kind = kind_of(wanted.kind);
        if out.has(kind) {
            let why = format!("{} is there twice", wanted.kind.name());
            return Err(PlanError::field("linux.namespaces", why));
        }
        if wanted.path.is_empty() {
            out.new.push(kind);
        } else {
            out.joined.push((kind, absolute("linux.namespaces", &wanted.path)?));
        }
    }
    out.uid_map = id_map(&linux.uid_mappings);
    out.gid_map = id_map(&linux.gid_mappings);
    out.time_offsets = time_offsets(&linux.time_offsets)?;
    check_namespaces(&out)?;
    Ok(out)
}

fn check_namespaces(namespaces: &Namespaces) -> Result<(), PlanError> {
    let mapped = !namespaces.uid_map.is_empty() && !namespaces.gid_map.is_empty();
    if namespaces.is_new(namespace::Kind::User) && !mapped {
        return Err(PlanError::field(
            "linux.uidMappings",
            "a new user namespace needs mappings of users and groups",
        ));
    }
    let any = !namespaces.uid_map.is_empty() || !namespaces.gid_map.is_empty();
    if any && !namespaces.has(namespace::Kind::User) {
        return Err(PlanError::field("linux.uidMappings", "mappings need a user namespace"));
    }
    if !namespaces.time_offsets.is_empty() && !namespaces.is_new(namespace::Kind::Time) {
        return Err(PlanError::field("linux.timeOffsets", "offsets need a new time namespace"));
    }
    Ok(())
}

fn check_names(spec: &Spec, namespaces: &Namespaces) -> Result<(), PlanError> {
    let own_uts = namespaces.has(namespace::Kind::Uts);
    for (field, value) in [("hostname", &spec.hostname), ("domainname", &spec.domainname)] {
        if !value.is_empty() && !own_uts {
            return Err(PlanError::field(field, "unable to set it without a private UTS namespace"));
        }
        if value.len() > 64 || value.contains('\0') {
            return Err(PlanError::field(field, "is longer than 64 bytes or holds a zero byte"));
        }
    }
    Ok(())
}

fn check_paths(linux: &spec::runtime::Linux, namespaces: &Namespaces) -> Result<(), PlanError> {
    for (field, paths) in
        [("linux.maskedPaths", &linux.masked_paths), ("linux.readonlyPaths", &linux.readonly_paths)]
    {
        if !paths.is_empty() && !namespaces.has(namespace::Kind::Mount) {
            return Err(PlanError::field(
                field,
                "unable to restrict paths without a private mount namespace",
            ));
        }
        for path in paths {
            absolute(field, path)?;
        }
    }
    Ok(())
}

/// `text` as a path that begins with a slash and holds no zero byte.
fn absolute(field: &str, text: &str) -> Result<PathBuf, PlanError> {
    if !text.starts_with('/') || text.contains('\0') {
        return Err(PlanError::field(field, format!("{text:?} is not an absolute path")));
    }
    Ok(PathBuf::from(text))
}

/// The text of `uid_map` and `gid_map`.
fn id_map(mappings: &[IdMapping]) -> String {
    mappings.iter().map(|map| format!("{} {} {}\n", map.container_id, map.host_id, map.size)).collect()
}

fn time_offsets(offsets: &std::collections::BTreeMap<String, TimeOffset>) -> Result<String, PlanError> {
    let mut text = String::new();
    for (clock, offset) in offsets {
        if clock != "monotonic" && clock != "boottime" {
            return Err(PlanError::field("linux.timeOffsets", format!("{clock:?} is unknown")));
        }
        text.push_str(&format!("{clock} {} {}\n", offset.secs, offset.nanosecs));
    }
    Ok(text)
}

/// The kernel's kind of a namespace of the specification.
pub fn kind_of(kind: NamespaceKind) -> namespace::Kind {
    match kind {
        NamespaceKind::Pid => namespace::Kind::Pid,
        NamespaceKind::Network => namespace::Kind::Network,
        NamespaceKind::Mount => namespace::Kind::Mount,
        NamespaceKind::Ipc => namespace::Kind::Ipc,
        NamespaceKind::Uts => namespace::Kind::Uts,
        NamespaceKind::User => namespace::Kind::User,
        NamespaceKind::Cgroup => namespace::Kind::Cgroup,
        NamespaceKind::Time => namespace::Kind::Time,
    }
}

#[cfg(test)]
mod tests;
