//! Specs of containers, rule by rule.

use std::path::Path;

use ::spec::image::ProcessConfig;
use ::spec::runtime::Mount;

use super::*;

/// A request and all around it.
struct Case {
    config: v1::ContainerConfig,
    security: v1::LinuxContainerSecurityContext,
    pod: v1::PodSandboxConfig,
    handler: Handler,
    facts: Facts,
    files: PodFiles,
    recursive: bool,
}

impl Default for Case {
    fn default() -> Self {
        let at = |name: &str| Path::new("/pod").join(name);
        let config = v1::ContainerConfig { command: vec!["sh".into()], ..v1::ContainerConfig::default() };
        Self {
            config,
            security: v1::LinuxContainerSecurityContext::default(),
            pod: v1::PodSandboxConfig::default(),
            handler: Handler::default(),
            facts: Facts::default(),
            files: PodFiles {
                hostname: at("hostname"),
                hosts: at("hosts"),
                resolv_conf: at("resolv.conf"),
                shm: at("shm"),
            },
            recursive: true,
        }
    }
}

impl Case {
    fn build(mut self) -> Result<Spec> {
        self.config.linux.get_or_insert_default().security_context = Some(self.security);
        let runtime = crate::config::Runtime { ..runtime() };
        let input = ContainerInput {
            id: "c",
            pod_id: "p",
            config: &self.config,
            pod_config: &self.pod,
            pod_label: "",
            handler: &self.handler,
            runtime: &runtime,
            host: &Host::default(),
            image: &ProcessConfig::default(),
            image_name: "image",
            accounts: &Accounts::default(),
            volumes: &[],
            pod_pid: 7,
            target_pid: None,
            files: &self.files,
            recursive_read_only: self.recursive,
        };
        build(&input, &self.facts).map(|built| built.spec)
    }
}

fn runtime() -> Runtime {
    Runtime {
        enable_selinux: false,
        selinux_category_range: 1024,
        max_container_log_line_size: None,
        disable_apparmor: false,
        restrict_oom_score_adj: false,
        disable_proc_mount: false,
        unset_seccomp_profile: String::new(),
        tolerate_missing_hugetlb_controller: true,
        disable_hugetlb_controller: true,
        device_ownership_from_security_context: false,
        ignore_image_defined_volumes: false,
        netns_mounts_under_state_dir: false,
        enable_unprivileged_ports: true,
        enable_unprivileged_icmp: true,
        enable_cdi: true,
        cdi_spec_dirs: Vec::new(),
        drain_exec_sync_io_timeout: std::time::Duration::ZERO,
        stats_collect_period: std::time::Duration::ZERO,
        stats_retention_period: std::time::Duration::ZERO,
        default_runtime_name: "runc".into(),
        ignore_blockio_not_enabled_errors: false,
        ignore_rdt_not_enabled_errors: false,
        runtimes: BTreeMap::new(),
        cni: crate::config::Cni {
            bin_dirs: Vec::new(),
            conf_dir: "/nowhere".into(),
            max_conf_num: 1,
            setup_serially: false,
            conf_template: None,
            ip_pref: crate::config::IpPreference::V4,
            use_internal_loopback: true,
        },
    }
}

fn mount(host: &str, at: &str) -> v1::Mount {
    v1::Mount { host_path: host.into(), container_path: at.into(), ..v1::Mount::default() }
}

fn at<'s>(spec: &'s Spec, path: &str) -> Vec<&'s Mount> {
    spec.mounts.iter().filter(|mount| mount.destination == path).collect()
}

#[test]
fn the_kubelets_mounts_win_and_parents_come_first() {
    let mut case = Case::default();
    case.config.mounts =
        vec![mount("/a", "/x/y/z"), mount("/h", "/etc/hosts/"), mount("/b", "/x"), mount("/s", "/dev/shm")];
    let spec = case.build().unwrap();
    assert!(at(&spec, "/etc/hosts").is_empty());
    assert_eq!(at(&spec, "/etc/hosts/")[0].source, "/h");
    assert_eq!(at(&spec, "/etc/resolv.conf")[0].source, "/pod/resolv.conf");
    let shm = at(&spec, "/dev/shm");
    assert_eq!((shm.len(), shm[0].source.as_str()), (1, "/s"));
    let place = |path: &str| spec.mounts.iter().position(|mount| mount.destination == path).unwrap();
    assert!(place("/x") < place("/x/y/z") && place("/dev") < place("/dev/shm"));
    assert!(at(&spec, "/run").is_empty());
}

