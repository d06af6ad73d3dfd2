//! What belongs to nobody any more goes at the daemon's start; what belongs to others stays.

use std::fs;
use std::time::Duration;

use api::containerd::services::{containers, sandbox};
use api::runtime::v1;
use grpc::channel::Headers;
use grpc::containerd::services as stub;
use testkit::command::Run;
use testkit::{needs, wait};

use crate::client::{IMAGE, Kubelet, call};
use crate::node::Node;

/// Deletes the records of a pod, as though they were lost.
fn lose_records(kubelet: &Kubelet, pod: &str) {
    let headers = || Headers::new("k8s.io", None).unwrap();
    kubelet.run(async {
        let channel = grpc::channel::connect(&kubelet.daemon.socket()).await.unwrap();
        let mut records = stub::containers::v1::containers_client::ContainersClient::with_interceptor(
            channel.clone(),
            headers(),
        );
        records.delete(containers::v1::DeleteContainerRequest { id: pod.into() }).await.unwrap();
        let mut records = stub::sandbox::v1::store_client::StoreClient::with_interceptor(channel, headers());
        let request = sandbox::v1::StoreDeleteRequest { sandbox_id: pod.into() };
        records.delete(request).await.unwrap();
    });
}

#[test]
fn what_no_record_names_goes_at_the_start_and_what_is_others_stays() {
    needs!(root, overlayfs, program "mount", built "containerd", built "berth-cni");
    let mut node = Node::new("");
    let config = node.networked("kept");
    let kept = node.run_pod(&config).unwrap();
    let mut ours = node.container("one", "exec sleep 1000");
    ours.linux = None;
    let lives = node.start(&kept, &config, ours.clone());
    // Others': a container of ctr's in the same namespace, one of nerdctl's in the same network.
    node.daemon.ctr(&format!("-n k8s.io run -d {IMAGE} stranger sleep 1000")).ok();
    let stranger = node.attach_stranger("stranger-that-lives");
    let before = node.left();
    // Ours: a whole pod whose records are lost, an attachment without its namespace, directories of nobody.
    let lost_config = node.networked("lost");
    let lost = node.run_pod(&lost_config).unwrap();
    node.start(&lost, &lost_config, ours);
    let stale = node.attach_stranger("stranger-that-is-gone");
    assert_ne!(node.left(), before);
    lose_records(&node, &lost);
    node.daemon.kill();
    net::netns::remove(&stale).unwrap();
    let id = "0f".repeat(32);
    let dirs = ["root", "state"].map(|part| node.daemon.dir().join(part).join("io.containerd.grpc.v1.cri"));
    let shm = dirs[1].join("sandboxes").join(&id).join("shm");
    for dir in
        [&shm, &dirs[0].join("sandboxes").join(&id), &dirs[0].join("containers").join(&id).join("volumes/x")]
    {
        fs::create_dir_all(dir).unwrap();
    }
    Run::new("mount").args(["-t", "tmpfs", "shm"]).args([&shm]).ok();
    node.daemon.restart();
    node.settles_at(&before, "the next start");
    let pods = call!(node, list_pod_sandbox, v1::ListPodSandboxRequest::default()).unwrap().items;
    assert_eq!(pods.iter().map(|pod| &pod.id).collect::<Vec<_>>(), [&kept]);
    assert_eq!(node.exec(&lives, "echo here", 30).unwrap().stdout, b"here\n");
    let tasks = node.daemon.ctr("-n k8s.io task ls").ok();
    let theirs =
        tasks.lines().find(|line| line.starts_with("stranger ")).unwrap_or_else(|| panic!("{tasks}"));
    assert!(theirs.contains("RUNNING"), "{theirs}");
    assert!(net::netns::exists(&stranger), "a stranger's namespace");
    // The name of the lost pod is free.
    let again = node.run_pod(&lost_config).unwrap();
    node.remove_pod(&again);
    node.remove_pod(&kept);
    node.daemon.ctr("-n k8s.io task rm -f stranger").ok();
    node.daemon.ctr("-n k8s.io container rm stranger").ok();
    net::netns::remove(&stranger).unwrap();
    // Its attachment goes with its namespace.
    node.daemon.restart();
    wait::eventually(Duration::from_secs(20), "the stranger's attachment", || {
        node.left().unattached().then_some(())
    });
    node.check_clean();
}

#[test]
fn attachments_of_what_is_gone_are_given_back_in_handlers_networks_too() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let own = testkit::place::temp();
    let mut node = Node::new(&format!(
        "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.apart]\n\
         runtime_type = 'io.containerd.runc.v2'\ncni_conf_dir = '{}'\n",
        own.path().display()
    ));
    let name = node.configure_own(own.path());
    let lives = node.attach_stranger_by("stranger-that-lives", own.path());
    let before = (node.left(), node.addresses(&name), node.cached(&name));
    let gone = node.attach_stranger_by("stranger-that-is-gone", own.path());
    assert_eq!(node.addresses(&name).len(), 2);
    node.daemon.kill();
    net::netns::remove(&gone).unwrap();
    node.daemon.restart();
    wait::eventually(Duration::from_secs(20), "the stale attachment", || {
        ((node.left(), node.addresses(&name), node.cached(&name)) == before).then_some(())
    });
    assert!(node.cached(&name)[0].to_string_lossy().contains("stranger-that-lives"));
    net::netns::remove(&lives).unwrap();
    node.daemon.restart();
    wait::eventually(Duration::from_secs(20), "the other", || node.cached(&name).is_empty().then_some(()));
    node.check_clean();
}

#[test]
fn a_plugin_that_hangs_on_what_a_dead_daemon_left_delays_no_start() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let mut node = Node::new("");
    let before = node.left();
    let hangs = node.daemon.dir().join("hangs");
    fs::write(&hangs, "").unwrap();
    let script = format!(
        "cat > /dev/null\ncase \"$CNI_COMMAND\" in\nDEL) while [ -e {} ]; do sleep 0.1; done ;;\n\
         ADD) echo '{{\"cniVersion\":\"1.0.0\"}}' ;;\n\
         VERSION) echo '{{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"1.0.0\"]}}' ;;\nesac\nexit 0",
        hangs.display()
    );
    node.plugin("tardy", &script);
    node.configure(&["tardy"]);
    for name in ["one", "two"] {
        node.fault("die", "pod attached");
        node.run_pod(&node.networked(name)).unwrap_err();
        node.daemon.restart();
    }
    // A daemon that waited for them would wait a minute for each.
    wait::eventually(Duration::from_secs(10), "the start", || {
        call!(node, list_pod_sandbox, v1::ListPodSandboxRequest::default()).ok()
    });
    fs::remove_file(&hangs).unwrap();
    node.no_fault();
    let pods = call!(node, list_pod_sandbox, v1::ListPodSandboxRequest::default()).unwrap().items;
    assert_eq!(pods.len(), 2, "the kubelet removes them: {pods:?}");
    pods.iter().for_each(|pod| node.remove_pod(&pod.id));
    node.settles_at(&before, "the end");
}
