//! Databases that are damaged or lost while pods run.

use std::fs;
use std::path::Path;

use api::runtime::v1;
use testkit::command::Run;
use testkit::{needs, place};

use crate::client::{Kubelet, call};

const METADATA: &str = "io.containerd.metadata.v1.bolt";
const SNAPSHOTTER: &str = "io.containerd.snapshotter.v1.overlayfs";

/// A pod with a container that runs.
fn running() -> (Kubelet, String, String) {
    let kubelet = Kubelet::new();
    let config = kubelet.pod("lost");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("runs", "exec sleep 1000"));
    (kubelet, pod, id)
}

/// The condition RuntimeReady: its status, reason and message.
fn ready(kubelet: &Kubelet) -> (bool, String, String) {
    let status = call!(kubelet, status, v1::StatusRequest { verbose: false }).unwrap().status.unwrap();
    let condition = status.conditions.into_iter().find(|one| one.r#type == "RuntimeReady").unwrap();
    (condition.status, condition.reason, condition.message)
}

/// What `containerd recover` prints.
fn recover(kubelet: &Kubelet) -> String {
    let config = kubelet.daemon.dir().join("config.toml");
    let run = Run::new(place::built("containerd"));
    run.args(["--config".as_ref(), config.as_os_str(), "recover".as_ref()]).ok()
}

/// Flips a bit in every page of a database but its header.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    for page in bytes.chunks_mut(4096).skip(1) {
        page[700] ^= 2;
    }
    fs::write(path, bytes).unwrap();
}

fn remove_metadata(kubelet: &Kubelet) {
    for entry in fs::read_dir(kubelet.daemon.root().join(METADATA)).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("meta.") {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn damaged_databases_cost_no_pod() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    let (mut kubelet, pod, id) = running();
    kubelet.daemon.stop();
    flip(&kubelet.daemon.root().join(METADATA).join("meta.redb"));
    flip(&kubelet.daemon.root().join(SNAPSHOTTER).join("metadata.redb"));
    kubelet.daemon.restart();
    assert_eq!(ready(&kubelet), (true, String::new(), String::new()));
    assert_eq!(kubelet.status(&id).state(), v1::ContainerState::ContainerRunning);
    let info = kubelet.daemon.ctr("info").ok();
    assert!(info.contains("made again from its second copy"), "{info}");
    assert!(info.contains("made again from the files of"), "{info}");
    assert_eq!(kubelet.exec(&id, "echo still", 10).unwrap().stdout, b"still\n");
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn lost_records_end_no_container_and_are_recovered() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    let (mut kubelet, pod, id) = running();
    kubelet.daemon.stop();
    remove_metadata(&kubelet);
    fs::write(kubelet.daemon.root().join(METADATA).join("meta.redb"), b"").unwrap();
    kubelet.daemon.restart();
    let (is_ready, reason, message) = ready(&kubelet);
    assert_eq!((is_ready, reason.as_str()), (false, "RecordsLost"));
    assert!(message.contains("is empty") && message.contains("containerd recover"), "{message}");
    let tasks = |kubelet: &Kubelet| kubelet.daemon.ctr("-n k8s.io task ls").ok();
    let runs =
        |tasks: &str, id: &str| tasks.lines().any(|line| line.contains(id) && line.contains("RUNNING"));
    assert!(runs(&tasks(&kubelet), &id), "{}", tasks(&kubelet));

    kubelet.daemon.stop();
    let told = recover(&kubelet);
    assert!(told.contains(&format!("container k8s.io/{id}")), "{told}");
    kubelet.daemon.restart();
    assert!(ready(&kubelet).0);
    assert!(runs(&tasks(&kubelet), &id));
    for id in [&id, &pod] {
        kubelet.daemon.ctr("-n k8s.io task rm -f").args([id]).ok();
        kubelet.daemon.ctr("-n k8s.io container rm").args([id]).ok();
    }
    kubelet.daemon.ctr("-n k8s.io leases rm recovered").ok();
    // What was there need not be fetched again, and pods run.
    let archive = kubelet.daemon.dir().join("busybox.tar");
    kubelet.daemon.ctr("-n k8s.io image import").args([&archive]).ok();
    let config = kubelet.pod("next");
    let pod = kubelet.run_pod(&config).unwrap();
    let next = kubelet.start(&pod, &config, kubelet.container("next", "exec sleep 1000"));
    assert_eq!(kubelet.status(&next).state(), v1::ContainerState::ContainerRunning);
    kubelet.remove_pod(&pod);
}

#[test]
fn lost_snapshots_are_reported_and_recovered() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    for database in [None, Some(&b""[..]), Some(&[7; 9000][..])] {
        let mut kubelet = Kubelet::new();
        kubelet.daemon.stop();
        let root = kubelet.daemon.root().join(SNAPSHOTTER);
        fs::remove_dir_all(root.join("records")).unwrap();
        match database {
            None => fs::remove_file(root.join("metadata.redb")).unwrap(),
            Some(bytes) => fs::write(root.join("metadata.redb"), bytes).unwrap(),
        }
        kubelet.daemon.restart();
        let (is_ready, reason, message) = ready(&kubelet);
        assert_eq!((is_ready, reason.as_str()), (false, "SnapshotsLost"), "{message}");
        assert!(message.contains("overlayfs") && message.contains("containerd recover"), "{message}");
        assert!(kubelet.daemon.ctr("info").ok().contains("recorded snapshots are missing"));

        kubelet.daemon.stop();
        let told = recover(&kubelet);
        assert!(told.contains("the record of lost snapshot") && told.contains("set aside"), "{told}");
        kubelet.daemon.restart();
        assert_eq!(ready(&kubelet), (true, String::new(), String::new()));
        let archive = kubelet.daemon.dir().join("busybox.tar");
        kubelet.daemon.ctr("-n k8s.io image import").args([&archive]).ok();
        let config = kubelet.pod("again");
        let pod = kubelet.run_pod(&config).unwrap();
        let id = kubelet.start(&pod, &config, kubelet.container("runs", "exec sleep 1000"));
        assert_eq!(kubelet.status(&id).state(), v1::ContainerState::ContainerRunning);
        kubelet.remove_pod(&pod);
    }
}

#[test]
fn a_pull_over_lost_snapshots_makes_the_runtime_ready_again() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    let mut kubelet = Kubelet::new();
    kubelet.daemon.stop();
    let root = kubelet.daemon.root().join(SNAPSHOTTER);
    fs::remove_dir_all(root.join("records")).unwrap();
    fs::write(root.join("metadata.redb"), b"").unwrap();
    kubelet.daemon.restart();
    assert!(!ready(&kubelet).0);
    let archive = kubelet.daemon.dir().join("busybox.tar");
    kubelet.daemon.ctr("-n k8s.io image import").args([&archive]).ok();
    assert_eq!(ready(&kubelet), (true, String::new(), String::new()));
}
