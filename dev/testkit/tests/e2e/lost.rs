//! The metadata is lost while blobs, snapshots and a running container are there.

use std::fs;

use testkit::daemon::Daemon;
use testkit::registry::Registry;
use testkit::{image, needs};

#[test]
fn a_daemon_without_its_records_deletes_nothing_and_says_so() {
    needs!(root, overlayfs, program "busybox", built "containerd", built "ctr");
    let mut daemon = Daemon::start();
    daemon.import("docker.io/library/busybox:e2e", &image::busybox());
    daemon.ctr("snapshots prepare work").ok();
    daemon.stop();
    let meta = daemon.root().join("io.containerd.metadata.v1.bolt");
    // With its second copy, from which it would be made again.
    for entry in fs::read_dir(&meta).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("meta.") {
            fs::remove_file(path).unwrap();
        }
    }
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

#[test]
fn an_image_with_damaged_blobs_is_repaired_by_a_pull() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let registry = Registry::start();
    let daemon = Daemon::start();
    let reference = daemon.pull(&registry, &image::busybox());
    let check = |daemon: &Daemon| daemon.ctr("image check").ok();
    assert!(check(&daemon).contains("complete ("), "{}", check(&daemon));
    let blobs = daemon.root().join("io.containerd.content.v1.content/blobs/sha256");
    let largest = fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path());
    let largest = largest.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    fs::remove_file(&largest).unwrap();
    assert!(check(&daemon).contains("incomplete ("), "{}", check(&daemon));
    daemon.ctr("image pull --plain-http").args([&reference]).ok();
    assert!(!check(&daemon).contains("incomplete"), "{}", check(&daemon));
    assert!(largest.exists());
}

/// The state directory of an earlier engine, and a root that knows nothing of it.
#[test]
fn task_of_an_earlier_engine_is_named_and_can_be_ended() {
    needs!(root, overlayfs, program "busybox", built "containerd", built "ctr");
    let mut daemon = Daemon::start();
    let image_name = "docker.io/library/busybox:e2e";
    daemon.import(image_name, &image::busybox());
    daemon.ctr(&format!("run -d {image_name} one sleep 1000")).ok();
    daemon.stop();
    let config = daemon.dir().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    let root = format!("root = '{}'", daemon.root().display());
    assert!(text.contains(&root));
    let other = format!("root = '{}'", daemon.dir().join("other").display());
    fs::write(&config, text.replace(&root, &other)).unwrap();
    daemon.restart();

    let words = format!("ctr -n {} task rm -f one", daemon.namespace());
    testkit::wait::eventually(std::time::Duration::from_secs(20), "the task is logged", || {
        daemon.log().contains(&words).then_some(())
    });
    assert!(daemon.ctr("info").ok().contains(&words));
    daemon.import(image_name, &image::busybox());
    let refused = daemon.ctr(&format!("run -d {image_name} one true")).fails();
    assert!(refused.contains("already exists") && refused.contains("task rm -f one"), "{refused}");
    assert_eq!(daemon.ctr("container ls -q").ok(), "");
    daemon.ctr("task kill one").ok();
    daemon.ctr("task rm -f one").ok();
    assert_eq!(daemon.ctr("task ls -q").ok(), "");
    assert_eq!(daemon.traces().processes, Vec::<String>::new());
    assert!(!daemon.ctr("info").ok().contains(&words));
}
