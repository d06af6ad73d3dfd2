//! CNI plugins that misbehave, and networks that vanish: told as they are, and nothing stays.

use std::fs;
use std::time::{Duration, Instant};

use api::runtime::v1;
use testkit::needs;

use crate::client::call;
use crate::node::Node;

/// A plugin that notes each command in `FILE` and does `on_add` for ADD; DEL succeeds.
fn plugin(node: &Node, name: &str, on_add: &str) -> std::path::PathBuf {
    let seen = node.daemon.dir().join(format!("{name}.seen"));
    let script = format!(
        "cat > /dev/null\necho \"$CNI_COMMAND\" >> {}\ncase \"$CNI_COMMAND\" in\nADD) {on_add} ;;\n\
         VERSION) echo '{{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"1.0.0\"]}}' ;;\nesac\nexit 0",
        seen.display()
    );
    node.plugin(name, &script);
    seen
}

#[test]
fn a_plugin_that_fails_or_prints_garbage_or_hangs_fails_the_pod_which_leaves_nothing() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let node = Node::new("");
    let config = node.networked("bad");
    let pod = node.run_pod(&config).unwrap();
    node.remove_pod(&pod);
    let before = node.left();
    let failure = r#"echo '{"cniVersion":"1.0.0","code":11,"msg":"no room"}'; exit 1"#;
    let flood = "head -c 50000000 /dev/zero; exit 1";
    let cases = [
        ("fails", failure, "no room"),
        ("garbage", "echo '{{{ not json'", "garbage"),
        ("floods", flood, "floods"),
        ("silent", "exit 3", "silent"),
        ("hangs", "sleep 1000 & sleep 1000", "hangs"),
    ];
    node.fault("hurry", "pod network");
    for (name, on_add, told) in cases {
        let seen = plugin(&node, name, on_add);
        node.configure(&[name]);
        let began = Instant::now();
        let error = node.run_pod(&config).unwrap_err();
        assert!(error.message().contains("failed to setup network"), "{name}: {error}");
        assert!(error.message().contains(told), "{name}: {error}");
        assert!(began.elapsed() < Duration::from_secs(30), "{name}: {:?}", began.elapsed());
        let commands = fs::read_to_string(seen).unwrap();
        assert!(commands.contains("ADD\nDEL\n"), "{name}: {commands}");
        node.settles_at(&before, name);
    }
    node.configure(&[]);
    let pod = node.run_pod(&config).unwrap();
    node.remove_pod(&pod);
    node.settles_at(&before, "the end");
}

#[test]
fn a_plugin_that_is_missing_fails_the_pod_until_it_is_there() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let node = Node::new("");
    let config = node.networked("missing");
    let before = node.left();
    node.configure(&["absent"]);
    let error = node.run_pod(&config).unwrap_err();
    assert!(error.message().contains("absent"), "{error}");
    // What it may have done elsewhere cannot be taken back without it: the pod stays, for the kubelet to remove.
    let pods = call!(node, list_pod_sandbox, v1::ListPodSandboxRequest::default()).unwrap().items;
    let [pod] = pods.as_slice() else { panic!("{pods:?}") };
    assert_eq!(pod.state(), v1::PodSandboxState::SandboxNotready);
    let stop = v1::StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() };
    let error = call!(node, stop_pod_sandbox, stop).unwrap_err();
    assert!(error.message().contains("absent"), "{error}");
    node.plugin("absent", "cat > /dev/null\n[ \"$CNI_COMMAND\" != DEL ] || exit 0\nexit 4");
    node.remove_pod(&pod.id);
    let error = node.run_pod(&config).unwrap_err();
    assert!(error.message().contains("absent") && !error.message().contains("undoing"), "{error}");
    node.configure(&[]);
    let pod = node.run_pod(&config).unwrap();
    node.remove_pod(&pod);
    node.settles_at(&before, "the end");
}

#[test]
fn a_pod_whose_network_namespace_or_configuration_has_gone_is_stopped_and_removed() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let node = Node::new("");
    let before = node.left();
    let config = node.networked("gone");
    let pod = node.run_pod(&config).unwrap();
    let status = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
    let status = call!(node, pod_sandbox_status, status).unwrap().status.unwrap();
    assert!(status.network.unwrap().ip.starts_with("10.77.0."));
    for entry in fs::read_dir(node.daemon.dir().join("state/netns")).unwrap() {
        net::netns::remove(&entry.unwrap().path()).unwrap();
    }
    fs::remove_file(node.daemon.dir().join("net.d/10-bridge.conflist")).unwrap();
    node.remove_pod(&pod);
    node.settles_at(&before, "the pod's end");
}
