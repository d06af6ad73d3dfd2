//! The life of a container, command by command.

use spec::runtime::{Hook, Hooks, NamespaceKind};

use crate::bundle::{bundle, finish_detached};

fn status(bundle: &crate::bundle::Bundle) -> String {
    let done = bundle.runc(&["state"]);
    assert_eq!(done.code, 0, "{done:?}");
    let state: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    state["status"].as_str().unwrap().to_owned()
}

#[test]
fn the_exit_status_is_the_programs() {
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -9 $$; kill -TERM $$; exit 3", 3)] {
        let Some(bundle) = bundle("exit_status", script) else { return };
        assert_eq!(bundle.run().code, code, "{script}");
        bundle.assert_gone();
    }
}

#[test]
fn created_then_started_then_stopped() {
    let Some(bundle) = bundle("life", "sleep 100") else { return };
    assert_eq!(finish_detached(bundle.command(&["create", &bundle.id])), 0);
    assert_eq!(status(&bundle), "created");
    assert_ne!(finish_detached(bundle.command(&["create", &bundle.id])), 0, "an id is used once");
    assert_eq!(status(&bundle), "created");
    assert_eq!(bundle.runc(&["start"]).code, 0);
    assert_eq!(status(&bundle), "running");
    assert_ne!(bundle.runc(&["start"]).code, 0, "a container is started once");
    assert_ne!(bundle.runc(&["delete"]).code, 0, "a running container is not deleted");
    assert_eq!(bundle.runc(&["pause"]).code, 0);
    assert_eq!(status(&bundle), "paused");
    assert_ne!(bundle.exec(&["true"]).code, 0, "nothing joins a paused container");
    assert_eq!(bundle.runc(&["resume"]).code, 0);
    assert_eq!(status(&bundle), "running");
    assert_eq!(bundle.runc(&["delete", "--force"]).code, 0);
    bundle.assert_gone();
}

#[test]
fn a_created_container_is_deleted_without_force() {
    let Some(bundle) = bundle("delete_created", "true") else { return };
    assert_eq!(finish_detached(bundle.command(&["create", &bundle.id])), 0);
    assert_eq!(bundle.runc(&["delete"]).code, 0);
    bundle.assert_gone();
}

#[test]
fn a_container_whose_state_is_damaged_is_deleted_by_force() {
    for script in ["sleep 100", "true"] {
        let Some(bundle) = bundle("damaged_state", script) else { return };
        bundle.start();
        let file = bundle.root().join(&bundle.id).join("state.json");
        let text = std::fs::read_to_string(&file).unwrap();
        // The tail is lost, with the document's own end.
        std::fs::write(&file, &text[..text.len() - 40]).unwrap();
        assert_ne!(bundle.runc(&["delete"]).code, 0);
        let done = bundle.runc(&["delete", "--force"]);
        assert_eq!(done.code, 0, "{done:?}");
        bundle.assert_gone();
    }
}

#[test]
fn a_paused_container_dies_when_killed() {
    let Some(bundle) = bundle("kill_paused", "sleep 100") else { return };
    bundle.start();
    assert_eq!(bundle.runc(&["pause"]).code, 0);
    assert_eq!(bundle.runc(&["delete", "--force"]).code, 0);
    bundle.assert_gone();
}

#[test]
fn without_a_pid_namespace_nothing_outlives_the_container() {
    let Some(mut bundle) = bundle("host_pid", "sleep 1000 & sleep 1000 & wait") else { return };
    bundle.namespace(NamespaceKind::Pid, None);
    bundle.start();
    assert_eq!(bundle.runc(&["delete", "--force"]).code, 0);
    bundle.assert_gone();
}

