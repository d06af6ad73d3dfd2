//! Containers in systemd's scopes, where systemd is init: `make test-vm` has such a machine.

use std::path::Path;
use std::time::Duration;

use testkit::command::Run;
use testkit::{need, needs, place, wait};

use crate::stage::{self, BUSYBOX};

#[test]
fn a_container_lives_in_a_scope_across_a_restart_of_the_daemon() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    if need::lacks(systemd()) {
        return;
    }
    let mut stage = stage::busybox();
    let id = place::unique("web");
    let scope = format!("ctr-{id}.scope");
    let flags = format!("--runc-systemd-cgroup --cgroup berthe2e.slice:ctr:{id} --memory-limit 52428800");
    stage.daemon.ctr(&format!("run -d {flags} {BUSYBOX} {id} sleep 600")).ok();
    assert_eq!(property(&scope, "ActiveState"), "active");
    assert_eq!(property(&scope, "Slice"), "berthe2e.slice");
    stage.daemon.restart();
    let own = stage.daemon.ctr(&format!("task exec --exec-id cgroup {id} cat /proc/self/cgroup")).ok();
    assert!(own.contains(&format!("/{scope}")) || own.contains("0::/\n"), "{own}");
    let metrics = stage.daemon.ctr(&format!("task metrics {id}")).ok();
    assert!(metrics.contains("52428800"), "{metrics}");
    stage.daemon.ctr(&format!("task pause {id}")).ok();
    stage.daemon.ctr(&format!("task resume {id}")).ok();
    stage.daemon.ctr(&format!("task kill --signal SIGKILL {id}")).ok();
    wait::eventually(Duration::from_secs(60), "the task stops", || {
        stage.daemon.ctr("task ls").ok().contains("STOPPED").then_some(())
    });
    // Its exit code is the task's.
    let _ = stage.daemon.ctr(&format!("task rm {id}")).run();
    stage.daemon.ctr(&format!("container rm {id}")).ok();
    assert_eq!(property(&scope, "LoadState"), "not-found");
}

fn systemd() -> Result<(), String> {
    match Path::new("/run/systemd/system").is_dir() {
        true => Ok(()),
        false => Err("systemd is not init here".into()),
    }
}

fn property(unit: &str, name: &str) -> String {
    Run::new("systemctl").args(["show", "--value", "--property", name, unit]).ok().trim().to_owned()
}
