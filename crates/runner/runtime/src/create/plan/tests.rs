//! What a plan accepts and refuses.

use std::path::Path;

use proptest::prelude::*;

use spec::runtime::{IdMapping, Mount, Namespace, NamespaceKind, Spec, default_unix_spec};
use sys::namespace;

use super::{IdMap, Owners, Plan, PlanError, plan};

fn base() -> Spec {
    let mut spec = default_unix_spec("default", "test");
    spec.process_mut().args = vec!["/bin/true".into()];
    spec
}

fn planned(spec: &Spec) -> Plan {
    plan(spec, Path::new("/bundle")).unwrap()
}

fn refused(change: impl FnOnce(&mut Spec)) -> String {
    let mut spec = base();
    change(&mut spec);
    plan(&spec, Path::new("/bundle")).unwrap_err().to_string()
}

#[test]
fn the_default_container_is_planned() {
    let plan = planned(&base());
    assert_eq!(plan.rootfs, Path::new("/bundle/rootfs"));
    assert_eq!(plan.namespaces.new.len(), 5);
    assert_eq!(plan.mounts.len(), 7);
    assert!(plan.own_dev);
    assert_eq!(plan.devices.len(), 6);
    assert_eq!(plan.process.limits.len(), 1);
    assert!(plan.process.no_new_privs);
}

#[test]
fn contradictions_are_named() {
    let cases: [(&str, String); 9] = [
        ("ociVersion", refused(|spec| spec.oci_version = "2.0".into())),
        ("root", refused(|spec| spec.root = None)),
        ("process.args", refused(|spec| spec.process_mut().args.clear())),
        ("process.cwd", refused(|spec| spec.process_mut().cwd = "tmp".into())),
        ("process.env", refused(|spec| spec.process_mut().env = vec!["A\0B".into()])),
        (
            "linux.uidMappings",
            refused(|spec| {
                spec.linux_mut().namespaces.push(Namespace::new(NamespaceKind::User));
            }),
        ),
        (
            "linux.namespaces",
            refused(|spec| spec.linux_mut().namespaces.push(Namespace::new(NamespaceKind::Pid))),
        ),
        (
            "hostname",
            refused(|spec| {
                spec.hostname = "x".into();
                spec.linux_mut().namespaces.retain(|namespace| namespace.kind != NamespaceKind::Uts);
            }),
        ),
        (
            "linux.sysctl",
            refused(|spec| {
                spec.linux_mut().sysctl.insert("kernel.panic".into(), "1".into());
            }),
        ),
    ];
    for (field, text) in cases {
        assert!(text.contains(field), "{field}: {text}");
    }
}

#[test]
fn a_relative_namespace_path_is_refused() {
    let text = refused(|spec| {
        spec.linux_mut().namespaces = vec![
            Namespace::new(NamespaceKind::Mount),
            Namespace { kind: NamespaceKind::Network, path: "proc/1/ns/net".into() },
        ];
    });
    assert!(text.contains("not an absolute path"), "{text}");
}

#[test]
fn network_sysctls_need_a_network_namespace() {
    let mut spec = base();
    spec.linux_mut().sysctl.insert("net.ipv4.ip_forward".into(), "1".into());
    assert_eq!(planned(&spec).sysctls, [("sys/net/ipv4/ip_forward".to_owned(), "1".to_owned())]);
    spec.linux_mut().namespaces.retain(|namespace| namespace.kind != NamespaceKind::Network);
    let error = plan(&spec, Path::new("/bundle")).unwrap_err();
    assert!(matches!(error, PlanError::Field { .. }));
}

#[test]
fn a_bound_dev_keeps_its_devices() {
    let mut spec = base();
    spec.mounts.retain(|mount| mount.destination != "/dev");
    spec.mounts.push(Mount::new("/dev/", "bind", "/dev", &["rbind"]));
    let plan = planned(&spec);
    assert!(!plan.own_dev);
    assert!(plan.devices.is_empty());
}

#[test]
fn mappings_become_the_kernels_text() {
    let mut spec = base();
    let linux = spec.linux_mut();
    linux.namespaces.push(Namespace::new(NamespaceKind::User));
    linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: 100_000, size: 65536 }];
    linux.gid_mappings = linux.uid_mappings.clone();
    let plan = planned(&spec);
    assert!(plan.namespaces.is_new(namespace::Kind::User));
    assert_eq!(plan.namespaces.uid_map, "0 100000 65536\n");
}

