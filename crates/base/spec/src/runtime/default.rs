//! The container that containerd makes when nobody asks for anything special.

use super::{
    Capabilities, Linux, LinuxDeviceCgroup, LinuxResources, Mount, Namespace, NamespaceKind, Process, Rlimit,
    Root, Spec, VERSION,
};

/// The search path that a container gets when its image sets none.
pub const DEFAULT_PATH_ENV: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const MASKED_PATHS: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/scsi",
];

const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// containerd's default container `id` in `namespace`: no program yet, nothing of any image.
pub fn default_unix_spec(namespace: &str, id: &str) -> Spec {
    Spec {
        oci_version: VERSION.into(),
        process: Some(default_process()),
        root: Some(Root { path: "rootfs".into(), readonly: false }),
        mounts: default_mounts(),
        linux: Some(default_linux(format!("/{namespace}/{id}").trim_end_matches('/').to_owned())),
        ..Spec::default()
    }
}

/// The capabilities of an unprivileged container.
pub fn default_capabilities() -> Vec<String> {
    strings(&CAPABILITIES)
}

/// The mounts of every container.
pub fn default_mounts() -> Vec<Mount> {
    vec![
        Mount::new("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        Mount::new("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        Mount::new(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        Mount::new("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        Mount::new("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        Mount::new("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        Mount::new("/run", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ]
}

fn default_process() -> Process {
    let capabilities = Capabilities {
        bounding: default_capabilities(),
        effective: default_capabilities(),
        permitted: default_capabilities(),
        ..Capabilities::default()
    };
    Process {
        cwd: "/".into(),
        no_new_privileges: true,
        capabilities: Some(capabilities),
        rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE".into(), hard: 1024, soft: 1024 }],
        ..Process::default()
    }
}

fn default_linux(cgroups_path: String) -> Linux {
    let deny_all = LinuxDeviceCgroup { allow: false, access: "rwm".into(), ..LinuxDeviceCgroup::default() };
    let kinds = [
        NamespaceKind::Pid,
        NamespaceKind::Ipc,
        NamespaceKind::Uts,
        NamespaceKind::Mount,
        NamespaceKind::Network,
    ];
    Linux {
        resources: Some(LinuxResources { devices: vec![deny_all], ..LinuxResources::default() }),
        cgroups_path,
        namespaces: kinds.map(Namespace::new).into(),
        masked_paths: strings(&MASKED_PATHS),
        readonly_paths: strings(&READONLY_PATHS),
        ..Linux::default()
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_id_leaves_the_namespace_as_cgroup() {
        let spec = default_unix_spec("default", "");
        assert_eq!(spec.linux.unwrap().cgroups_path, "/default");
    }

    #[test]
    fn keys_are_written_in_the_order_of_the_specification() {
        let json = serde_json::to_value(default_unix_spec("default", "a")).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["ociVersion", "process", "root", "mounts", "linux"]);
        let process: Vec<_> = json["process"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(process, ["user", "cwd", "capabilities", "rlimits", "noNewPrivileges"]);
    }
}
