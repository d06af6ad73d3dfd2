//! Mounts of a container: the usual ones, the pod's files, the kubelet's and the image's volumes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::spec::runtime::{IdMapping, Mount, Spec};
use ::spec::{Error, Kind};
use api::runtime::v1;
use model::Result;
use sys::mount::table;
use sys::path::clean;

use super::container::ContainerInput;
use super::{PodFiles, UserNamespace, selinux};

/// What is known of a path of the host that a mount names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The path without links.
    pub path: String,
    /// The mount that it is on.
    pub on: String,
    /// Whether mounts made on the host show up below it.
    pub receives: bool,
    /// Whether mounts made below it show up on the host.
    pub sends: bool,
}

/// Looks at the paths of the host that mounts name, and makes directories of those that are missing, as containerd
/// does for the kubelet's volumes. Those that are to be relabelled get the SELinux `label`.
///
/// # Errors
/// A path cannot be resolved or made.
pub fn sources<'a>(
    mounts: impl Iterator<Item = &'a v1::Mount>,
    label: &str,
) -> Result<BTreeMap<String, Source>> {
    let mut found: BTreeMap<String, Source> = BTreeMap::new();
    let mut table: Option<Vec<(PathBuf, bool, bool)>> = None;
    for mount in mounts {
        if mount.image.is_some() && mount.host_path.is_empty() {
            return Err(Error::internal("an image that is to be mounted is not"));
        }
        let path = Path::new(&mount.host_path);
        if !path.is_absolute() {
            return Err(Error::invalid(format_args!("host path {:?} is not absolute", mount.host_path)));
        }
        let failed = |what: &str, error: &std::io::Error| {
            let kind = error.raw_os_error().map_or(Kind::Internal, Kind::from_errno);
            Error::new(kind, format!("failed to {what} {:?}: {error}", mount.host_path))
        };
        match path.metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::create_dir_all(path).map_err(|error| failed("mkdir", &error))?;
            }
            Err(error) => return Err(failed("stat", &error)),
            Ok(_) => {}
        }
        let path = path.canonicalize().map_err(|error| failed("resolve symlink", &error))?;
        if mount.selinux_relabel {
            selinux::relabel(&path, label)?;
        }
        let mut source = Source { path: text(&path)?, ..Source::default() };
        if mount.propagation != v1::MountPropagation::PropagationPrivate as i32 {
            let table = match &mut table {
                Some(table) => table,
                empty => empty.insert(propagation()?),
            };
            let on = table.iter().rev().filter(|(target, ..)| path.starts_with(target));
            if let Some((target, shared, slave)) = on.max_by_key(|(target, ..)| target.as_os_str().len()) {
                source.on = target.display().to_string();
                (source.receives, source.sends) = (*shared || *slave, *shared);
            }
        }
        // Another mount of the same path may have asked how it propagates.
        match found.get(&mount.host_path) {
            Some(known) if source.on.is_empty() && !known.on.is_empty() => {}
            _ => drop(found.insert(mount.host_path.clone(), source)),
        }
    }
    Ok(found)
}

/// Gives the pod's files the SELinux `label` of the container that sees them.
///
/// # Errors
/// A file cannot be labelled.
pub fn relabel_files(files: &PodFiles, label: &str) -> Result<()> {
    let own_shm = files.shm != Path::new("/dev/shm");
    let shm = own_shm.then_some(&files.shm);
    let mut all = [&files.hostname, &files.hosts, &files.resolv_conf].into_iter().chain(shm);
    all.try_for_each(|path| selinux::relabel(path, label))
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::invalid(format_args!("path {:?} is not UTF-8", path.display())))
}

/// Every mount: where it is, whether it is shared, whether it is a slave.
fn propagation() -> Result<Vec<(PathBuf, bool, bool)>> {
    let text = std::fs::read("/proc/self/mountinfo")
        .map_err(|error| Error::internal(format!("cannot read the mount table: {error}")))?;
    let lines = text.split(|&byte| byte == b'\n').filter_map(|line| {
        let entry = table::parse(line).pop()?;
        let tags = line.split(|&byte| byte == b' ').skip(6).take_while(|tag| *tag != b"-");
        Some((entry.target, entry.shared, tags.into_iter().any(|tag| tag.starts_with(b"master:"))))
    });
    Ok(lines.collect())
}

