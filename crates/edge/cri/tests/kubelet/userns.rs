//! Pods with a user namespace: who is who inside, on the host and on disk.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use api::runtime::v1;
use serde_json::json;
use testkit::image::{Build, Image, Layer, busybox_tar};
use testkit::needs;
use testkit::tar::{Archive, Entry};

use crate::client::{Kubelet, call};
use crate::node::Node;

/// Where the ids of these pods begin on the host.
const FIRST: u32 = 200_000;

fn map() -> v1::IdMapping {
    v1::IdMapping { container_id: 0, host_id: FIRST, length: 65536 }
}

fn options(network: v1::NamespaceMode) -> v1::NamespaceOption {
    let userns =
        v1::UserNamespace { mode: v1::NamespaceMode::Pod.into(), uids: vec![map()], gids: vec![map()] };
    v1::NamespaceOption {
        network: network.into(),
        pid: v1::NamespaceMode::Container.into(),
        userns_options: Some(userns),
        ..v1::NamespaceOption::default()
    }
}

fn pod(kubelet: &Kubelet, name: &str, network: v1::NamespaceMode) -> v1::PodSandboxConfig {
    // Who is root inside is nobody here, and walks through the daemon's directories all the same.
    fs::set_permissions(kubelet.daemon.dir(), fs::Permissions::from_mode(0o711)).unwrap();
    let mut config = kubelet.pod(name);
    let security = config.linux.get_or_insert_default().security_context.get_or_insert_default();
    security.namespace_options = Some(options(network));
    config
}

fn container(kubelet: &Kubelet, name: &str, network: v1::NamespaceMode) -> v1::ContainerConfig {
    let mut config = kubelet.container(name, "exec sleep 1000");
    let security = config.linux.get_or_insert_default().security_context.get_or_insert_default();
    security.namespace_options = Some(options(network));
    config
}

