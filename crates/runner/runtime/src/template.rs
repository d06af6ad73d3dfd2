//! The document that `runc spec` begins a bundle with.

use spec::runtime::{
    Capabilities, DEFAULT_PATH_ENV, IdMapping, Linux, LinuxDeviceCgroup, LinuxResources, Mount, Namespace,
    NamespaceKind, Process, Rlimit, Root, Spec, VERSION, default_mounts, default_unix_spec,
};

use crate::cgroup::{Mode, layout};

/// A shell on a read-only root, with three capabilities.
pub fn example() -> Spec {
    Spec {
        oci_version: VERSION.into(),
        process: Some(process()),
        root: Some(Root { path: "rootfs".into(), readonly: true }),
        hostname: "runc".into(),
        mounts: mounts(),
        linux: Some(linux()),
        ..Spec::default()
    }
}

/// The same for an ordinary user, who is `uid` and `gid` on the host and root inside.
pub fn rootless_example(uid: u32, gid: u32) -> Spec {
    let mut spec = example();
    for mount in &mut spec.mounts {
        if mount.destination == "/sys" {
            *mount = Mount::new("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
        }
        mount.options.retain(|option| !option.starts_with("gid=") && !option.starts_with("uid="));
    }
    let linux = spec.linux_mut();
    linux.namespaces.retain(|namespace| namespace.kind != NamespaceKind::Network);
    linux.namespaces.push(Namespace::new(NamespaceKind::User));
    linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: uid, size: 1 }];
    linux.gid_mappings = vec![IdMapping { container_id: 0, host_id: gid, size: 1 }];
    linux.resources = None;
    spec
}

fn process() -> Process {
    let held: Vec<String> = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"].map(String::from).into();
    Process {
        terminal: true,
        args: vec!["sh".into()],
        env: vec![DEFAULT_PATH_ENV.into(), "TERM=xterm".into()],
        cwd: "/".into(),
        no_new_privileges: true,
        capabilities: Some(Capabilities {
            bounding: held.clone(),
            effective: held.clone(),
            permitted: held,
            ..Capabilities::default()
        }),
        rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE".into(), hard: 1024, soft: 1024 }],
        ..Process::default()
    }
}

fn mounts() -> Vec<Mount> {
    let mut mounts = default_mounts();
    mounts.retain(|mount| mount.destination != "/run");
    if let Some(proc) = mounts.iter_mut().find(|mount| mount.destination == "/proc") {
        proc.options.clear();
    }
    let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
    mounts.push(Mount::new("/sys/fs/cgroup", "cgroup", "cgroup", &options));
    mounts
}

fn linux() -> Linux {
    let mut kinds = vec![
        NamespaceKind::Pid,
        NamespaceKind::Network,
        NamespaceKind::Ipc,
        NamespaceKind::Uts,
        NamespaceKind::Mount,
    ];
    if layout().is_ok_and(|layout| layout.mode == Mode::V2) {
        kinds.push(NamespaceKind::Cgroup);
    }
    let deny_all = LinuxDeviceCgroup { allow: false, access: "rwm".into(), ..LinuxDeviceCgroup::default() };
    let default = default_unix_spec("", "").linux.unwrap_or_default();
    let mut masked_paths = default.masked_paths;
    masked_paths.retain(|path| path != "/sys/devices/virtual/powercap");
    Linux {
        resources: Some(LinuxResources { devices: vec![deny_all], ..LinuxResources::default() }),
        namespaces: kinds.into_iter().map(Namespace::new).collect(),
        masked_paths,
        readonly_paths: default.readonly_paths,
        ..Linux::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_user_is_root_inside_and_has_no_network_of_his_own() {
        let linux = rootless_example(1000, 100).linux.unwrap();
        assert_eq!(linux.uid_mappings, [IdMapping { container_id: 0, host_id: 1000, size: 1 }]);
        assert!(linux.namespace(NamespaceKind::User).is_some());
        assert!(linux.namespace(NamespaceKind::Network).is_none());
    }
}