#[test]
fn hooks_run_in_their_order_and_places() {
    let Some(mut bundle) = bundle("hooks", "echo program >> /log; readlink /proc/self/ns/uts >> /log") else {
        return;
    };
    let log = bundle.path().join("log");
    let inside = bundle.rootfs().join("log");
    let hook = |name: &str, path: &std::path::Path| {
        let script = format!("cat > /dev/null; echo {name} >> {}", path.display());
        vec![Hook { path: "/bin/sh".into(), args: vec!["sh".into(), "-c".into(), script], ..Hook::default() }]
    };
    bundle.spec.hooks = Some(Hooks {
        prestart: hook("prestart", &log),
        create_runtime: hook("createRuntime", &log),
        create_container: hook("createContainer", &log),
        start_container: hook("startContainer", std::path::Path::new("/log")),
        poststart: hook("poststart", &log),
        poststop: hook("poststop", &log),
    });
    assert_eq!(bundle.run().code, 0);
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(log, "prestart\ncreateRuntime\ncreateContainer\npoststart\npoststop\n");
    let inside = std::fs::read_to_string(inside).unwrap();
    assert!(inside.starts_with("startContainer\nprogram\nuts:["), "{inside}");
    bundle.assert_gone();
}

#[test]
fn twenty_at_once() {
    let bundles: Vec<_> = (0..20).filter_map(|_| bundle("twenty_at_once", "exit 7")).collect();
    std::thread::scope(|scope| {
        for bundle in &bundles {
            scope.spawn(move || assert_eq!(bundle.run().code, 7));
        }
    });
    bundles.iter().for_each(crate::bundle::Bundle::assert_gone);
}

/// Moves the processes of the container into the root of every hierarchy and removes its directories.
fn take_cgroup_away(id: &str) {
    for dir in crate::bundle::cgroup_dirs(id) {
        let root = dir.parent().unwrap().parent().unwrap();
        for pid in std::fs::read_to_string(dir.join("cgroup.procs")).unwrap().lines() {
            std::fs::write(root.join("cgroup.procs"), pid).unwrap();
        }
        std::fs::remove_dir(&dir).unwrap();
    }
}

fn init_of(bundle: &crate::bundle::Bundle) -> std::os::fd::OwnedFd {
    let state: serde_json::Value = serde_json::from_str(&bundle.runc(&["state"]).out).unwrap();
    sys::process::pidfd(state["pid"].as_i64().unwrap().try_into().unwrap()).unwrap()
}

fn ends(pidfd: &std::os::fd::OwnedFd) -> bool {
    sys::process::ended(std::os::fd::AsFd::as_fd(pidfd), std::time::Duration::from_secs(20)).unwrap()
}

#[test]
fn container_whose_cgroup_was_removed_is_killed_and_deleted() {
    for verb in [["kill", "--all", "KILL"].as_slice(), &["kill", "KILL"], &["delete", "--force"]] {
        let Some(mut bundle) = bundle("no_cgroup", "sleep 1000") else { return };
        bundle.namespace(spec::runtime::NamespaceKind::Pid, None);
        bundle.start();
        let init = init_of(&bundle);
        take_cgroup_away(&bundle.id);
        let mut args = verb.to_vec();
        args.insert(verb.len() - usize::from(verb[0] == "kill"), &bundle.id);
        let done = crate::bundle::finish(bundle.command(&args));
        assert_eq!(done.code, 0, "{verb:?}: {done:?}");
        assert!(ends(&init), "{verb:?}");
        if verb[0] == "kill" {
            assert_eq!(bundle.runc(&["delete"]).code, 0);
        }
        bundle.assert_gone();
    }
}

#[test]
fn kill_reaches_what_has_outlived_init() {
    let Some(mut bundle) = bundle("outlived", "sleep 1000 & echo $! > /other; exec sleep 1000") else {
        return;
    };
    bundle.namespace(spec::runtime::NamespaceKind::Pid, None);
    bundle.start();
    let init = init_of(&bundle);
    let file = bundle.rootfs().join("other");
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let other = loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if let Some(pid) = text.strip_suffix('\n') {
            break sys::process::pidfd(pid.parse().unwrap()).unwrap();
        }
        assert!(std::time::Instant::now() < limit);
        std::thread::yield_now();
    };
    sys::process::signal(std::os::fd::AsFd::as_fd(&init), 9).unwrap();
    assert!(ends(&init));
    let refused = bundle.runc(&["kill"]);
    assert!(refused.code != 0 && refused.err.contains("container not running"), "{refused:?}");
    let done = crate::bundle::finish(bundle.command(&["kill", &bundle.id, "KILL"]));
    assert_eq!(done.code, 0, "{done:?}");
    assert!(ends(&other));
    assert_eq!(bundle.runc(&["delete"]).code, 0);
    bundle.assert_gone();
}
