//! What a program finds when it starts, whatever the caller is like.

use std::os::fd::AsFd;
use std::time::Duration;

use spec::runtime::{Namespace, NamespaceKind, TimeOffset};

use crate::bundle::{bundle, finish};

/// The CPUs that this process may use, as the kernel writes them.
fn own_cpus() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap().trim().to_owned()
}

#[test]
fn the_callers_cpus_are_not_the_containers() {
    let Some(bundle) = bundle("affinity", "grep Cpus_allowed_list: /proc/self/status; exec sleep 100") else {
        return;
    };
    let all = own_cpus();
    let first = all.split([',', '-']).next().unwrap();
    if all == first || !std::path::Path::new("/usr/bin/taskset").exists() {
        println!("SKIP the_callers_cpus_are_not_the_containers: needs two CPUs and taskset");
        return;
    }
    let bound = |args: &[&str]| {
        let inner = bundle.command(args);
        let mut command = std::process::Command::new("/usr/bin/taskset");
        command
            .arg("-c")
            .arg(first)
            .arg(inner.get_program())
            .args(inner.get_args())
            .current_dir(bundle.path());
        command.stdin(std::process::Stdio::null());
        command
    };
    let script = "grep Cpus_allowed_list: /proc/self/status";
    let out = bundle.path().join("out");
    let mut start = bound(&["run", "--detach", &bundle.id]);
    start.stdout(std::fs::File::create(&out).unwrap());
    assert!(start.status().unwrap().success());
    let done = finish(bound(&["exec", &bundle.id, "sh", "-c", script]));
    assert_eq!(done.out.split_whitespace().last(), Some(all.as_str()), "{done:?}");
    // The exec came after the container's first line.
    let first_line = std::fs::read_to_string(&out).unwrap();
    assert_eq!(first_line.split_whitespace().last(), Some(all.as_str()), "{first_line}");
}

#[test]
fn the_home_is_the_users_unless_it_is_set() {
    for (env, home) in [
        (&["HOME="][..], "HOME=/web"),
        (&["HOME=/a", "HOME="], "HOME=/web"),
        (&["HOME=", "HOME=/b"], "HOME=/b"),
        (&[], "HOME=/web"),
    ] {
        let Some(mut bundle) = bundle("home", "env | grep -e HOME -e ONE") else { return };
        bundle.process().user.uid = 1000;
        bundle.process().env.extend(env.iter().map(|&entry| entry.to_owned()));
        bundle.process().env.extend(["ONE=1", "ONE=2"].map(String::from));
        let out = bundle.says();
        let mut lines: Vec<&str> = out.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, [home, "ONE=2"], "{env:?}");
    }
}

#[test]
fn a_created_container_takes_a_request_to_end() {
    for signal in ["TERM", "INT", "HUP"] {
        let Some(bundle) = bundle("sigterm", "true") else { return };
        assert_eq!(crate::bundle::finish_detached(bundle.command(&["create", &bundle.id])), 0);
        let state: serde_json::Value = serde_json::from_str(&bundle.runc(&["state"]).out).unwrap();
        assert_eq!(state["status"], "created");
        let pidfd = sys::process::pidfd(state["pid"].as_i64().unwrap() as i32).unwrap();
        let done = finish(bundle.command(&["kill", &bundle.id, signal]));
        assert_eq!(done.code, 0, "{done:?}");
        assert!(sys::process::ended(pidfd.as_fd(), Duration::from_secs(20)).unwrap(), "{signal}");
        let state: serde_json::Value = serde_json::from_str(&bundle.runc(&["state"]).out).unwrap();
        assert_eq!(state["status"], "stopped");
    }
}

#[test]
fn a_time_namespace_has_its_offsets_in_a_new_user_namespace_too() {
    for user_namespace in [false, true] {
        let Some(mut bundle) = bundle("timens", "cat /proc/self/timens_offsets") else { return };
        if user_namespace {
            bundle.user_namespace();
        }
        bundle.namespace(NamespaceKind::Time, Some(Namespace::new(NamespaceKind::Time)));
        let offset = TimeOffset { secs: 7881, nanosecs: 2_718_281 };
        bundle.spec.linux_mut().time_offsets.insert("monotonic".into(), offset);
        let out = bundle.says();
        assert!(out.contains("7881   2718281"), "{out}");
        bundle.assert_gone();
    }
}

#[test]
fn a_program_in_a_user_namespace_opens_its_streams_anew() {
    for uid in [0, 33] {
        let script = "echo out > /dev/stdout; echo err > /proc/self/fd/2; cat /dev/stdin; exec sleep 100";
        let Some(mut bundle) = bundle("reopen", "cat; echo out > /dev/stdout; echo err > /proc/self/fd/2")
        else {
            return;
        };
        bundle.user_namespace();
        bundle.process().user.uid = uid;
        let done = bundle.run();
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "out", "err"), "{done:?}");
        bundle.process().args[2] = "exec sleep 100".into();
        bundle.start();
        let done = bundle.exec(&["sh", "-c", &script.replace("; exec sleep 100", "")]);
        assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "out", "err"), "{done:?}");
    }
}

#[test]
fn a_container_without_a_mount_namespace_of_its_own_sees_its_root_alone() {
    let script = "ls /bin/busybox && ls -d /usr 2>/dev/null; exec sleep 100";
    let Some(mut bundle) = bundle("no_mount_namespace", script) else { return };
    bundle.namespace(NamespaceKind::Mount, None);
    bundle.spec.mounts.clear();
    bundle.spec.linux_mut().masked_paths.clear();
    bundle.spec.linux_mut().readonly_paths.clear();
    std::fs::create_dir(bundle.rootfs().join("dev")).unwrap();
    bundle.start();
    let done = bundle.exec(&["sh", "-c", "pwd; ls -d /work /usr /rootfs; ls /bin/busybox"]);
    assert_eq!(done.out, "/\n/bin/busybox", "{done:?}");
    assert_eq!(bundle.runc(&["delete", "--force"]).code, 0);
    // runc leaves the bind of the root on itself, too: it was made in the caller's mount namespace.
    sys::mount::unmount(&bundle.rootfs()).unwrap();
    bundle.assert_gone();
}

#[test]
fn memory_lies_where_the_policy_says_in_execs_too() {
    let script = "head -n 1 /proc/self/numa_maps; exec sleep 100";
    let Some(mut bundle) = bundle("memory_policy", script) else { return };
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        println!("SKIP memory_lies_where_the_policy_says_in_execs_too: the kernel knows no nodes");
        return;
    }
    let policy = serde_json::json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] });
    bundle.spec.linux_mut().memory_policy = Some(serde_json::from_value(policy).unwrap());
    bundle.start();
    let done = bundle.exec(&["head", "-n", "1", "/proc/self/numa_maps"]);
    let words: Vec<&str> = done.out.split(' ').collect();
    assert!(words.get(1).is_some_and(|word| word.starts_with("bind") && word.ends_with(":0")), "{done:?}");
}
