//! What a container sees and may do.

use spec::runtime::{LinuxDevice, LinuxPids, LinuxResources, Namespace, NamespaceKind, Rlimit};

use crate::bundle::bundle;

#[test]
fn every_namespace_is_new() {
    let script = "for n in cgroup ipc mnt net pid user uts time; do readlink /proc/self/ns/$n; done";
    let Some(mut bundle) = bundle("every_namespace_is_new", script) else { return };
    bundle.user_namespace();
    bundle.namespace(NamespaceKind::Cgroup, Some(Namespace::new(NamespaceKind::Cgroup)));
    bundle.namespace(NamespaceKind::Time, Some(Namespace::new(NamespaceKind::Time)));
    let out = bundle.says();
    assert_eq!(out.lines().count(), 8);
    for (line, name) in out.lines().zip(["cgroup", "ipc", "mnt", "net", "pid", "user", "uts", "time"]) {
        let host = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(line, host.to_str().unwrap(), "{name}");
    }
    bundle.assert_gone();
}

#[test]
fn names_and_kernel_settings_are_the_containers_own() {
    let Some(mut bundle) = bundle(
        "names",
        "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax",
    ) else {
        return;
    };
    bundle.spec.hostname = "inside".into();
    bundle.spec.domainname = "domain".into();
    let sysctl = &mut bundle.spec.linux_mut().sysctl;
    sysctl.insert("net.ipv4.ip_forward".into(), "1".into());
    sysctl.insert("kernel.shmmax".into(), "12345".into());
    assert_eq!(bundle.says(), "inside\ndomain\n1\n12345");
}

#[test]
fn identity_capabilities_and_limits_are_as_configured() {
    let script = "id; pwd; echo $HOME; umask; ulimit -n; grep -E '^(Cap|NoNew)' /proc/self/status";
    let Some(mut bundle) = bundle("identity", script) else { return };
    let process = bundle.process();
    process.user.uid = 1000;
    process.user.gid = 1001;
    process.user.additional_gids = vec![7, 8];
    process.user.umask = Some(0o077);
    process.cwd = "/made/for/it".into();
    process.rlimits = vec![Rlimit { kind: "RLIMIT_NOFILE".into(), soft: 77, hard: 99 }];
    let capabilities = process.capabilities.get_or_insert_default();
    capabilities.ambient = vec!["CAP_NET_BIND_SERVICE".into()];
    capabilities.inheritable = capabilities.ambient.clone();
    capabilities.bounding = vec!["CAP_NET_BIND_SERVICE".into(), "CAP_KILL".into()];
    let out = bundle.says();
    let wanted = [
        "uid=1000(web) gid=1001 groups=7,8",
        "/made/for/it",
        "/web",
        "0077",
        "77",
        "CapInh:\t0000000000000400",
        "CapPrm:\t0000000000000400",
        "CapEff:\t0000000000000400",
        "CapBnd:\t0000000000000420",
        "CapAmb:\t0000000000000400",
        "NoNewPrivs:\t1",
    ];
    assert_eq!(out.lines().collect::<Vec<_>>(), wanted);
}

#[test]
fn without_capabilities_root_has_none() {
    let Some(mut bundle) = bundle("no_capabilities", "grep -E '^Cap(Prm|Eff|Bnd)' /proc/self/status") else {
        return;
    };
    bundle.process().capabilities = None;
    let out = bundle.says();
    assert!(out.lines().all(|line| line.ends_with("\t0000000000000000")), "{out}");
}

#[test]
fn hidden_and_protected_paths() {
    let script = "cat /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l; \
                  chmod 000 /proc/keys; echo 1 2>/dev/null > /proc/sys/kernel/panic || echo protected; \
                  echo x 2>/dev/null > /readonly || echo sealed; echo fine > /tmp/x || echo none";
    let Some(mut bundle) = bundle("hidden", script) else { return };
    bundle.spec.root.as_mut().unwrap().readonly = true;
    bundle.spec.mounts.push(spec::runtime::Mount::new("/tmp", "tmpfs", "tmpfs", &["mode=1777"]));
    assert_eq!(bundle.says(), "0\n0\nprotected\nsealed");
    let null = sys::path::at::stat(sys::path::at::here(), "/dev/null".as_ref()).unwrap();
    assert!(null.is_device(1, 3));
    assert_eq!(null.mode & 0o777, 0o666, "the host's node was changed from inside");
}

