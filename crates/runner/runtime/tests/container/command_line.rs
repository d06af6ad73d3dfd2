//! The command line as runc's users and programs write it, and what it answers.

use crate::bundle::{bundle, finish};

fn runc(args: &[&str]) -> crate::bundle::Done {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_runc"));
    command.args(args).stdin(std::process::Stdio::null());
    finish(command)
}

#[test]
fn the_version_is_one_that_can_be_compared_with_runcs() {
    for flag in ["-v", "--version", "-version"] {
        let done = runc(&[flag]);
        let lines: Vec<&str> = done.out.lines().collect();
        let words: Vec<&str> = lines[0].split(' ').collect();
        assert_eq!(words[..3], ["runc", "version", "1.5.1"], "{done:?}");
        assert!(lines[0].contains(concat!("berth ", env!("CARGO_PKG_VERSION"))), "{done:?}");
        assert!(lines[1].starts_with("commit: ") && lines[1].len() > 8, "{done:?}");
        assert!(lines[2].starts_with("spec: 1."), "{done:?}");
    }
}

#[test]
fn help_is_laid_out_as_runcs() {
    for flag in ["-h", "--help"] {
        let done = runc(&[flag]);
        assert!(done.out.starts_with("NAME:\n   runc - Open Container Initiative runtime\n"), "{done:?}");
        for command in ["checkpoint", "create", "exec", "features", "ps", "restore", "run", "spec", "update"]
        {
            let done = runc(&[command, flag]);
            assert_eq!(done.code, 0, "{done:?}");
            assert!(done.out.starts_with(&format!("NAME:\n   runc {command} - ")), "{done:?}");
        }
    }
    let done = runc(&["checkpoint", "--image-path", "/x", "id"]);
    assert!(done.code == 1 && done.err.contains("cannot checkpoint containers"), "{done:?}");
}

#[test]
fn one_dash_flags_are_understood() {
    let Some(bundle) = bundle("dashes", "echo -debug=true -root") else { return };
    let root = format!("-root={}", bundle.root().display());
    let mut command = bundle.command(&[]);
    command = {
        let mut again = std::process::Command::new(command.get_program());
        again.args([
            &root,
            "-debug=false",
            "run",
            "-bundle",
            bundle.path().to_str().unwrap(),
            "-keep",
            &bundle.id,
        ]);
        again.stdin(std::process::Stdio::null());
        again
    };
    let done = finish(command);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "-debug=true -root", ""));
    assert!(bundle.root().join(&bundle.id).exists());
}

#[test]
fn debug_lines_are_written_only_when_asked_for() {
    let Some(mut bundle) = bundle("debug", "exec sleep 100") else { return };
    bundle.process().exec_cpu_affinity =
        Some(serde_json::from_value(serde_json::json!({ "initial": "0" })).unwrap());
    let log = bundle.path().join("log");
    let text = |log: &std::path::Path| std::fs::read_to_string(log).unwrap_or_default();
    let flags = ["--log", log.to_str().unwrap(), "--log-format", "json"];
    let run = ["run", "--detach", &bundle.id];
    assert_eq!(crate::bundle::finish_detached(bundle.command(&[&flags[..], &run].concat())), 0);
    assert_eq!(text(&log), "");
    let done = finish(bundle.command(&[&flags[..], &["--debug", "exec", &bundle.id, "true"]].concat()));
    assert_eq!((done.code, done.err.as_str()), (0, ""));
    let text = text(&log);
    for part in [
        r#""level":"debug""#,
        "nsexec container setup",
        ": affinity: 0x1",
        "child process in init()",
        "about to exec",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn an_ambient_capability_that_cannot_be_raised_is_warned_of() {
    let Some(mut bundle) = bundle("ambient", "grep CapAmb /proc/self/status") else { return };
    let capabilities = bundle.process().capabilities.get_or_insert_default();
    capabilities.inheritable = vec!["CAP_KILL".into()];
    capabilities.ambient = vec!["CAP_KILL".into(), "CAP_CHOWN".into()];
    let done = bundle.run();
    assert!(done.out.ends_with("0000000000000020"), "{done:?}");
    let warning = "level=warning msg=\"can't raise ambient capability CAP_CHOWN: ";
    assert!(done.err.contains(warning), "{done:?}");
}

#[test]
fn a_program_that_cannot_be_executed_is_named_in_plain_words() {
    let Some(mut bundle) = bundle("execve", "") else { return };
    let script = bundle.rootfs().join("run.sh");
    std::fs::write(&script, "#!/mmnnttbb foo bar\nsh\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    bundle.process().args = vec!["/run.sh".into()];
    let done = bundle.run();
    assert_eq!((done.code, done.err.as_str()), (255, "exec /run.sh: no such file or directory"));
    bundle.assert_gone();
}

#[test]
fn a_cgroup_above_the_containers_is_refused_in_runcs_words() {
    let Some(bundle) = bundle("sub_cgroup", "exec sleep 100") else { return };
    bundle.start();
    let done = finish(bundle.command(&["exec", "--cgroup", "..", &bundle.id, "true"]));
    assert!(done.code == 255 && done.err.contains("bad sub cgroup path: .."), "{done:?}");
}

#[test]
fn a_deadline_and_a_set_of_cpus_exclude_each_other() {
    let Some(mut bundle) = bundle("deadline", "true") else { return };
    let resources = serde_json::json!({ "cpu": { "cpus": "0" } });
    bundle.spec.linux_mut().resources = Some(serde_json::from_value(resources).unwrap());
    let policy = serde_json::json!({ "policy": "SCHED_DEADLINE", "nice": 19, "runtime": 42_000, "deadline": 1_000_000, "period": 1_000_000 });
    bundle.process().scheduler = Some(serde_json::from_value(policy).unwrap());
    let done = bundle.run();
    if done.err.contains("cpuset") {
        println!("SKIP a_deadline_and_a_set_of_cpus_exclude_each_other: no cpuset controller");
        return;
    }
    assert!(done.err.contains("process scheduler can't be used together with AllowedCPUs"), "{done:?}");
    bundle.assert_gone();
}

#[test]
fn the_state_root_of_a_user_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let list = |user: &str, unshared: bool| {
        let mut command = std::process::Command::new("/usr/bin/unshare");
        if unshared {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--", env!("CARGO_BIN_EXE_runc"), "list", "-q"]);
        command.env("XDG_RUNTIME_DIR", dir.path()).env("USER", user).stdin(std::process::Stdio::null());
        finish(command)
    };
    if sys::identity::uid() != 0 || list("someone", true).err.contains("unshare") {
        println!("SKIP the_state_root_of_a_user_is_private: needs root and unshare");
        return;
    }
    let root = dir.path().join("runc");
    let mode = root.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o1700);
    std::fs::remove_dir(&root).unwrap();
    // Root of the host, and one who has logged in as root inside, use the system's.
    list("someone", false);
    list("root", true);
    assert!(!root.exists());
}
