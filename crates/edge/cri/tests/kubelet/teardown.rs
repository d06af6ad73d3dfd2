//! Steps of a teardown that fail: what the next try needs stays, and the kubelet sees that there is something to remove.

use std::fs;
use std::path::{Path, PathBuf};

use api::nri::pkg::api::v1alpha1 as pb;
use api::runtime::v1;
use testkit::needs;

use crate::client::{Kubelet, call};
use crate::node::Node;
use crate::nri_plugin::Plugin;

/// Has the node's network end in a plugin whose DEL fails while the file that is answered exists, and succeeds else.
fn failing_del(node: &Node) -> PathBuf {
    let fails = node.daemon.dir().join("del-fails");
    let script = format!(
        "input=$(cat)\ncase \"$CNI_COMMAND\" in\n\
         ADD) echo '{{\"cniVersion\":\"1.0.0\",\"interfaces\":[{{\"name\":\"eth0\",\"sandbox\":\"x\"}}],\
         \"ips\":[{{\"address\":\"10.77.0.99/24\",\"interface\":0}}]}}' ;;\n\
         DEL) [ ! -e {} ] || {{ echo '{{\"cniVersion\":\"1.0.0\",\"code\":11,\"msg\":\"please retry\"}}'; exit 1; }} ;;\n\
         VERSION) echo '{{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"1.0.0\"]}}' ;;\nesac\nexit 0",
        fails.display()
    );
    node.plugin("refuses", &script);
    node.configure(&["refuses"]);
    fails
}

fn status(kubelet: &Kubelet, pod: &str) -> (v1::PodSandboxStatus, serde_json::Value) {
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: true };
    let answer = call!(kubelet, pod_sandbox_status, request).unwrap();
    (answer.status.unwrap(), serde_json::from_str(&answer.info["info"]).unwrap())
}

fn pods(kubelet: &Kubelet) -> Vec<v1::PodSandbox> {
    call!(kubelet, list_pod_sandbox, v1::ListPodSandboxRequest::default()).unwrap().items
}

fn stop(kubelet: &Kubelet, pod: &str) -> Result<v1::StopPodSandboxResponse, tonic::Status> {
    call!(kubelet, stop_pod_sandbox, v1::StopPodSandboxRequest { pod_sandbox_id: pod.into() })
}

fn remove(kubelet: &Kubelet, pod: &str) -> Result<v1::RemovePodSandboxResponse, tonic::Status> {
    call!(kubelet, remove_pod_sandbox, v1::RemovePodSandboxRequest { pod_sandbox_id: pod.into() })
}

#[test]
fn failed_cni_del_keeps_namespace_address_and_record_until_one_succeeds() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let mut node = Node::new("");
    let before = node.left();
    let fails = failing_del(&node);
    let config = node.networked("sticks");
    let pod = node.run_pod(&config).unwrap();
    let (_, info) = status(&node, &pod);
    let netns = PathBuf::from(info["sandboxMetadata"]["Metadata"]["NetNSPath"].as_str().unwrap());
    assert!(net::netns::exists(&netns));
    let network = node.left();
    fs::write(&fails, "").unwrap();
    let still = |node: &Node| {
        for verb in [stop(node, &pod).map(drop), remove(node, &pod).map(drop)] {
            let error = verb.unwrap_err();
            assert!(error.message().contains("please retry"), "{error}");
            assert!(error.message().contains("failed to destroy network for sandbox"), "{error}");
        }
        assert!(net::netns::exists(&netns), "it goes after a DEL that succeeded");
        assert!(node.left().attached_as(&network), "{:?}", node.left());
        assert_eq!(
            pods(node).iter().map(|one| (&one.id, one.state())).collect::<Vec<_>>(),
            [(&pod, v1::PodSandboxState::SandboxNotready)]
        );
    };
    still(&node);
    node.daemon.restart();
    still(&node);
    fs::remove_file(&fails).unwrap();
    node.remove_pod(&pod);
    assert!(!netns.exists());
    node.settles_at(&before, "the end");
    node.check_clean();
}

