//! The spec of a container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ::spec::Error;
use ::spec::image::ProcessConfig;
use ::spec::runtime::{
    LinuxDevice, MAX_CONFIG_BYTES, Namespace, NamespaceKind, Root, Spec, default_unix_spec,
};
use api::runtime::v1;
use model::Result;

use super::user::{self, Accounts};
use super::{
    Host, Labels, PodFiles, UserNamespace, annotation, apparmor, cgroup, class, device, failed,
    merge_resources, mount, process, read_file, resources, security, selinux,
};
use crate::cdi;
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
    /// The handler's base specification.
    pub base: Option<Spec>,
    /// The system call filter.
    pub filter: security::Filter,
    /// The paths of the host that mounts name.
    pub sources: BTreeMap<String, mount::Source>,
    /// The devices that are asked for.
    pub devices: Vec<device::Found>,
    /// The host's devices, for the privileged.
    pub host_devices: Vec<LinuxDevice>,
    /// What CDI devices ask for.
    pub edits: cdi::Edits,
    /// The AppArmor profile; empty for none.
    pub apparmor: String,
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
#[expect(deprecated, reason = "kubelets before 1.27 fill the older field")]
pub fn facts(input: &ContainerInput<'_>) -> Result<Facts> {
    let security = security_of(input.config);
    let filter = security::filter(
        security.seccomp.as_ref(),
        &security.seccomp_profile_path,
        &input.runtime.unset_seccomp_profile,
        security.privileged,
        input.host,
    )?;
    let labels = selinux::of_container(
        input.host.selinux(input.runtime),
        security.selinux_options.as_ref(),
        input.runtime.selinux_category_range,
        input.pod_label,
    )?;
    mount::relabel_files(input.files, &labels.mount)?;
    let all_devices = security.privileged && !input.handler.privileged_without_host_devices;
    let hostname = read_file("/proc/sys/kernel/hostname".as_ref(), 4096).unwrap_or_default();
    let sources = mount::sources(input.config.mounts.iter().chain(input.volumes), &labels.mount)?;
    Ok(Facts {
        hostname: String::from_utf8_lossy(&hostname).trim().to_owned(),
        labels,
        base: base(input.handler)?,
        filter,
        sources,
        devices: device::find(&input.config.devices)?,
        host_devices: if all_devices { device::of_host()? } else { Vec::new() },
        edits: edits(input)?,
        apparmor: apparmor::profile(
            input.host.apparmor.as_ref().filter(|_| !input.runtime.disable_apparmor),
            security.apparmor.as_ref(),
            &security.apparmor_profile,
            security.privileged,
        )?,
    })
}

/// What the CDI devices of the request ask for.
fn edits(input: &ContainerInput<'_>) -> Result<cdi::Edits> {
    let (config, runtime) = (input.config, input.runtime);
    if !runtime.enable_cdi {
        if config.cdi_devices.is_empty() {
            return Ok(cdi::Edits::default());
        }
        let names: Vec<_> = config.cdi_devices.iter().map(|device| device.name.as_str()).collect();
        return Err(Error::failed_precondition(format_args!(
            "CDI devices ({}) requested but CDI support is explicitly disabled",
            names.join(", ")
        )));
    }
    cdi::find(&runtime.cdi_spec_dirs, &cdi::requested(config)?)
}

fn base(handler: &Handler) -> Result<Option<Spec>> {
    let Some(path) = &handler.base_runtime_spec else { return Ok(None) };
    let what = format!("can't load base OCI spec {:?}", path.display());
    let limit = usize::try_from(MAX_CONFIG_BYTES).unwrap_or(usize::MAX);
    let bytes = read_file(path, limit).map_err(|error| failed(&what, &error))?;
    let spec = Spec::from_slice(&bytes).map_err(|error| Error::invalid(format_args!("{what}: {error}")))?;
    Ok(Some(spec))
}

fn security_of(config: &v1::ContainerConfig) -> v1::LinuxContainerSecurityContext {
    let linux = config.linux.as_ref().and_then(|linux| linux.security_context.clone());
    linux.unwrap_or_default()
}