fn said(kubelet: &Kubelet, id: &str, script: &str) -> String {
    let done = kubelet.exec(id, script, 10).unwrap();
    assert_eq!(done.exit_code, 0, "{script}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// The host's user of a container's first process.
fn host_user(kubelet: &Kubelet, id: &str) -> u32 {
    let list = kubelet.daemon.ctr("-n k8s.io task ls").ok();
    let line = list.lines().find(|line| line.starts_with(id)).unwrap().to_owned();
    let pid = line.split_whitespace().nth(1).unwrap().to_owned();
    fs::metadata(Path::new("/proc").join(pid)).unwrap().uid()
}

/// What holds for every pod in a user namespace, whatever its network.
fn check(kubelet: &Kubelet, name: &str, network: v1::NamespaceMode) {
    let config = pod(kubelet, name, network);
    let pod = kubelet.run_pod(&config).unwrap();
    let volume = kubelet.daemon.dir().join("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join("of-seven"), "x").unwrap();
    std::os::unix::fs::chown(volume.join("of-seven"), Some(7), Some(8)).unwrap();
    let mount = |at: &str, maps: &[v1::IdMapping]| v1::Mount {
        container_path: at.into(),
        host_path: volume.display().to_string(),
        uid_mappings: maps.to_vec(),
        gid_mappings: maps.to_vec(),
        ..v1::Mount::default()
    };
    let mut wanted = container(kubelet, "one", network);
    wanted.mounts = vec![mount("/mapped", &[map()]), mount("/unmapped", &[])];
    let id = kubelet.start(&pod, &config, wanted);
    let say = |script: &str| said(kubelet, &id, script);
    assert_eq!(say("id -u"), "0");
    assert_eq!(
        say("cat /proc/self/uid_map").split_whitespace().collect::<Vec<_>>(),
        ["0", "200000", "65536"]
    );
    assert_eq!(host_user(kubelet, &id), FIRST);
    assert_eq!(host_user(kubelet, &pod), FIRST);
    assert_eq!(say("stat -c %u:%g / /bin/busybox /etc/hosts /dev/shm"), "0:0\n0:0\n0:0\n65534:65534");
    assert_eq!(say("touch /made && stat -c %u /made"), "0");
    assert_eq!(say("echo 10.0.0.1 x >> /etc/hosts && tail -n1 /etc/hosts"), "10.0.0.1 x");
    assert_eq!(say("touch /dev/shm/x && stat -c %u /dev/shm/x"), "0");
    assert_eq!(say("stat -c %u:%g /mapped/of-seven /unmapped/of-seven"), "7:8\n65534:65534");
    assert_eq!(say("touch /mapped/by-root && stat -c %u /mapped/by-root"), "0");
    assert_eq!(fs::metadata(volume.join("by-root")).unwrap().uid(), 0);
    // Root inside is nobody to the host.
    assert_ne!(kubelet.exec(&id, "echo 1 > /proc/sysrq-trigger", 10).unwrap().exit_code, 0);
    let upper = kubelet.daemon.root().join("io.containerd.snapshotter.v1.overlayfs/snapshots");
    let made = fs::read_dir(upper).unwrap().map(|entry| entry.unwrap().path().join("fs/made"));
    let owners: Vec<_> = made.filter_map(|path| fs::metadata(path).ok()).map(|file| file.uid()).collect();
    assert_eq!(owners, [FIRST]);
    let mut other = container(kubelet, "other", network);
    other.linux.get_or_insert_default().security_context = None;
    assert!(kubelet.create(&pod, &config, other).unwrap_err().message().contains("user namespace config"));
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn root_of_a_pod_with_a_user_namespace_is_nobody_on_the_host() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let status = call!(kubelet, status, v1::StatusRequest { verbose: false }).unwrap();
    let features = status.runtime_handlers[0].features.unwrap();
    assert!(features.user_namespaces && features.recursive_read_only_mounts);
    check(&kubelet, "on-host", v1::NamespaceMode::Node);
}

#[test]
fn a_pod_with_a_user_namespace_and_a_network_of_its_own() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let node = Node::new("");
    check(&node, "own-network", v1::NamespaceMode::Pod);
    let config = pod(&node, "rules", v1::NamespaceMode::Pod);
    let pod = node.run_pod(&config).unwrap();
    let mut wanted = container(&node, "two", v1::NamespaceMode::Pod);
    let security = wanted.linux.get_or_insert_default().security_context.get_or_insert_default();
    security.capabilities =
        Some(v1::Capability { add_capabilities: vec!["NET_ADMIN".into()], ..v1::Capability::default() });
    let id = node.start(&pod, &config, wanted);
    // The network is the namespace's own to configure.
    assert!(said(&node, &id, "ifconfig lo 127.0.0.2 && ifconfig lo").contains("127.0.0.2"));
    node.remove_pod(&pod);
    node.check_clean();
}

#[test]
fn a_pause_image_and_volumes_of_an_image_are_shifted_too() {
    needs!(root, overlayfs, built "containerd");
    let pause = "docker.io/library/pause:v1";
    let kubelet =
        Kubelet::with(&format!("[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = '{pause}'"));
    let import = |image: &Image, reference: &str| {
        let archive = kubelet.daemon.dir().join("image.tar");
        fs::write(&archive, image.archive(reference)).unwrap();
        kubelet.daemon.ctr("-n k8s.io image import").args([&archive]).ok();
    };
    import(&Build::new().layer(Layer::plain(busybox_tar())).cmd(&["sleep", "1000"]).build(), pause);
    let mut file = Entry::new(b'0', "srv/data/of-seven");
    (file.uid, file.gid, file.mode) = (7, 8, 0o600);
    let tar = Archive::new().dir("srv", 0o755).dir("srv/data", 0o755).entry(&file).finish();
    let built = Build::new().layer(Layer::plain(busybox_tar())).layer(Layer::plain(tar));
    let built = built.set("Volumes", json!({"/srv/data": {}})).build();
    let reference = "docker.io/library/volumes:v1";
    import(&built, reference);
    let network = v1::NamespaceMode::Node;
    let config = pod(&kubelet, "volumes", network);
    let pod = kubelet.run_pod(&config).unwrap();
    let mut wanted = container(&kubelet, "one", network);
    let image = Some(v1::ImageSpec { image: reference.into(), ..v1::ImageSpec::default() });
    wanted.image.clone_from(&image);
    wanted.mounts = vec![v1::Mount {
        container_path: "/image".into(),
        image,
        readonly: true,
        uid_mappings: vec![map()],
        gid_mappings: vec![map()],
        ..v1::Mount::default()
    }];
    let id = kubelet.start(&pod, &config, wanted);
    assert_eq!(said(&kubelet, &id, "stat -c %u:%g /image/srv/data/of-seven"), "7:8");
    assert_eq!(said(&kubelet, &id, "stat -c %u:%g /srv/data /srv/data/of-seven"), "0:0\n7:8");
    assert_eq!(said(&kubelet, &id, "touch /srv/data/new && stat -c %u /srv/data/new"), "0");
    let info = kubelet.daemon.ctr("-n k8s.io snapshots info").args([&pod]).ok();
    assert!(info.contains("0:200000:65536"), "{info}");
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_pod_with_a_user_namespace_that_is_not_made_whole_leaves_nothing() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let mut node = Node::new("");
    let config = pod(&node, "torn", v1::NamespaceMode::Pod);
    let whole = node.run_pod(&config).unwrap();
    node.remove_pod(&whole);
    let before = node.left();
    for step in ["pod netns", "pod created"] {
        node.fault("fail", step);
        assert!(node.run_pod(&config).unwrap_err().message().contains(step), "{step}");
        node.settles_at(&before, step);
        node.fault("die", step);
        node.run_pod(&config).unwrap_err();
        node.no_fault();
        node.daemon.restart();
        let pods = call!(node, list_pod_sandbox, v1::ListPodSandboxRequest::default()).unwrap().items;
        pods.iter().for_each(|pod| node.remove_pod(&pod.id));
        node.settles_at(&before, step);
    }
    // What the next daemon takes up can still be joined.
    let taken_up = node.run_pod(&config).unwrap();
    node.daemon.restart();
    let id = node.start(&taken_up, &config, container(&node, "later", v1::NamespaceMode::Pod));
    assert_eq!(host_user(&node, &id), FIRST);
    node.remove_pod(&taken_up);
    node.check_clean();
}

#[test]
fn streams_of_a_pod_with_a_user_namespace_can_be_opened_again() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let network = v1::NamespaceMode::Node;
    let config = pod(&kubelet, "streams", network);
    let pod = kubelet.run_pod(&config).unwrap();
    let script = "echo out > /dev/stdout && echo err > /dev/stderr";
    for (name, user) in [("root", 0), ("seven", 7)] {
        let mut wanted = container(&kubelet, name, network);
        wanted.command =
            ["/bin/sh", "-c", &format!("{script} && exec sleep 1000")].map(str::to_owned).to_vec();
        let security = wanted.linux.get_or_insert_default().security_context.get_or_insert_default();
        security.run_as_user = Some(v1::Int64Value { value: user });
        let id = kubelet.start(&pod, &config, wanted);
        let log = kubelet.logs().join(format!("{name}.log"));
        testkit::wait::eventually(std::time::Duration::from_secs(20), "the container's output", || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            (text.contains("stdout F out") && text.contains("stderr F err")).then_some(())
        });
        let done = kubelet.exec(&id, script, 10).unwrap();
        assert_eq!(
            (done.stdout.as_slice(), done.stderr.as_slice()),
            (&b"out\n"[..], &b"err\n"[..]),
            "{name}"
        );
    }
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}
