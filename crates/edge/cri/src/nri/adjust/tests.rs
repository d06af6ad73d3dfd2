//! Each sort of adjustment arrives in a spec, or is refused by name.

use super::*;
use ::spec::Kind;
use ::spec::runtime::{IoPriorityClass, NamespaceKind, SeccompAction, default_unix_spec};

fn base() -> Spec {
    let mut spec = default_unix_spec("k8s.io", "c");
    spec.process_mut().env = vec!["A=1".into(), "B=2".into()];
    spec.annotations.insert("old".into(), "x".into());
    spec
}

fn applied(wanted: &pb::ContainerAdjustment) -> Result<Spec> {
    let mut spec = base();
    apply(&mut spec, wanted, &Host::default(), &Runtime::default()).map(|()| spec)
}

fn linux(linux: pb::LinuxContainerAdjustment) -> pb::ContainerAdjustment {
    pb::ContainerAdjustment { linux: Some(linux), ..pb::ContainerAdjustment::default() }
}

fn pair(key: &str, value: &str) -> pb::KeyValue {
    pb::KeyValue { key: key.into(), value: value.into() }
}

fn mount(destination: &str) -> pb::Mount {
    pb::Mount {
        destination: destination.into(),
        r#type: "bind".into(),
        source: "/srv".into(),
        options: vec!["rbind".into(), "rslave".into()],
    }
}

#[test]
fn variables_keep_their_places_and_what_is_marked_goes() {
    let spec = applied(&pb::ContainerAdjustment {
        env: vec![pair("-B", ""), pair("C", "3"), pair("A", "9")],
        args: vec!["/bin/other".into()],
        annotations: [("-old", ""), ("new", "y")].map(|(key, value)| (key.into(), value.into())).into(),
        ..pb::ContainerAdjustment::default()
    });
    let mut spec = spec.unwrap();
    assert_eq!(spec.process_mut().env, ["A=9", "C=3"]);
    assert_eq!(spec.process_mut().args, ["/bin/other"]);
    assert_eq!(spec.annotations.into_iter().collect::<Vec<_>>(), [("new".to_owned(), "y".to_owned())]);
}

#[test]
fn mounts_replace_those_of_their_place_and_come_after_what_they_are_in() {
    let mounts = vec![mount("/dev/shm"), mount("/a/b/c"), mount("-/run")];
    let mut spec =
        applied(&pb::ContainerAdjustment { mounts, ..pb::ContainerAdjustment::default() }).unwrap();
    let places: Vec<_> = spec.mounts.iter().map(|mount| mount.destination.as_str()).collect();
    assert_eq!(places, ["/proc", "/dev", "/sys", "/dev/pts", "/dev/mqueue", "/dev/shm", "/a/b/c"]);
    assert_eq!(spec.mounts[5].source, "/srv");
    assert_eq!(spec.linux_mut().rootfs_propagation, "rslave");
}

#[test]
fn what_is_linuxs_own_arrives() {
    let memory =
        pb::LinuxMemory { limit: Some(pb::OptionalInt64 { value: 64 << 20 }), ..pb::LinuxMemory::default() };
    let device = pb::LinuxDevice {
        path: "/dev/fuse".into(),
        r#type: "c".into(),
        major: 10,
        minor: 229,
        ..pb::LinuxDevice::default()
    };
    let namespace = |kind: &str| pb::LinuxNamespace { r#type: kind.into(), path: String::new() };
    let mut spec = applied(&linux(pb::LinuxContainerAdjustment {
        devices: vec![device],
        resources: Some(pb::LinuxResources {
            memory: Some(memory),
            pids: Some(pb::LinuxPids { limit: 7 }),
            ..pb::LinuxResources::default()
        }),
        cgroups_path: "/elsewhere".into(),
        oom_score_adj: Some(pb::OptionalInt { value: 500 }),
        io_priority: Some(pb::LinuxIoPriority {
            class: pb::IoPrioClass::IoprioClassIdle as i32,
            priority: 3,
        }),
        seccomp_policy: Some(pb::LinuxSeccomp {
            default_action: "SCMP_ACT_ALLOW".into(),
            ..Default::default()
        }),
        namespaces: vec![namespace("-network"), namespace("cgroup")],
        sysctl: [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into(),
        ..pb::LinuxContainerAdjustment::default()
    }))
    .unwrap();
    let process = spec.process_mut().clone();
    assert_eq!(process.oom_score_adj, Some(500));
    assert_eq!(process.io_priority.unwrap().class, IoPriorityClass::Idle);
    let linux = spec.linux_mut();
    assert_eq!(linux.devices[0].path, "/dev/fuse");
    let limits = linux.resources.clone().unwrap();
    assert_eq!(limits.memory.unwrap().limit, Some(64 << 20));
    assert_eq!(limits.pids.unwrap().limit, Some(7));
    let rule = limits.devices.last().unwrap();
    assert_eq!((rule.allow, rule.major, rule.access.as_str()), (true, Some(10), "rw"));
    assert_eq!(linux.cgroups_path, "/elsewhere");
    assert_eq!(linux.seccomp.as_ref().unwrap().default_action, SeccompAction::Allow);
    assert!(linux.namespace(NamespaceKind::Network).is_none());
    assert!(linux.namespace(NamespaceKind::Cgroup).is_some());
    assert_eq!(linux.sysctl["net.ipv4.ip_forward"], "1");
}

#[test]
fn what_no_container_can_have_is_refused() {
    let hook = pb::Hook { path: "relative".into(), ..pb::Hook::default() };
    let hooks = pb::Hooks { prestart: vec![hook], ..pb::Hooks::default() };
    let limits = |unified: &str| pb::LinuxResources {
        unified: [(unified.to_owned(), "1".to_owned())].into(),
        ..pb::LinuxResources::default()
    };
    let device = pb::LinuxDevice { path: "/dev/x".into(), r#type: "z".into(), ..pb::LinuxDevice::default() };
    let limit = pb::PosixRlimit { r#type: "RLIMIT_CORE".into(), hard: 1, soft: 2 };
    let seccomp = pb::LinuxSeccomp { default_action: "SCMP_ACT_X".into(), ..pb::LinuxSeccomp::default() };
    type All = pb::ContainerAdjustment;
    type Linux = pb::LinuxContainerAdjustment;
    for bad in [
        All { env: vec![pair("", "x")], ..All::default() },
        All { env: vec![pair("A=B", "x")], ..All::default() },
        All { env: vec![pair("A", "x\0y")], ..All::default() },
        All { args: vec!["\0".into()], ..All::default() },
        All { mounts: vec![mount("relative")], ..All::default() },
        All { hooks: Some(hooks), ..All::default() },
        All { rlimits: vec![limit], ..All::default() },
        linux(Linux { devices: vec![device], ..Linux::default() }),
        linux(Linux { resources: Some(limits("../memory.max")), ..Linux::default() }),
        linux(Linux { oom_score_adj: Some(pb::OptionalInt { value: 1 << 40 }), ..Linux::default() }),
        linux(Linux {
            namespaces: vec![pb::LinuxNamespace { r#type: "nest".into(), path: String::new() }],
            ..Linux::default()
        }),
        linux(Linux {
            io_priority: Some(pb::LinuxIoPriority { class: 99, priority: 0 }),
            ..Linux::default()
        }),
        linux(Linux { seccomp_policy: Some(seccomp), ..Linux::default() }),
    ] {
        let error = applied(&bad).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{}", error.text());
    }
}