/// Puts all mounts into `spec`, which has the default ones: what the kubelet mounts wins over the pod's files and the
/// image's volumes, all of these over the default ones, and fewer path elements come before more.
///
/// # Errors
/// A mount is not valid: where it goes, its propagation, or its being read-only.
pub fn apply(
    spec: &mut Spec,
    input: &ContainerInput<'_>,
    userns: Option<UserNamespace>,
    sources: &BTreeMap<String, Source>,
) -> Result<()> {
    let mode = if input.handler.cgroup_writable { "rw" } else { "ro" };
    let mut options = vec!["nosuid", "noexec", "nodev", "relatime", mode];
    let own_cgroups = spec.linux_mut().namespace(::spec::runtime::NamespaceKind::Cgroup).is_some();
    if !own_cgroups {
        options.extend(input.host.cgroup_options.iter().map(String::as_str));
    }
    spec.mounts.push(Mount::new("/sys/fs/cgroup", "cgroup", "cgroup", &options));

    let kubelets = &input.config.mounts;
    let taken = |at: &str| kubelets.iter().any(|one| same(&one.container_path, at));
    let mut ours: Vec<v1::Mount> = of_pod(input).into_iter().chain(input.volumes.iter().cloned()).collect();
    if let Some(userns) = userns {
        // What is in /dev/shm was made inside, and has the right owners.
        let files = ours.iter_mut().filter(|mount| mount.container_path != "/dev/shm");
        files.for_each(|mount| userns.shift(mount));
    }
    let ours = ours.iter().filter(|one| !taken(&one.container_path));
    let mut all: Vec<&v1::Mount> = kubelets.iter().chain(ours).collect();
    all.sort_by_key(|mount| depth(&mount.container_path));
    let over_dev = all.iter().any(|one| same(&one.container_path, "/dev"));
    spec.mounts.retain(|usual| {
        usual.destination != "/run"
            && !all.iter().any(|one| same(&one.container_path, &usual.destination))
            && !(over_dev && usual.destination.starts_with("/dev/"))
    });
    for mount in all {
        let known = sources.get(&mount.host_path);
        let unknown = Source { path: mount.host_path.clone(), ..Source::default() };
        let mount = bind(spec, mount, known.unwrap_or(&unknown), input.recursive_read_only)?;
        spec.mounts.push(mount);
    }
    Ok(())
}

/// The pod's files, which the kubelet may mount its own over.
fn of_pod(input: &ContainerInput<'_>) -> Vec<v1::Mount> {
    let security = input.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let readonly = security.is_some_and(|security| security.readonly_rootfs);
    let file = |path: &Path, at: &str, readonly: bool| v1::Mount {
        container_path: at.into(),
        host_path: path.display().to_string(),
        readonly,
        ..v1::Mount::default()
    };
    let files = input.files;
    vec![
        file(&files.hostname, "/etc/hostname", readonly),
        file(&files.hosts, "/etc/hosts", readonly),
        file(&files.resolv_conf, "/etc/resolv.conf", readonly),
        file(&files.shm, "/dev/shm", false),
    ]
}

fn bind(spec: &mut Spec, mount: &v1::Mount, source: &Source, recursive: bool) -> Result<Mount> {
    let at = &mount.container_path;
    if at.is_empty() || at.contains('\0') {
        return Err(Error::invalid(format_args!("container path {at:?}")));
    }
    let mut options = vec!["rbind"];
    let root = &mut spec.linux_mut().rootfs_propagation;
    let private = mount.propagation == v1::MountPropagation::PropagationPrivate as i32;
    let not = |what: &str| {
        Error::invalid(format_args!(
            "path {:?} is mounted on {:?} but it is not a {what} mount",
            source.path, source.on
        ))
    };
    match v1::MountPropagation::try_from(mount.propagation) {
        Ok(v1::MountPropagation::PropagationPrivate) => options.push("rprivate"),
        Ok(v1::MountPropagation::PropagationBidirectional) if source.sends => {
            options.push("rshared");
            *root = "rshared".into();
        }
        Ok(v1::MountPropagation::PropagationBidirectional) => return Err(not("shared")),
        Ok(v1::MountPropagation::PropagationHostToContainer) if source.receives => {
            options.push("rslave");
            if root != "rshared" {
                *root = "rslave".into();
            }
        }
        Ok(v1::MountPropagation::PropagationHostToContainer) => return Err(not("shared or slave")),
        Err(_) => return Err(Error::invalid(format_args!("mount propagation {}", mount.propagation))),
    }
    let path = &mount.host_path;
    options.push(match (mount.readonly, mount.recursive_read_only) {
        (false, false) => "rw",
        (true, false) => "ro",
        (false, true) => {
            return Err(Error::invalid(format_args!(
                "recursive read-only mount conflicts with RW mount (hostPath={path:?})"
            )));
        }
        (true, true) if !recursive => {
            return Err(Error::unimplemented(format_args!(
                "RROUnsupported: runtime handler does not support recursive read-only mounts (hostPath={path:?})"
            )));
        }
        (true, true) if !private => {
            return Err(Error::invalid(format_args!(
                "recursive read-only mount needs private propagation (hostPath={path:?})"
            )));
        }
        (true, true) => "rro",
    });
    Ok(Mount {
        uid_mappings: mappings(&mount.uid_mappings),
        gid_mappings: mappings(&mount.gid_mappings),
        ..Mount::new(at, "bind", &source.path, &options)
    })
}

fn mappings(mappings: &[v1::IdMapping]) -> Vec<IdMapping> {
    let map = |one: &v1::IdMapping| IdMapping {
        container_id: one.container_id,
        host_id: one.host_id,
        size: one.length,
    };
    mappings.iter().map(map).collect()
}

fn same(one: &str, other: &str) -> bool {
    clean(Path::new(one)) == clean(Path::new(other))
}

fn depth(path: &str) -> usize {
    clean(Path::new(path)).components().count()
}
