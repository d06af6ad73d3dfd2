//! The harness itself against Debian's Go containerd: what these cases ask of our daemon is what a real one gives.

use testkit::daemon::Daemon;
use testkit::{image, needs};

#[test]
fn debians_daemon_runs_a_container_and_leaves_no_trace() {
    needs!(root, overlayfs, program "containerd", program "runc", program "busybox");
    let daemon = Daemon::debian().start();
    let archive = daemon.dir().join("busybox.tar");
    std::fs::write(&archive, image::busybox().archive("example.com/busybox:v1")).unwrap();
    daemon.go_ctr("image import").args([&archive]).ok();
    let out = daemon.go_ctr("run --rm example.com/busybox:v1 one cat /etc/release-of").ok();
    assert_eq!(out, "busybox\n");
    let traces = daemon.traces();
    assert_eq!((traces.processes.len(), traces.mounts.len()), (0, 0), "{traces:?}");
}
