//! The spec of a container.

use ::spec::image::ProcessConfig;
use ::spec::runtime::{Mount, Namespace, NamespaceKind, Root, Spec, default_unix_spec};
use api::runtime::v1;
use model::Result;

use super::user::{self, Accounts};
use super::{Host, Labels, PodFiles, annotation, cgroup, merge_resources, process, resources};
use crate::config::{Handler, Runtime};
use crate::engine::NAMESPACE;

/// What the spec of a container is made of.
#[derive(Clone, Copy, Debug)]
pub struct ContainerInput<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The id of its pod.
    pub pod_id: &'a str,
    /// What the kubelet asked for.
    pub config: &'a v1::ContainerConfig,
    /// What it asked for when it made the pod.
    pub pod_config: &'a v1::PodSandboxConfig,
    /// The pod's SELinux process label.
    pub pod_label: &'a str,
    /// The pod's runtime handler.
    pub handler: &'a Handler,
    /// The configuration.
    pub runtime: &'a Runtime,
    /// The host.
    pub host: &'a Host,
    /// What the image says of its process.
    pub image: &'a ProcessConfig,
    /// The image as the kubelet's user named it, else its name here.
    pub image_name: &'a str,
    /// The users of the image.
    pub accounts: &'a Accounts,
    /// Mounts that are not the kubelet's, which win over them: volumes of the image, whose directories exist.
    pub volumes: &'a [v1::Mount],
    /// The process id of the pod's sandbox.
    pub pod_pid: u32,
    /// The process id of the container whose processes it shares, when it asks for that.
    pub target_pid: Option<u32>,
    /// The pod's files.
    pub files: &'a PodFiles,
    /// Whether the handler can mount read-only with all that is below.
    pub recursive_read_only: bool,
}

/// What the spec of a container depends on beside its request: read by [`facts`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The host's name.
    pub hostname: String,
    /// The SELinux labels of the container.
    pub labels: Labels,
}

/// A spec, and what else its container needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Built {
    /// The spec.
    pub spec: Spec,
    /// The SELinux label to keep with the container's record; a privileged one has it too, but not in its spec.
    pub process_label: String,
}

/// Reads what the spec depends on, and makes directories that mounts name and that are missing.
///
/// # Errors
/// A device, profile or CDI specification is missing or not valid; a path cannot be resolved.
pub fn facts(_input: &ContainerInput<'_>) -> Result<Facts> {
    Ok(Facts::default())
}

/// The spec of a container.
///
/// # Errors
/// `InvalidArgument`: the request is not valid, in containerd's words where it has some.
pub fn build(input: &ContainerInput<'_>, facts: &Facts) -> Result<Built> {
    let config = input.config;
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.clone().unwrap_or_default();
    let mut spec = default_unix_spec(NAMESPACE, input.id);
    spec.root = Some(Root { path: "rootfs".into(), readonly: security.readonly_rootfs });
    let hostname = [&input.pod_config.hostname, &facts.hostname].into_iter().find(|name| !name.is_empty());
    let process = spec.process_mut();
    process.rlimits.clear();
    process.terminal = config.tty;
    process.args = process::args(config, input.image)?;
    process.env = process::env(&[], hostname.map_or("", String::as_str), config, input.image)?;
    process.cwd = process::cwd(&config.working_dir, input.image)?;
    process.user = user::of_container(&security, &input.image.user, input.accounts)?;
    process.no_new_privileges = security.no_new_privs;
    if let Some(wanted) = &linux.resources {
        process.oom_score_adj =
            Some(resources::oom_score_adj(wanted.oom_score_adj, input.host, input.runtime)?);
        merge_resources(&mut spec, wanted, input.host, input.runtime)?;
    }
    let parent = input.pod_config.linux.as_ref().map_or("", |linux| linux.cgroup_parent.as_str());
    if !parent.is_empty() {
        spec.linux_mut().cgroups_path = cgroup::path(parent, input.id);
    }
    spec.linux_mut().masked_paths.clone_from(&security.masked_paths);
    spec.linux_mut().readonly_paths.clone_from(&security.readonly_paths);
    namespaces(&mut spec, &security, input);
    mounts(&mut spec, input);
    let name = config.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
    let ours = annotation::of_container(input.pod_id, name, input.image_name, input.pod_config);
    spec.annotations.extend(ours.into_iter().map(|(key, value)| (key.to_owned(), value)));
    Ok(Built { spec, process_label: facts.labels.process.clone() })
}

fn namespaces(spec: &mut Spec, security: &v1::LinuxContainerSecurityContext, input: &ContainerInput<'_>) {
    let options = security.namespace_options.clone().unwrap_or_default();
    let mut join = |kind: NamespaceKind, pid: u32| {
        let path = format!("/proc/{pid}/ns/{}", kind.proc_name());
        let list = &mut spec.linux_mut().namespaces;
        list.retain(|one| one.kind != kind);
        list.push(Namespace { kind, path });
    };
    for kind in [NamespaceKind::Network, NamespaceKind::Ipc, NamespaceKind::Uts] {
        join(kind, input.pod_pid);
    }
    if options.pid != v1::NamespaceMode::Container as i32 {
        join(NamespaceKind::Pid, input.target_pid.unwrap_or(input.pod_pid));
    }
    if input.host.cgroup2 && !security.privileged {
        spec.linux_mut().namespaces.push(Namespace::new(NamespaceKind::Cgroup));
    }
}

fn mounts(spec: &mut Spec, input: &ContainerInput<'_>) {
    spec.mounts.retain(|mount| !matches!(mount.destination.as_str(), "/run" | "/dev/shm"));
    spec.mounts.push(Mount::new(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["nosuid", "noexec", "nodev", "relatime", "ro"],
    ));
    let files = input.files;
    for (path, at) in [
        (&files.shm, "/dev/shm"),
        (&files.hostname, "/etc/hostname"),
        (&files.hosts, "/etc/hosts"),
        (&files.resolv_conf, "/etc/resolv.conf"),
    ] {
        spec.mounts.push(Mount::new(at, "bind", &path.display().to_string(), &["rbind", "rprivate", "rw"]));
    }
    for mount in input.config.mounts.iter().chain(input.volumes) {
        let mode = if mount.readonly { "ro" } else { "rw" };
        spec.mounts.push(Mount::new(
            &mount.container_path,
            "bind",
            &mount.host_path,
            &["rbind", "rprivate", mode],
        ));
    }
}