#[test]
fn a_mount_of_all_of_dev_takes_the_usual_ones_below_away() {
    let mut case = Case::default();
    case.config.mounts = vec![mount("/dev", "/dev")];
    let spec = case.build().unwrap();
    assert_eq!(at(&spec, "/dev")[0].kind, "bind");
    assert!(at(&spec, "/dev/pts").is_empty() && at(&spec, "/dev/mqueue").is_empty());
}

#[test]
fn what_a_mount_may_be() {
    let host = |sends, receives| mount::Source { path: "/a".into(), on: "/".into(), receives, sends };
    for (propagation, readonly, recursive, source, options) in [
        (0, false, false, host(false, false), Some("rbind,rprivate,rw")),
        (0, true, false, host(false, false), Some("rbind,rprivate,ro")),
        (0, true, true, host(false, false), Some("rbind,rprivate,rro")),
        (0, false, true, host(false, false), None),
        (1, false, false, host(false, true), Some("rbind,rslave,rw")),
        (1, false, false, host(false, false), None),
        (1, true, true, host(false, true), None),
        (2, false, false, host(true, true), Some("rbind,rshared,rw")),
        (2, false, false, host(false, true), None),
        (3, false, false, host(true, true), None),
    ] {
        let mut case = Case::default();
        let wanted = v1::Mount { propagation, readonly, recursive_read_only: recursive, ..mount("/a", "/m") };
        case.config.mounts = vec![wanted.clone()];
        case.facts.sources.insert("/a".into(), source);
        let found = case.build().ok().map(|spec| at(&spec, "/m")[0].options.join(","));
        assert_eq!(found.as_deref(), options, "{wanted:?}");
    }
    let mut case = Case { recursive: false, ..Case::default() };
    case.config.mounts = vec![v1::Mount { readonly: true, recursive_read_only: true, ..mount("/a", "/m") }];
    assert!(case.build().is_err());
}

#[test]
fn what_is_not_built_is_refused() {
    let mut userns = Case::default();
    let pod = v1::UserNamespace { mode: v1::NamespaceMode::Pod as i32, ..v1::UserNamespace::default() };
    userns.security.namespace_options =
        Some(v1::NamespaceOption { userns_options: Some(pod), ..v1::NamespaceOption::default() });
    let mut privileged = Case::default();
    privileged.security.privileged = true;
    for case in [userns, privileged] {
        assert!(case.build().is_err());
    }
}

#[test]
fn a_plain_container_is_confined_and_joins_its_pod() {
    let mut case = Case::default();
    case.facts.filter = security::Filter::Usual;
    case.security.masked_paths = vec!["/proc/kcore".into()];
    let spec = case.build().unwrap();
    let linux = spec.linux.unwrap();
    assert!(linux.seccomp.is_some());
    assert_eq!(linux.masked_paths, ["/proc/kcore"]);
    for (kind, path) in [
        (NamespaceKind::Network, "/proc/7/ns/net"),
        (NamespaceKind::Ipc, "/proc/7/ns/ipc"),
        (NamespaceKind::Uts, "/proc/7/ns/uts"),
        (NamespaceKind::Pid, "/proc/7/ns/pid"),
        (NamespaceKind::Cgroup, ""),
        (NamespaceKind::Mount, ""),
    ] {
        assert_eq!(linux.namespace(kind).unwrap().path, path, "{kind:?}");
    }
}

#[test]
fn a_base_specification_keeps_its_limits_but_not_its_cgroup() {
    let mut case = Case::default();
    let mut base = default_unix_spec("else", "where");
    base.process_mut().env = vec!["BASE=1".into()];
    case.facts.base = Some(base);
    let spec = case.build().unwrap();
    let process = spec.process.unwrap();
    assert_eq!(process.rlimits.len(), 1);
    assert!(process.env.contains(&"BASE=1".into()));
    assert_eq!(spec.linux.unwrap().cgroups_path, "/k8s.io/c");
}
