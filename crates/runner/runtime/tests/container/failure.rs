//! What goes wrong: the text, and that nothing is left.

use spec::runtime::{Hook, Hooks, Mount};

use crate::bundle::{bundle, cgroup_dirs};

fn fails(test: &str, change: impl FnOnce(&mut crate::bundle::Bundle), text: &str) {
    let Some(mut bundle) = bundle(test, "true") else { return };
    change(&mut bundle);
    let done = bundle.run();
    assert_ne!(done.code, 0, "{test}");
    assert!(done.err.contains(text), "{test}: {}", done.err);
    bundle.assert_gone();
}

#[test]
fn a_program_that_cannot_run_is_named_as_go_names_it() {
    let program = |program: &'static str| {
        move |bundle: &mut crate::bundle::Bundle| bundle.process().args = vec![program.into()]
    };
    fails("missing", program("nope"), r#"exec: "nope": executable file not found in $PATH"#);
    fails("absent", program("/nope"), r#"exec: "/nope": stat /nope: no such file or directory"#);
    fails("directory", program("/etc"), r#"exec: "/etc": is a directory"#);
    fails("plain", program("/etc/passwd"), r#"exec: "/etc/passwd": permission denied"#);
}

#[test]
fn a_program_of_no_format_is_reported_by_start() {
    fails(
        "format",
        |bundle| {
            let path = bundle.rootfs().join("bin/garbage");
            std::fs::write(&path, "garbage").unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            bundle.process().args = vec!["garbage".into()];
        },
        "exec format error",
    );
}

#[test]
fn a_mount_that_fails_is_named() {
    let with = |mount: Mount| move |bundle: &mut crate::bundle::Bundle| bundle.spec.mounts.push(mount);
    fails("type", with(Mount::new("/x", "nofs", "none", &[])), "no such device");
    fails("option", with(Mount::new("/x", "tmpfs", "none", &["bogus=1"])), "Unknown parameter 'bogus'");
    fails("source", with(Mount::new("/x", "bind", "/no/such", &["bind"])), "no such file or directory");
}

#[test]
fn a_hook_that_fails_ends_the_creation() {
    let hook = || {
        vec![Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), "echo why; exit 3".into()],
            ..Hook::default()
        }]
    };
    let with = |hooks: Hooks| move |bundle: &mut crate::bundle::Bundle| bundle.spec.hooks = Some(hooks);
    let text = "exit status 3, output: why";
    fails("prestart", with(Hooks { prestart: hook(), ..Hooks::default() }), text);
    fails("createRuntime", with(Hooks { create_runtime: hook(), ..Hooks::default() }), text);
    fails("createContainer", with(Hooks { create_container: hook(), ..Hooks::default() }), text);
}

#[test]
fn a_wrong_configuration_makes_nothing() {
    fails("version", |bundle| bundle.spec.oci_version = "9.0".into(), "ociVersion");
    fails(
        "hostname",
        |bundle| {
            bundle.spec.hostname = "x".into();
            bundle.namespace(spec::runtime::NamespaceKind::Uts, None);
        },
        "UTS namespace",
    );
    fails(
        "rootfs",
        |bundle| bundle.spec.root.as_mut().unwrap().path = "absent".into(),
        "no such file or directory",
    );
}

#[test]
fn a_creator_that_is_killed_leaves_no_process() {
    let Some(mut bundle) = bundle("killed_creator", "true") else { return };
    let reached = bundle.path().join("reached");
    let script = format!("echo > {}; exec sleep 60", reached.display());
    bundle.spec.hooks = Some(Hooks {
        create_runtime: vec![Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script],
            ..Hook::default()
        }],
        ..Hooks::default()
    });
    sys::fd::make_fifo(&reached, 0o600).unwrap();
    let id = bundle.id.clone();
    let mut child = bundle.command(&["create", &id]).stdout(std::process::Stdio::null()).spawn().unwrap();
    // Returns when the hook has opened the FIFO: creation is half way.
    let _ = std::fs::read_to_string(&reached).unwrap();
    let init = init_of(&id);
    child.kill().unwrap();
    child.wait().unwrap();
    let ended =
        sys::process::ended(std::os::fd::AsFd::as_fd(&init), std::time::Duration::from_secs(20)).unwrap();
    assert!(ended, "init outlives its creator");
    let done = bundle.runc(&["delete", "--force"]);
    assert_eq!(done.code, 0, "{done:?}");
    bundle.assert_gone();
}

