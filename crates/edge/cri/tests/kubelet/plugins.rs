//! CNI plugins that misbehave, and networks that vanish: told as they are, and nothing stays.

use std::fs;
use std::time::{Duration, Instant};

use api::runtime::v1;
use testkit::{needs, wait};

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
fn plugins_that_hang_keep_nobody_else_waiting() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    const PODS: usize = 70;
    let node = Node::new("");
    let (go, before) = (node.daemon.dir().join("go"), node.left());
    let wait = format!("until [ -e {} ]; do sleep 0.1; done; exit 1", go.display());
    let seen = plugin(&node, "waits", &wait);
    node.configure(&["waits"]);
    let adds = || fs::read_to_string(&seen).unwrap_or_default().lines().filter(|line| *line == "ADD").count();
    let configs: Vec<_> = (0..PODS).map(|number| node.networked(&format!("stuck-{number}"))).collect();
    std::thread::scope(|scope| {
        let socket = node.daemon.socket();
        let pods = scope.spawn(move || run_together(&socket, configs));
        wait::eventually(Duration::from_secs(60), "all to be in the plugin", || {
            (adds() == PODS).then_some(())
        });
        call!(node, status, v1::StatusRequest::default()).unwrap();
        // One that needs no network is made and ended meanwhile.
        let config = node.pod("free");
        let pod = node.run_pod(&config).unwrap();
        node.remove_pod(&pod);
        let commands = fs::read_to_string(&seen).unwrap();
        assert!(
            adds() == PODS && !commands.contains("DEL"),
            "none of them was given up meanwhile: {commands}"
        );
        fs::write(&go, "").unwrap();
        let failed = pods.join().unwrap();
        assert!(failed.iter().all(Result::is_err), "{failed:?}");
    });
    node.settles_at(&before, "the end");
}

/// Runs pods that begin together; answers their ids.
fn run_together(
    socket: &std::path::Path,
    configs: Vec<v1::PodSandboxConfig>,
) -> Vec<Result<String, tonic::Status>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let channel = grpc::channel::connect(socket).await.unwrap();
        let client = crate::client::Runtime::new(channel);
        let each = configs.into_iter().map(|config| {
            let mut client = client.clone();
            let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
            async move { Ok(client.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id) }
        });
        futures_util::future::join_all(each).await
    })
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

#[test]
fn a_plugin_that_names_itself_for_addresses_is_refused_and_a_broken_list_is_told_and_mended() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let node = Node::new("");
    let config = node.networked("itself");
    let pod = node.run_pod(&config).unwrap();
    node.remove_pod(&pod);
    let before = node.left();
    let list = node.daemon.dir().join("net.d/10-bridge.conflist");
    let good = fs::read_to_string(&list).unwrap();
    let write = |text: &str| {
        let draft = node.daemon.dir().join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, &list).unwrap();
    };
    let ready = || {
        let status = call!(node, status, v1::StatusRequest::default()).unwrap().status.unwrap();
        status.conditions.into_iter().find(|one| one.r#type == "NetworkReady").unwrap()
    };
    for (name, broken) in [
        ("cut", good[..good.len() / 2].to_owned()),
        ("binary", "\0\u{1}".repeat(1000)),
        ("deep", "[".repeat(100_000)),
        ("nameless", good.replace("\"name\"", "\"nome\"")),
        ("escaping", good.replace("\"bridge\",\"bridge\"", "\"../../bin/sh\",\"bridge\"")),
        ("empty", String::new()),
    ] {
        assert_ne!(broken, good, "{name}");
        write(&broken);
        let told = testkit::wait::eventually(Duration::from_secs(20), name, || {
            let condition = ready();
            (!condition.status).then_some(condition)
        });
        assert_eq!(told.reason, "NetworkPluginNotReady", "{name}");
        assert!(!told.message.is_empty(), "{name}");
        let error = node.run_pod(&config).unwrap_err();
        assert!(error.message().contains("cni"), "{name}: {error}");
        node.settles_at(&before, name);
        write(&good);
        testkit::wait::eventually(Duration::from_secs(20), "the list that is whole again", || {
            ready().status.then_some(())
        });
    }
    let itself = good.replace("\"type\":\"host-local\"", "\"type\":\"bridge\"");
    assert_ne!(itself, good);
    write(&itself);
    // That the daemon has read it is seen by its answer alone.
    testkit::wait::eventually(Duration::from_secs(20), "the refusal", || match node.run_pod(&config) {
        Ok(pod) => {
            node.remove_pod(&pod);
            None
        }
        Err(error) => error.message().contains("plugin \"bridge\" cannot serve itself").then_some(()),
    });
    node.settles_at(&before, "a plugin that names itself");
    write(&good);
    let pod = testkit::wait::eventually(Duration::from_secs(20), "a pod", || node.run_pod(&config).ok());
    node.remove_pod(&pod);
    node.settles_at(&before, "the end");
}
