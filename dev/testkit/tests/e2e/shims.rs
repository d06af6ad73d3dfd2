//! Shims that die or hang: whoever waits for them waits a bounded time, and everybody else not at all.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::daemon::Daemon;
use testkit::needs;

use crate::stage::{self, BUSYBOX, pid};

/// The pid of the shim of `id`.
fn shim(daemon: &Daemon, id: &str) -> Pid {
    let processes = daemon.traces().processes;
    let line = processes
        .iter()
        .find(|line| line.contains("containerd-shim") && line.contains(&format!("-id {id}")))
        .unwrap_or_else(|| panic!("a shim of {id} in {processes:?}"));
    let pid = line.split(' ').next().and_then(|word| word.parse().ok());
    Pid::from_raw(pid.expect("a line begins with the pid")).expect("a pid")
}

#[test]
fn a_frozen_shim_holds_up_nobody_else() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let stage = stage::busybox();
    let daemon = &stage.daemon;
    daemon.ctr(&format!("run -d {BUSYBOX} frozen sleep 1000")).ok();
    let shim = shim(daemon, "frozen");
    kill_process(shim, Signal::STOP).unwrap();
    let list = daemon.ctr("task ls").limit(Duration::from_secs(15)).ok();
    assert!(stage::row(&list, "frozen").is_some(), "{list}");
    let other =
        daemon.ctr(&format!("run --rm {BUSYBOX} other echo well")).limit(Duration::from_secs(15)).ok();
    assert_eq!(other, "well\n");
    daemon.ctr("image ls").limit(Duration::from_secs(5)).ok();
    kill_process(shim, Signal::CONT).unwrap();
    stage::becomes(daemon, "frozen", "RUNNING");
}

#[test]
fn a_daemon_starts_beside_a_frozen_shim() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let mut stage = stage::busybox();
    let daemon = &mut stage.daemon;
    daemon.ctr(&format!("run -d {BUSYBOX} frozen sleep 1000")).ok();
    daemon.ctr(&format!("run -d {BUSYBOX} fine sleep 1000")).ok();
    let shim = shim(daemon, "frozen");
    kill_process(shim, Signal::STOP).unwrap();
    daemon.restart();
    assert!(daemon.ready_after() < Duration::from_secs(15), "ready after {:?}", daemon.ready_after());
    stage::becomes(daemon, "fine", "RUNNING");
    kill_process(shim, Signal::CONT).unwrap();
}

#[test]
fn a_killed_shim_takes_its_container_along_and_can_be_removed() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let stage = stage::busybox();
    let daemon = &stage.daemon;
    daemon.ctr(&format!("run -d {BUSYBOX} orphan sleep 1000")).ok();
    let init = pid(daemon, "orphan");
    kill_process(shim(daemon, "orphan"), Signal::KILL).unwrap();
    testkit::wait::eventually(Duration::from_secs(20), "the container's process is ended", || {
        (!std::path::Path::new(&format!("/proc/{init}")).exists()).then_some(())
    });
    testkit::wait::eventually(Duration::from_secs(20), "the task is stopped or gone", || {
        stage::status(daemon, "orphan").is_none_or(|status| status == "STOPPED").then_some(())
    });
    let _ = daemon.ctr("task rm -f orphan").run();
    daemon.ctr("container rm orphan").ok();
    let traces = daemon.traces();
    assert_eq!((traces.processes.len(), traces.mounts.len()), (0, 0), "{traces:?}");
    assert_eq!(daemon.ctr(&format!("run --rm {BUSYBOX} orphan echo again")).ok(), "again\n");
}

/// The parent of `pid`, while it is there; a zombie is there too.
fn parent(pid: Pid) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:\t")?.parse().ok())
}

#[test]
fn the_second_shim_is_one_program_that_outlives_the_daemon_and_leaves_no_zombie() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let mut stage = stage::busybox();
    let daemon = &mut stage.daemon;
    for id in ["one", "two", "three"] {
        daemon.ctr(&format!("run -d {BUSYBOX} {id} sleep 1000")).ok();
    }
    let (one, two, three) = (shim(daemon, "one"), shim(daemon, "two"), shim(daemon, "three"));
    // The first one's program told how it can be started, and started another itself.
    assert_ne!(parent(one), Some(daemon.pid()));
    if parent(two) != Some(daemon.pid()) {
        println!("SKIP the_second_shim_is_one_program: this kernel seals no program");
        return;
    }
    for shim in [one, two] {
        let exe = format!("/proc/{}/exe", shim.as_raw_nonzero());
        let mounted = rustix::fs::statvfs(exe).unwrap();
        assert!(mounted.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{shim:?}");
    }
    let gone = |shim: Pid| {
        testkit::wait::eventually(Duration::from_secs(20), "the shim is gone", || {
            parent(shim).is_none().then_some(())
        });
    };
    for id in ["two", "one"] {
        daemon.ctr(&format!("task rm -f {id}")).ok();
    }
    gone(two);
    gone(one);
    daemon.kill();
    daemon.restart();
    stage::becomes(daemon, "three", "RUNNING");
    assert_ne!(parent(three), Some(daemon.pid()));
    daemon.ctr("task rm -f three").ok();
    gone(three);
}

#[test]
fn shims_have_the_configured_library_path_without_its_empty_parts() {
    needs!(root, overlayfs, program "busybox", built "containerd", built "ctr");
    let daemon = Daemon::ours()
        .config("[plugins.'io.containerd.shim.v1.manager']\n  env = ['LD_LIBRARY_PATH=/usr/lib:']")
        .start();
    daemon.import(BUSYBOX, &testkit::image::busybox());
    for id in ["one", "two"] {
        daemon.ctr(&format!("run -d {BUSYBOX} {id} sleep 1000")).ok();
        let pid = shim(&daemon, id).as_raw_nonzero();
        let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        let path = environment.split('\0').find(|pair| pair.starts_with("LD_LIBRARY_PATH="));
        assert_eq!(path, Some("LD_LIBRARY_PATH=/usr/lib"), "{id}");
    }
}