/// A shared pid namespace, so that no end of init takes others along; the hook and its child ignore the talk.
#[test]
fn creation_killed_before_its_state_is_written_leaves_nothing() {
    let Some(mut bundle) = bundle("killed_early", "true") else { return };
    let reached = bundle.path().join("reached");
    bundle.namespace(spec::runtime::NamespaceKind::Pid, None);
    let script = format!("/usr/bin/sleep 1000 & echo > {}; exec /usr/bin/sleep 1000", reached.display());
    bundle.spec.hooks = Some(Hooks {
        create_container: vec![Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script],
            ..Hook::default()
        }],
        ..Hooks::default()
    });
    sys::fd::make_fifo(&reached, 0o600).unwrap();
    let id = bundle.id.clone();
    for program in [true, false] {
        let mut child = bundle.command(&["create", &id]).stdout(std::process::Stdio::null()).spawn().unwrap();
        let _ = std::fs::read_to_string(&reached).unwrap();
        let inside = members(&id);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(inside.len() >= 3, "init, the hook and its child");
        assert!(!bundle.root().join(&id).join("state.json").exists());
        if program {
            let done = bundle.runc(&["delete", "--force"]);
            assert_eq!(done.code, 0, "{done:?}");
        } else {
            runtime::Container::remove_remains(&bundle.root(), &id).unwrap();
        }
        for process in &inside {
            let limit = std::time::Duration::from_secs(20);
            assert!(sys::process::ended(std::os::fd::AsFd::as_fd(process), limit).unwrap());
        }
        bundle.assert_gone();
    }
}

/// What a container's cgroup is to be, before it is made, may be in use by another.
#[test]
fn creation_in_the_cgroup_of_another_leaves_it_alone() {
    let Some(mut other) = bundle("cgroup_owner", "sleep 1000") else { return };
    other.namespace(spec::runtime::NamespaceKind::Pid, None);
    other.start();
    let Some(mut bundle) = bundle("cgroup_taker", "true") else { return };
    let path = other.spec.linux_mut().cgroups_path.clone();
    bundle.spec.linux_mut().cgroups_path = path;
    let done = bundle.runc(&["create"]);
    assert!(done.code != 0 && done.err.contains("cgroup is not empty"), "{done:?}");
    assert!(!bundle.root().join(&bundle.id).exists());
    assert_eq!(other.runc(&["kill", "--all"]).code, 0);
}

/// Pidfds of the processes in the container's cgroup.
fn members(id: &str) -> Vec<std::os::fd::OwnedFd> {
    let pids: std::collections::BTreeSet<i32> = cgroup_dirs(id)
        .iter()
        .filter_map(|dir| std::fs::read_to_string(dir.join("cgroup.procs")).ok())
        .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>())
        .collect();
    pids.into_iter().filter_map(|pid| sys::process::pidfd(pid).ok()).collect()
}

/// A pidfd of a process in the container's cgroup.
fn init_of(id: &str) -> std::os::fd::OwnedFd {
    members(id).swap_remove(0)
}

#[test]
fn remains_of_a_creation_go_and_free_the_id() {
    let Some(bundle) = bundle("remains", "exit 5") else { return };
    let dir = bundle.root().join(&bundle.id);
    std::fs::create_dir_all(&dir).unwrap();
    sys::fd::make_fifo(&dir.join("exec.fifo"), 0o600).unwrap();
    assert!(bundle.run().err.contains("already exists"));
    for _ in 0..2 {
        runtime::Container::remove_remains(&bundle.root(), &bundle.id).unwrap();
    }
    assert_eq!(bundle.run().code, 5);
    bundle.assert_gone();
}
