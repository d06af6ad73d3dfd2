//! What hooks find around them, and what is reported of one that fails.

use spec::runtime::{Hook, Hooks};

use crate::bundle::{Bundle, bundle, finish};

fn shell(script: &str) -> Vec<Hook> {
    vec![Hook {
        path: "/bin/sh".into(),
        args: vec!["sh".into(), "-c".into(), script.into()],
        ..Hook::default()
    }]
}

/// Runs the container with a secret in the caller's environment.
fn run_with_secret(bundle: &Bundle) -> crate::bundle::Done {
    let mut command = bundle.command(&["run", &bundle.id]);
    command.env("BERTH_SECRET", "proxy-password").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    finish(command)
}

#[test]
fn hooks_in_container_get_no_environment_of_the_runtime() {
    let Some(mut bundle) = bundle("hook_env", "cat /seen") else { return };
    let (create, runtime) = (bundle.path().join("create"), bundle.path().join("runtime"));
    bundle.process().env.push("ONE=two".into());
    bundle.spec.hooks = Some(Hooks {
        create_runtime: shell(&format!("/usr/bin/env > {}", runtime.display())),
        create_container: shell(&format!("/usr/bin/env > {}", create.display())),
        start_container: shell("env > /seen"),
        ..Hooks::default()
    });
    let done = run_with_secret(&bundle);
    assert_eq!(done.code, 0, "{done:?}");
    let names = |text: &str| -> Vec<String> {
        let mut names: Vec<String> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, _)| name.to_owned())
            .filter(|name| !["PWD", "SHLVL", "OLDPWD", "_"].contains(&name.as_str()))
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&done.out), ["HOME", "ONE", "PATH"], "{done:?}");
    assert!(names(&std::fs::read_to_string(create).unwrap()).is_empty());
    assert!(names(&std::fs::read_to_string(runtime).unwrap()).contains(&"BERTH_SECRET".to_owned()));
}

#[test]
fn hooks_run_in_bundle_rootfs_and_the_directory_of_the_process() {
    let Some(mut bundle) = bundle("hook_cwd", "pwd; cat /here") else { return };
    let (create, runtime) = (bundle.path().join("create"), bundle.path().join("runtime"));
    bundle.process().cwd = "/tmp".into();
    bundle.spec.hooks = Some(Hooks {
        create_runtime: shell(&format!("pwd > {}", runtime.display())),
        create_container: shell(&format!("pwd > {}; echo x > ./made", create.display())),
        start_container: shell("pwd > /here"),
        ..Hooks::default()
    });
    assert_eq!(bundle.says(), "/tmp\n/tmp");
    assert_eq!(std::fs::read_to_string(create).unwrap().trim(), bundle.rootfs().to_str().unwrap());
    assert_eq!(std::fs::read_to_string(runtime).unwrap().trim(), bundle.path().to_str().unwrap());
    assert!(bundle.rootfs().join("made").exists());
}

#[test]
fn failing_start_container_hook_is_reported_by_run_and_start() {
    let text = "error running startContainer hook #0: exit status 3, output: why";
    let failing = || Hooks { start_container: shell("echo why; exit 3"), ..Hooks::default() };
    let Some(mut together) = bundle("start_hook_run", "echo program") else { return };
    together.spec.hooks = Some(failing());
    let done = together.run();
    assert!(done.code != 0 && done.err.contains(text), "{done:?}");
    assert_eq!(done.out, "");

    let Some(mut apart) = bundle("start_hook_start", "echo program") else { return };
    apart.spec.hooks = Some(failing());
    let streams = apart.path().join("streams");
    let mut create = apart.command(&["create", &apart.id]);
    let file = std::fs::File::create(&streams).unwrap();
    create.stdout(file.try_clone().unwrap()).stderr(file);
    assert!(create.status().unwrap().success());
    let pid: i32 = {
        let state: serde_json::Value = serde_json::from_str(&apart.runc(&["state"]).out).unwrap();
        state["pid"].as_i64().unwrap().try_into().unwrap()
    };
    let init = sys::process::pidfd(pid).unwrap();
    assert_eq!(apart.runc(&["start"]).code, 0);
    let limit = std::time::Duration::from_secs(60);
    assert!(sys::process::ended(std::os::fd::AsFd::as_fd(&init), limit).unwrap());
    assert_eq!(std::fs::read_to_string(streams).unwrap().trim(), text);
}

/// The profile also denies calls that older ones do not know; the hooks run without them.
#[test]
fn start_container_hooks_run_under_the_filter() {
    for no_new_privs in [true, false] {
        let Some(mut bundle) = bundle("hook_filter", "cat /status") else { return };
        bundle.process().no_new_privileges = no_new_privs;
        let filter = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["memfd_create", "pidfd_open", "pidfd_send_signal"],
             "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}"#;
        bundle.spec.linux_mut().seccomp = Some(serde_json::from_str(filter).unwrap());
        let second = shell("cat >> /state; grep Seccomp: /proc/self/status > /status");
        bundle.spec.hooks =
            Some(Hooks { start_container: [shell("cat > /state"), second].concat(), ..Hooks::default() });
        assert_eq!(bundle.says(), "Seccomp:\t2");
        let state = std::fs::read_to_string(bundle.rootfs().join("state")).unwrap();
        assert_eq!(state.matches("\"status\":\"created\"").count(), 2, "{state}");
    }
}
