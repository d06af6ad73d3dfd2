//! Containers of a user without rights over the host.

use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;
use std::process::{Command, Stdio};

use spec::runtime::{IdMapping, Mount, Namespace, NamespaceKind};

use crate::bundle::{Bundle, bundle, cgroup_dirs, finish};

/// A user of no meaning on the host.
const USER: u32 = 54_321;

/// A command line of the runtime as root of a user namespace that [`USER`] has made.
fn command(bundle: &Bundle, program: &Path, args: &[&str]) -> Command {
    // Writes the document.
    drop(bundle.command(&[]));
    let mut command = Command::new("/usr/bin/setpriv");
    command
        .args([
            "--reuid=54321",
            "--regid=54321",
            "--clear-groups",
            "unshare",
            "--user",
            "--map-root-user",
            "--",
        ])
        .arg(program)
        .args(args)
        .current_dir(bundle.path())
        .env_clear()
        .env("XDG_RUNTIME_DIR", bundle.path())
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null());
    command
}

fn give(path: &Path) {
    lchown(path, Some(USER), Some(USER)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        std::fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path()));
    }
}

#[test]
fn a_user_runs_containers_and_execs_without_a_cgroup() {
    let Some(mut bundle) = bundle("rootless", "id -u; cat /proc/self/cgroup | wc -l > /dev/null; echo ran")
    else {
        return;
    };
    if !Path::new("/usr/bin/setpriv").exists() || !Path::new("/usr/bin/unshare").exists() {
        println!("SKIP a_user_runs_containers_and_execs_without_a_cgroup: needs setpriv and unshare");
        return;
    }
    bundle.namespace(NamespaceKind::User, Some(Namespace::new(NamespaceKind::User)));
    let map = vec![IdMapping { container_id: 0, host_id: 0, size: 1 }];
    let linux = bundle.spec.linux_mut();
    linux.cgroups_path.clear();
    linux.resources = None;
    (linux.uid_mappings, linux.gid_mappings) = (map.clone(), map);
    for mount in &mut bundle.spec.mounts {
        mount.options.retain(|option| !option.starts_with("gid="));
        if mount.destination == "/sys" {
            *mount = Mount::new("/sys", "none", "/sys", &["rbind", "ro"]);
        }
    }
    let program = bundle.path().join("program");
    std::fs::copy(env!("CARGO_BIN_EXE_runc"), &program).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    give(bundle.path());
    let done = finish(command(&bundle, &program, &["run", &bundle.id]));
    if done.err.contains("unshare") {
        println!("SKIP a_user_runs_containers_and_execs_without_a_cgroup: {}", done.err);
        return;
    }
    assert_eq!((done.code, done.out.as_str()), (0, "0\nran"), "{done:?}");

    // Started, joined and ended by one user, in one user namespace.
    bundle.process().args[2] = "exec sleep 100".into();
    let id = &bundle.id;
    let script = format!(
        "./program run -d {id} > /dev/null && ./program exec {id} id -u && ./program kill {id} KILL; ./program delete -f {id} && ./program list -q"
    );
    let done = finish(command(&bundle, Path::new("/bin/sh"), &["-c", &script]));
    assert_eq!((done.code, done.out.as_str()), (0, "0"), "{done:?}");
    assert!(cgroup_dirs(&bundle.id).is_empty());
}
