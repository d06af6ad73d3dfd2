//! The metadata is lost while blobs, snapshots and a running container are there.

use std::fs;

use testkit::daemon::Daemon;
use testkit::{image, needs};

#[test]
fn a_daemon_without_its_records_deletes_nothing_and_says_so() {
    needs!(root, overlayfs, program "busybox", built "containerd", built "ctr");
    let mut daemon = Daemon::start();
    daemon.import("docker.io/library/busybox:e2e", &image::busybox());
    daemon.ctr("snapshots prepare work").ok();
    daemon.stop();
    let meta = daemon.root().join("io.containerd.metadata.v1.bolt");
    fs::remove_file(meta.join("meta.redb")).unwrap();
    let count = |dir: &str| fs::read_dir(daemon.root().join(dir)).unwrap().count();
    let blobs = count("io.containerd.content.v1.content/blobs/sha256");
    let snapshots = count("io.containerd.snapshotter.v1.overlayfs/snapshots");
    assert!(blobs > 0 && snapshots > 0);
    daemon.restart();

    let info = daemon.ctr("info").ok();
    assert!(info.contains(&format!("over {blobs} blobs")) && info.contains("kept.json"), "{info}");
    assert_eq!(daemon.ctr("images ls -q").ok(), "");
    // The first collection, and one that is asked for.
    daemon.import("docker.io/library/busybox:e2e", &image::busybox());
    daemon.ctr("images rm --sync docker.io/library/busybox:e2e").ok();
    let count = |dir: &str| fs::read_dir(daemon.root().join(dir)).unwrap().count();
    assert_eq!(count("io.containerd.content.v1.content/blobs/sha256"), blobs);
    assert!(count("io.containerd.snapshotter.v1.overlayfs/snapshots") >= snapshots);
}