#[test]
fn a_destination_on_the_host_below_the_root_counts_from_there() {
    let mut spec = base();
    for destination in ["/bundle/rootfs/a/b", "/bundle/./x/../rootfs/a/b/", "a/b", "/a/b"] {
        spec.mounts.push(Mount::new(destination, "tmpfs", "tmpfs", &[]));
    }
    spec.mounts.push(Mount::new("/bundle/rootfs2/a", "tmpfs", "tmpfs", &[]));
    let plan = planned(&spec);
    let targets: Vec<_> = plan.mounts[7..].iter().map(|mount| mount.target.to_str().unwrap()).collect();
    assert_eq!(targets, ["/a/b", "/a/b", "/a/b", "/a/b", "/bundle/rootfs2/a"]);
}

#[test]
fn idmap_without_mappings_takes_the_containers() {
    let mapped = |options: &[&str], change: &dyn Fn(&mut Spec)| {
        let mut spec = base();
        spec.mounts.push(Mount::new("/m", "", "/src", options));
        change(&mut spec);
        plan(&spec, Path::new("/bundle")).map(|plan| plan.mounts.last().unwrap().id_map.clone())
    };
    let own = |spec: &mut Spec| {
        let linux = spec.linux_mut();
        linux.namespaces.push(Namespace::new(NamespaceKind::User));
        linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: 7, size: 9 }];
        linux.gid_mappings = linux.uid_mappings.clone();
    };
    let text = "0 7 9\n".to_owned();
    let owners = Owners::Maps { uid_map: text.clone(), gid_map: text };
    let expected = |recursive| Some(IdMap { owners: owners.clone(), recursive });
    assert_eq!(mapped(&["bind", "idmap"], &own).unwrap(), expected(false));
    assert_eq!(mapped(&["rbind", "ridmap"], &own).unwrap(), expected(true));
    let joined = |spec: &mut Spec| {
        let path = "/proc/1/ns/user".to_owned();
        spec.linux_mut().namespaces.push(Namespace { kind: NamespaceKind::User, path });
    };
    let owners = Owners::Namespace("/proc/1/ns/user".into());
    assert_eq!(mapped(&["bind", "idmap"], &joined).unwrap(), Some(IdMap { owners, recursive: false }));
    let text = mapped(&["bind", "idmap"], &|_| {}).unwrap_err().to_string();
    assert!(text.contains("must have both uid and gid mappings"), "{text}");
}

#[test]
fn a_path_is_masked_once() {
    let mut spec = base();
    spec.linux_mut().masked_paths =
        ["/proc/acpi", "/testdir", "/testdir/", "//testdir", "/x/../testdir"].map(String::from).to_vec();
    assert_eq!(planned(&spec).masked_paths, [Path::new("/proc/acpi"), Path::new("/testdir")]);
}

/// Text that configurations of attackers are made of.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/".to_owned()),
        Just("..".to_owned()),
        Just("proc".to_owned()),
        Just("\0".to_owned()),
        Just("r".to_owned()),
        Just("bind".to_owned()),
        Just("=".to_owned()),
        Just(".".to_owned()),
        any::<String>(),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_configuration_plans_a_path_that_climbs(
        destination in hostile(),
        kind in hostile(),
        options in proptest::collection::vec(hostile(), 0..4),
        key in hostile(),
        path in hostile(),
        cwd in hostile(),
    ) {
        let mut spec = base();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        spec.mounts.push(Mount::new(&destination, &kind, "source", &options));
        spec.linux_mut().sysctl.insert(format!("net.{key}"), "1".into());
        spec.linux_mut().masked_paths.push(path);
        spec.process_mut().cwd = cwd;
        let Ok(plan) = plan(&spec, Path::new("/bundle")) else { return Ok(()) };
        for mount in &plan.mounts {
            prop_assert!(mount.target.is_absolute());
            prop_assert!(!mount.target.components().any(|part| part == std::path::Component::ParentDir));
        }
        for (file, _) in &plan.sysctls {
            prop_assert!(file.starts_with("sys/net/") && !file.split('/').any(|part| part == ".."));
        }
        prop_assert!(plan.masked_paths.iter().all(|path| path.is_absolute()));
        prop_assert!(plan.process.cwd.is_absolute());
    }
}