#[test]
fn a_user_namespace_has_its_own_root() {
    let script = "id -u; cat /proc/self/uid_map; echo x > /dev/null; ls /dev/zero; touch /tmp/mine; cat /proc/keys | wc -c";
    let Some(mut bundle) = bundle("user_namespace", script) else { return };
    bundle.user_namespace();
    let out = bundle.says();
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["0", "0", "100000", "65536", "/dev/zero", "0"]);
    let made =
        sys::path::at::stat(sys::path::at::here(), bundle.rootfs().join("tmp/mine").as_os_str()).unwrap();
    assert_eq!((made.uid, made.gid), (100_000, 100_000));
}

#[test]
fn a_filter_refuses_with_and_without_no_new_privs() {
    for no_new_privs in [true, false] {
        let Some(mut bundle) = bundle("filter", "mkdir /tmp/x; grep Seccomp: /proc/self/status") else {
            return;
        };
        bundle.process().no_new_privileges = no_new_privs;
        let filter = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30}]}"#;
        bundle.spec.linux_mut().seccomp = Some(serde_json::from_str(filter).unwrap());
        let done = bundle.run();
        assert_eq!(done.out, "Seccomp:\t2");
        assert!(done.err.contains("Read-only file system"), "{done:?}");
    }
}

#[test]
fn devices_are_made_and_linked() {
    let script = "stat -c '%n %F %t:%T %a' /dev/null /dev/mine; readlink /dev/fd; readlink /dev/ptmx; ls /dev | sort | head -c 400";
    let Some(mut bundle) = bundle("devices", script) else { return };
    bundle.spec.linux_mut().devices = vec![LinuxDevice {
        path: "/dev/mine".into(),
        kind: "c".into(),
        major: 1,
        minor: 5,
        file_mode: Some(0o600),
        ..LinuxDevice::default()
    }];
    let out = bundle.says();
    assert!(out.contains("/dev/null character special file 1:3 666"), "{out}");
    assert!(out.contains("/dev/mine character special file 1:5 600"), "{out}");
    assert!(out.contains("/proc/self/fd\npts/ptmx"), "{out}");
}

#[test]
fn limits_reach_the_cgroup() {
    let Some(mut bundle) = bundle("limits", "sleep 100") else { return };
    bundle.spec.linux_mut().resources = Some(LinuxResources {
        pids: Some(LinuxPids { limit: Some(23) }),
        ..bundle.spec.linux_mut().resources.clone().unwrap_or_default()
    });
    bundle.start();
    let dirs = crate::bundle::cgroup_dirs(&bundle.id);
    let limit = dirs.iter().find_map(|dir| std::fs::read_to_string(dir.join("pids.max")).ok()).unwrap();
    assert_eq!(limit.trim(), "23");
    assert_eq!(bundle.runc(&["delete", "--force"]).code, 0);
    bundle.assert_gone();
}

#[test]
fn very_low_limits_do_not_keep_the_program_from_starting() {
    for user_namespace in [false, true] {
        let Some(mut bundle) = bundle("low_limits", "ulimit -n") else { return };
        if user_namespace {
            bundle.user_namespace();
        }
        bundle.process().rlimits = vec![Rlimit { kind: "RLIMIT_NOFILE".into(), soft: 4, hard: 4 }];
        assert_eq!(bundle.says(), "4");
    }
}

#[test]
fn a_user_namespace_with_the_hosts_network_sees_sysfs_and_its_cgroups() {
    let Some(mut bundle) =
        bundle("user_host_network", "ls /sys/class/net/lo > /dev/null && ls /sys/fs/cgroup | wc -l")
    else {
        return;
    };
    bundle.user_namespace();
    bundle.namespace(NamespaceKind::Network, None);
    bundle.namespace(NamespaceKind::Cgroup, Some(Namespace::new(NamespaceKind::Cgroup)));
    let cgroup =
        spec::runtime::Mount::new("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]);
    bundle.spec.mounts.push(cgroup);
    let count: usize = bundle.says().parse().unwrap();
    assert!(count > 0);
}
