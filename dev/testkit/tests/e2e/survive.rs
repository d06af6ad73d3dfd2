//! The daemon dies at every kind of moment; containers, exit codes and stored data do not.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::daemon::Daemon;
use testkit::image;
use testkit::needs;
use testkit::peer::{Fault, Peer};

use crate::stage::{self, BUSYBOX, becomes, pid, status};

/// Sends a signal to a process of a container, from the host.
fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("the process is there");
}

#[test]
fn containers_and_exit_codes_outlive_the_daemon() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let mut stage = stage::busybox();
    let daemon = &mut stage.daemon;
    let script = "trap 'exit 7' TERM; while :; do sleep 1 & wait $!; done";
    for id in ["stays", "ends"] {
        daemon.ctr(&format!("run -d {BUSYBOX} {id}")).args(["sh", "-c", script]).ok();
    }
    let (stays, ends) = (pid(daemon, "stays"), pid(daemon, "ends"));
    daemon.kill();
    signal(ends, Signal::TERM);
    testkit::wait::eventually(Duration::from_secs(10), "the container ends while no daemon runs", || {
        let stat = std::fs::read_to_string(format!("/proc/{ends}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    daemon.restart();
    assert_eq!(status(daemon, "stays").as_deref(), Some("RUNNING"));
    assert_eq!(pid(daemon, "stays"), stays);
    becomes(daemon, "ends", "STOPPED");
    let removed = daemon.ctr("task rm ends").run();
    assert!(removed.stderr.contains("exit code 7"), "its exit code was kept: {removed}");
    assert_eq!(daemon.ctr("task exec --exec-id e stays echo alive").ok(), "alive\n");
    daemon.ctr("task kill stays").ok();
    becomes(daemon, "stays", "STOPPED");
    let removed = daemon.ctr("task rm stays").run();
    assert!(removed.stderr.contains("exit code 7"), "{removed}");
    let traces = daemon.traces();
    assert_eq!((traces.processes.len(), traces.mounts.len()), (0, 0), "{traces:?}");
}

#[test]
fn a_clean_stop_leaves_containers_running() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let mut stage = stage::busybox();
    let daemon = &mut stage.daemon;
    daemon.ctr(&format!("run -d {BUSYBOX} web sleep 1000")).ok();
    let before = pid(daemon, "web");
    daemon.stop();
    daemon.restart();
    assert_eq!((status(daemon, "web").as_deref(), pid(daemon, "web")), (Some("RUNNING"), before));
}

#[test]
fn a_pull_cut_by_the_daemons_death_is_done_again() {
    needs!(root, overlayfs, program "busybox", built "containerd", built "ctr");
    let (peer, mut daemon) = (Peer::start(), Daemon::start());
    let reference = peer.serve("thing", "v1", image::busybox());
    peer.fail("GET", "/blobs/", Fault::StallAfter(100_000)).times(1);
    let pull = daemon.ctr("image pull --plain-http").args([&reference]).start();
    peer.waits_for("GET", "/blobs/");
    daemon.kill();
    let cut = pull.wait();
    assert!(cut.code != 0, "{cut}");
    daemon.restart();
    assert_eq!(daemon.ctr("image ls -q").ok(), "");
    daemon.ctr("image pull --plain-http").args([&reference]).ok();
    assert_eq!(daemon.ctr("run --rm").args([&reference, "one", "echo", "whole"]).ok(), "whole\n");
}

#[test]
fn a_death_at_any_moment_of_a_start_leaves_a_clean_next_start() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let mut stage = stage::busybox();
    let daemon = &mut stage.daemon;
    for turn in 0..12_u64 {
        let id = format!("cut{turn}");
        let mut run = daemon.ctr(&format!("run -d {BUSYBOX} {id} sleep 1000")).start();
        // Each turn reaches a little further into the start.
        let done = run.ends_within(Duration::from_millis(4 * turn));
        daemon.kill();
        drop((run, done));
        daemon.restart();
        // Whatever is left of it can be removed by the usual commands.
        let _ = daemon.ctr(&format!("task rm -f {id}")).run();
        let _ = daemon.ctr(&format!("container rm {id}")).run();
        assert!(stage::row(&daemon.ctr("container ls").ok(), &id).is_none(), "{id} is gone");
        assert!(status(daemon, &id).is_none(), "{id} has no task");
    }
    daemon.ctr(&format!("run --rm {BUSYBOX} last true")).ok();
    // A shim whose daemon died before it heard of it ends by itself or is ended by the next daemon.
    testkit::wait::eventually(Duration::from_secs(20), "no process and no mount is left", || {
        let traces = daemon.traces();
        (traces.processes.is_empty() && traces.mounts.is_empty()).then_some(())
    });
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    let mut daemon = stage::keeping();
    for turn in 0..5 {
        daemon.ctr(&format!("leases create --id lease{turn}")).ok();
        daemon.ctr(&format!("content ingest key{turn}")).stdin(format!("blob {turn}")).ok();
        daemon.kill();
        daemon.restart();
        let leases = daemon.ctr("leases ls -q").ok();
        assert!(leases.contains(&format!("lease{turn}")), "{leases}");
        let digest = image::sha256(format!("blob {turn}").as_bytes());
        assert_eq!(daemon.ctr("content get").args([&digest]).ok(), format!("blob {turn}"));
    }
}

#[test]
fn deleted_images_give_their_space_back() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let stage = stage::busybox();
    let daemon = &stage.daemon;
    assert!(daemon.traces().blobs >= 3);
    daemon.ctr(&format!("image rm --sync {BUSYBOX}")).ok();
    testkit::wait::eventually(Duration::from_secs(20), "blobs and snapshots are collected", || {
        let traces = daemon.traces();
        (traces.blobs == 0 && traces.snapshots == 0).then_some(())
    });
}