#[test]
fn pod_that_could_not_be_taken_back_is_listed_until_it_is_removed() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let mut node = Node::new("");
    let before = node.left();
    let fails = failing_del(&node);
    let config = node.networked("stays");
    for step in ["pod attached", "pod records", "pod started"] {
        fs::write(&fails, "").unwrap();
        node.fault("fail", step);
        let error = node.run_pod(&config).unwrap_err();
        assert!(error.message().contains(step) && error.message().contains("please retry"), "{error}");
        node.no_fault();
        for restarts in [false, true] {
            if restarts {
                node.daemon.restart();
            }
            let listed = pods(&node);
            let [pod] = listed.as_slice() else { panic!("{step}, {restarts}: {listed:?}") };
            assert_eq!(pod.state(), v1::PodSandboxState::SandboxNotready);
            assert_eq!((&pod.metadata, &pod.labels), (&config.metadata, &config.labels));
            let (_, info) = status(&node, &pod.id);
            assert_eq!(info["netNamespaceClosed"], false, "{step}");
        }
        assert_eq!(
            node.run_pod(&config).unwrap_err().code(),
            tonic::Code::AlreadyExists,
            "its name is taken"
        );
        fs::remove_file(&fails).unwrap();
        node.remove_pod(&pods(&node)[0].id);
        node.settles_at(&before, step);
    }
}

#[test]
fn pod_whose_making_a_dead_daemon_cut_off_is_listed_until_it_is_removed() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let mut node = Node::new("");
    let config = node.networked("cut");
    let before = node.left();
    for (step, has_netns) in [("pod netns path", false), ("pod netns", true), ("pod attached", true)] {
        node.fault("die", step);
        node.run_pod(&config).unwrap_err();
        node.no_fault();
        node.daemon.restart();
        let listed = pods(&node);
        let [pod] = listed.as_slice() else { panic!("{step}: {listed:?}") };
        assert_eq!(pod.state(), v1::PodSandboxState::SandboxNotready, "{step}");
        assert_eq!(pod.metadata, config.metadata);
        let (seen, info) = status(&node, &pod.id);
        assert_eq!(seen.state(), v1::PodSandboxState::SandboxNotready);
        assert_eq!(info["netNamespaceClosed"], !has_netns, "{step}");
        let netns = info["sandboxMetadata"]["Metadata"]["NetNSPath"].as_str().unwrap();
        assert_eq!(Path::new(netns).exists(), has_netns, "{step}: {netns}");
        node.remove_pod(&pod.id);
        node.settles_at(&before, step);
    }
}

#[test]
fn nri_hears_of_a_pods_stop_while_its_network_is_there() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let node = Node::new("");
    let pod = node.run_pod(&node.networked("heard")).unwrap();
    let (sent, seen) = std::sync::mpsc::channel();
    let plugin = Plugin::connect(&node, "10", "net", move |method, payload| {
        if method == "StopPodSandbox" {
            let request = <pb::StopPodSandboxRequest as api::Message>::decode(payload).unwrap();
            let namespaces = request.pod.unwrap().linux.unwrap().namespaces;
            let netns = namespaces.into_iter().find(|one| one.r#type == "network").map(|one| one.path);
            let there = netns.as_deref().map(|path| net::netns::exists(Path::new(path)));
            sent.send((netns, there)).unwrap();
        }
        Some(Ok(Vec::new()))
    });
    let (_, info) = status(&node, &pod);
    stop(&node, &pod).unwrap();
    let (netns, there) = seen.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
    assert_eq!(netns.as_deref(), info["sandboxMetadata"]["Metadata"]["NetNSPath"].as_str());
    assert_eq!(there, Some(true));
    node.remove_pod(&pod);
    assert_eq!(plugin.methods().iter().filter(|method| *method == "StopPodSandbox").count(), 1);
    node.check_clean();
}
