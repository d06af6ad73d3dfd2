//! The spec of a pod's sandbox: the process that holds the pod's namespaces.

use std::path::Path;

use ::spec::Error;
use ::spec::image::ProcessConfig;
use ::spec::runtime::{Mount, Namespace, NamespaceKind, Root, Spec, default_unix_spec};
use api::runtime::v1;
use model::Result;

use super::user::{self, Accounts};
use super::{Host, Labels, PodFiles, UserNamespace, annotation, cgroup, process, resources, security};
use crate::config::{Handler, Runtime};
use crate::engine::NAMESPACE;

/// A sandbox's `oom_score_adj`: the last process of its pod that the kernel kills.
const OOM_SCORE_ADJ: i64 = -998;

/// A sandbox's CPU shares: the fewest there are.
const CPU_SHARES: u64 = 2;

/// What the spec of a sandbox is made of.
#[derive(Clone, Copy, Debug)]
pub struct PodInput<'a> {
    /// The pod's id.
    pub id: &'a str,
    /// What the kubelet asked for.
    pub config: &'a v1::PodSandboxConfig,
    /// The pod's runtime handler.
    pub handler: &'a Handler,
    /// The configuration.
    pub runtime: &'a Runtime,
    /// The host.
    pub host: &'a Host,
    /// What the pause image says of its process; [`builtin`] where there is no image.
    pub image: &'a ProcessConfig,
    /// The pause image's name; empty where there is none.
    pub image_name: &'a str,
    /// The root file system: `rootfs` below the bundle, or an absolute path.
    pub root: &'a str,
    /// The users of the pause image; default where there is none.
    pub accounts: &'a Accounts,
    /// The pod's network namespace; none in the host's network.
    pub netns: Option<&'a Path>,
    /// The pod's SELinux labels.
    pub labels: &'a Labels,
    /// The pod's files.
    pub files: &'a PodFiles,
    /// Where the user namespace is kept that the pod's network belongs to, in a network of its own.
    pub userns: &'a Path,
}

/// What the spec of a sandbox depends on beside its request: read by [`facts`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFacts {
    /// The system call filter.
    pub filter: security::Filter,
}

/// What a pod's sandbox runs where there is no pause image.
pub fn builtin() -> ProcessConfig {
    ProcessConfig { entrypoint: vec!["/pause".into()], ..ProcessConfig::default() }
}

/// Reads what the spec depends on.
///
/// # Errors
/// A profile cannot be read, or is not valid.
#[expect(deprecated, reason = "kubelets before 1.27 fill the older field")]
pub fn facts(input: &PodInput<'_>) -> Result<PodFacts> {
    let linux = input.config.linux.as_ref().and_then(|linux| linux.security_context.clone());
    let security = linux.unwrap_or_default();
    let filter = security::filter(
        security.seccomp.as_ref(),
        &security.seccomp_profile_path,
        &input.runtime.unset_seccomp_profile,
        security.privileged,
        input.host,
    )?;
    Ok(PodFacts { filter })
}

/// The spec of a sandbox.
///
/// # Errors
/// `InvalidArgument`: the request is not valid, in containerd's words where it has some.
pub fn build(input: &PodInput<'_>, facts: &PodFacts) -> Result<Spec> {
    let config = input.config;
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.clone().unwrap_or_default();
    let namespaces = security.namespace_options.clone().unwrap_or_default();
    let mut spec = default_unix_spec(NAMESPACE, input.id);
    spec.root = Some(Root { path: input.root.to_owned(), readonly: true });
    spec.hostname.clone_from(&config.hostname);
    let process = spec.process_mut();
    process.rlimits.clear();
    process.env = process::image_env(input.image)?;
    process.cwd = process::cwd("", input.image)?;
    process.args = [input.image.entrypoint.as_slice(), input.image.cmd.as_slice()].concat();
    if process.args.is_empty() {
        return Err(Error::invalid("invalid empty entrypoint and cmd in image config"));
    }
    process.user = user::of_sandbox(&security, &input.image.user, input.accounts)?;
    process.oom_score_adj = Some(resources::oom_score_adj(OOM_SCORE_ADJ, input.host, input.runtime)?);
    if !security.privileged {
        process.selinux_label.clone_from(&input.labels.process);
    }
    if !linux.cgroup_parent.is_empty() {
        spec.linux_mut().cgroups_path = cgroup::path(&linux.cgroup_parent, input.id);
    }
    spec.linux_mut().mount_label.clone_from(&input.labels.mount);
    facts.filter.apply(&mut spec);
    spec.process_mut().no_new_privileges = true;
    spec.linux_mut().sysctl = sysctls(&linux, input);
    let shares = &mut spec.linux_mut().resources.get_or_insert_default().cpu.get_or_insert_default().shares;
    *shares = Some(CPU_SHARES);
    let list = &mut spec.linux_mut().namespaces;
    match input.netns {
        None => list.retain(|one| !matches!(one.kind, NamespaceKind::Network | NamespaceKind::Uts)),
        Some(path) => {
            list.retain(|one| one.kind != NamespaceKind::Network);
            list.push(Namespace { kind: NamespaceKind::Network, path: path.display().to_string() });
        }
    }
    let node = v1::NamespaceMode::Node as i32;
    list.retain(|one| {
        !(one.kind == NamespaceKind::Pid && namespaces.pid == node
            || one.kind == NamespaceKind::Ipc && namespaces.ipc == node)
    });
    spec.mounts.retain(|mount| !matches!(mount.destination.as_str(), "/run" | "/dev/shm"));
    let shm = if namespaces.ipc == node { Path::new("/dev/shm") } else { &input.files.shm };
    let options = ["rbind", "ro", "nosuid", "nodev", "noexec"];
    for (path, at) in [(shm, "/dev/shm"), (&input.files.resolv_conf, "/etc/resolv.conf")] {
        spec.mounts.push(Mount::new(at, "bind", &path.display().to_string(), &options));
    }
    if let Some(userns) = UserNamespace::of(&namespaces)? {
        userns.apply(&mut spec, input.netns.map(|_| input.userns), input.netns.is_none());
    }
    spec.annotations.extend(annotation::passed_through(&config.annotations, &input.handler.pod_annotations));
    let ours = annotation::of_sandbox(input.id, input.image_name, config);
    spec.annotations.extend(ours.into_iter().map(|(key, value)| (key.to_owned(), value)));
    Ok(spec)
}

/// The kubelet's kernel parameters, and those that spare ordinary containers a capability in a network of their own.
fn sysctls(
    linux: &v1::LinuxPodSandboxConfig,
    input: &PodInput<'_>,
) -> std::collections::BTreeMap<String, String> {
    let mut all = linux.sysctls.clone();
    if input.netns.is_some() {
        let mut unless_set = |wanted: bool, name: &str, value: &str| {
            if wanted {
                all.entry(name.into()).or_insert_with(|| value.into());
            }
        };
        unless_set(input.runtime.enable_unprivileged_ports, "net.ipv4.ip_unprivileged_port_start", "0");
        let security = linux.security_context.as_ref();
        let options = security.and_then(|security| security.namespace_options.as_ref());
        let userns = options.and_then(|options| options.userns_options.as_ref());
        let owned = userns.is_some_and(|userns| userns.mode == v1::NamespaceMode::Pod as i32);
        // The range must be one of groups that are mapped.
        let icmp = input.runtime.enable_unprivileged_icmp && !input.host.in_user_namespace && !owned;
        unless_set(icmp, "net.ipv4.ping_group_range", "0 2147483647");
    }
    all
}