/// The spec of a container.
///
/// # Errors
/// `InvalidArgument`: the request is not valid, in containerd's words where it has some.
pub fn build(input: &ContainerInput<'_>, facts: &Facts) -> Result<Built> {
    let config = input.config;
    let linux = config.linux.clone().unwrap_or_default();
    let security = security_of(config);
    let options = security.namespace_options.clone().unwrap_or_default();
    let userns = UserNamespace::of_container(&options, input.pod_config)?;
    let mut spec = begin(input, facts);
    spec.root = Some(Root { path: "rootfs".into(), readonly: security.readonly_rootfs });
    let hostname = [&input.pod_config.hostname, &facts.hostname].into_iter().find(|name| !name.is_empty());
    let process = spec.process_mut();
    let inherited = std::mem::take(&mut process.env);
    process.terminal = config.tty;
    process.args = process::args(config, input.image)?;
    process.env = process::env(&inherited, hostname.map_or("", String::as_str), config, input.image)?;
    process.cwd = process::cwd(&config.working_dir, input.image)?;
    process.user = user::of_container(&security, &input.image.user, input.accounts)?;
    process.no_new_privileges = security.no_new_privs;
    process.selinux_label.clone_from(&facts.labels.process);
    if let Some(wanted) = &linux.resources {
        process.oom_score_adj =
            Some(resources::oom_score_adj(wanted.oom_score_adj, input.host, input.runtime)?);
        merge_resources(&mut spec, wanted, input.host, input.runtime)?;
    }
    spec.linux_mut().mount_label.clone_from(&facts.labels.mount);
    let parent = input.pod_config.linux.as_ref().map_or("", |linux| linux.cgroup_parent.as_str());
    if !parent.is_empty() {
        spec.linux_mut().cgroups_path = cgroup::path(parent, input.id);
    }
    if !input.runtime.disable_proc_mount {
        spec.linux_mut().masked_paths.clone_from(&security.masked_paths);
        spec.linux_mut().readonly_paths.clone_from(&security.readonly_paths);
    }
    namespaces(&mut spec, &security, input);
    if let Some(userns) = userns {
        let path = PathBuf::from(format!("/proc/{}/ns/user", input.pod_pid));
        let of_pod = crate::state::namespaces(input.pod_config);
        userns.apply(&mut spec, Some(&path), of_pod.network == v1::NamespaceMode::Node as i32);
    }
    mount::apply(&mut spec, input, userns, &facts.sources)?;
    device::apply(&mut spec, &facts.devices, device_owner(&security, input.runtime));
    cdi::apply(&mut spec, &facts.edits);
    if let Some(wanted) = &security.capabilities {
        security::capabilities(&mut spec, wanted, input.host)?;
    }
    if security.privileged {
        security::privilege(&mut spec, input.pod_config, input.handler, input.host)?;
        device::add_of_host(&mut spec, &facts.host_devices);
    } else if facts.base.is_none() || facts.filter != security::Filter::Unconfined {
        facts.filter.apply(&mut spec);
    }
    if !facts.apparmor.is_empty() {
        // Also for the privileged, who may ask for one by its name.
        spec.process_mut().apparmor_profile.clone_from(&facts.apparmor);
    }
    let from_pod = annotation::passed_through(&input.pod_config.annotations, &input.handler.pod_annotations);
    spec.annotations.extend(from_pod);
    spec.annotations
        .extend(annotation::passed_through(&config.annotations, &input.handler.container_annotations));
    let name = config.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
    class::check(name, &config.annotations, &input.pod_config.annotations, input.runtime)?;
    let ours = annotation::of_container(input.pod_id, name, input.image_name, input.pod_config);
    spec.annotations.extend(ours.into_iter().map(|(key, value)| (key.to_owned(), value)));
    Ok(Built { spec, process_label: facts.labels.process.clone() })
}

/// What every container begins with: the handler's own specification where it has one.
fn begin(input: &ContainerInput<'_>, facts: &Facts) -> Spec {
    let usual = default_unix_spec(NAMESPACE, input.id);
    let Some(base) = &facts.base else {
        let mut spec = usual;
        spec.process_mut().rlimits.clear();
        return spec;
    };
    let mut spec = base.clone();
    let path = usual.linux.map(|linux| linux.cgroups_path).unwrap_or_default();
    spec.linux_mut().cgroups_path = path;
    spec
}

/// The user and group that devices belong to inside, where the configuration gives them the container's.
fn device_owner(
    security: &v1::LinuxContainerSecurityContext,
    runtime: &Runtime,
) -> (Option<u32>, Option<u32>) {
    let owner = |id: Option<v1::Int64Value>| {
        let id = u32::try_from(id?.value).ok()?;
        (runtime.device_ownership_from_security_context && id != 0).then_some(id)
    };
    (owner(security.run_as_user), owner(security.run_as_group))
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

#[cfg(test)]
mod tests;
