//! Processes that join a container, and containers that join namespaces.

use spec::runtime::{Namespace, NamespaceKind};

use crate::bundle::bundle;

#[test]
fn an_exec_is_where_the_container_is() {
    for user_namespace in [false, true] {
        let Some(mut bundle) = bundle("exec", "sleep 100") else { return };
        bundle.namespace(NamespaceKind::Cgroup, Some(Namespace::new(NamespaceKind::Cgroup)));
        bundle.process().capabilities.get_or_insert_default().bounding.push("CAP_SYS_PTRACE".into());
        let capabilities = bundle.process().capabilities.get_or_insert_default();
        capabilities.permitted.push("CAP_SYS_PTRACE".into());
        capabilities.effective.push("CAP_SYS_PTRACE".into());
        if user_namespace {
            bundle.user_namespace();
        }
        bundle.start();
        let script = "for n in cgroup ipc mnt net pid user uts; do test $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) || echo $n differs; done; id -u; exit 9";
        let done = bundle.exec(&["sh", "-c", script]);
        assert_eq!((done.code, done.out.as_str()), (9, "0"), "{done:?}");
        let inside = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let done = bundle.exec(&["cat", "/proc/self/cgroup"]);
        assert_ne!(done.out.trim(), inside.trim());
        assert!(done.out.lines().all(|line| line.ends_with(":/")), "{done:?}");
    }
}

#[test]
fn an_exec_that_cannot_run_says_why() {
    let Some(bundle) = bundle("exec_missing", "sleep 100") else { return };
    bundle.start();
    let done = bundle.exec(&["nope"]);
    assert_eq!(done.code, 255);
    assert!(done.err.contains(r#"exec: "nope": executable file not found in $PATH"#), "{done:?}");
    let done = bundle.exec(&["true"]);
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn nothing_joins_a_stopped_container() {
    let Some(bundle) = bundle("exec_stopped", "sleep 100") else { return };
    bundle.start();
    assert_eq!(bundle.runc(&["kill", "--all"]).code, 0);
    let _ = bundle.runc(&["delete", "--force"]);
    assert_ne!(bundle.exec(&["true"]).code, 0);
}

#[test]
fn a_pod_shares_what_its_members_join() {
    let Some(first) = bundle("pod", "sleep 100") else { return };
    first.start();
    let state = first.runc(&["state"]).out;
    let pid = serde_json::from_str::<serde_json::Value>(&state).unwrap()["pid"].as_i64().unwrap();
    let script = "for n in ipc net pid uts; do readlink /proc/self/ns/$n; done; ps | grep -c 'sleep 100'";
    let Some(mut second) = bundle("pod", script) else { return };
    for kind in [NamespaceKind::Ipc, NamespaceKind::Network, NamespaceKind::Pid, NamespaceKind::Uts] {
        let path = format!("/proc/{pid}/ns/{}", kind.proc_name());
        second.namespace(kind, Some(Namespace { kind, path }));
    }
    let out = second.says();
    for (line, name) in out.lines().zip(["ipc", "net", "pid", "uts"]) {
        assert_eq!(line, std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().to_str().unwrap());
    }
    second.assert_gone();
}

#[test]
fn a_pod_with_a_user_namespace_shares_that_too() {
    let Some(mut first) = bundle("user_pod", "sleep 100") else { return };
    first.user_namespace();
    first.start();
    let state = first.runc(&["state"]).out;
    let pid = serde_json::from_str::<serde_json::Value>(&state).unwrap()["pid"].as_i64().unwrap();
    let Some(mut second) =
        bundle("user_pod", "for n in user net ipc; do readlink /proc/self/ns/$n; done; id -u")
    else {
        return;
    };
    second.user_namespace();
    for kind in [NamespaceKind::User, NamespaceKind::Ipc, NamespaceKind::Network, NamespaceKind::Uts] {
        let path = format!("/proc/{pid}/ns/{}", kind.proc_name());
        second.namespace(kind, Some(Namespace { kind, path }));
    }
    let out = second.says();
    for (line, name) in out.lines().zip(["user", "net", "ipc"]) {
        assert_eq!(line, std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().to_str().unwrap());
    }
    assert!(out.ends_with("\n0"), "{out}");
    second.assert_gone();
}

#[test]
fn only_namespace_files_are_joined() {
    let Some(mut bundle) = bundle("not_a_namespace", "true") else { return };
    for path in ["/etc/passwd", "/proc/self/ns/uts", "/no/such"] {
        bundle.namespace(
            NamespaceKind::Network,
            Some(Namespace { kind: NamespaceKind::Network, path: path.into() }),
        );
        let done = bundle.run();
        assert_ne!(done.code, 0, "{path}");
        bundle.assert_gone();
    }
}
