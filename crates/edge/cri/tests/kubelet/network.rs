//! Networks: none, one that appears, and pods in it. The daemon is in a network of its own, so the machine's is untouched.

use std::time::Duration;

use api::runtime::v1;
use testkit::needs;

use crate::client::{Kubelet, call};

fn network_ready(kubelet: &Kubelet) -> (bool, String) {
    let status = call!(kubelet, status, v1::StatusRequest::default()).unwrap().status.unwrap();
    let condition = status.conditions.into_iter().find(|one| one.r#type == "NetworkReady").unwrap();
    (condition.status, condition.reason)
}

fn info(kubelet: &Kubelet) -> std::collections::BTreeMap<String, String> {
    call!(kubelet, status, v1::StatusRequest { verbose: true }).unwrap().info
}

/// `crictl info` shows it as JSON, and critest reads `stateDir` from it.
#[test]
fn the_configuration_in_force_is_told_as_json() {
    needs!(root, built "containerd");
    let kubelet = Kubelet::with(
        "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\nSystemdCgroup = true",
    );
    let config: serde_json::Value = serde_json::from_str(&info(&kubelet)["config"]).unwrap();
    let state = kubelet.daemon.state().join("io.containerd.grpc.v1.cri");
    assert_eq!(config["stateDir"], state.display().to_string());
    let runc = &config["containerd"]["runtimes"]["runc"];
    assert_eq!(runc["runtimeType"], "io.containerd.runc.v2");
    assert_eq!(runc["options"]["SystemdCgroup"], true);
}

#[test]
fn without_a_configuration_pods_of_their_own_network_are_refused_until_one_appears() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    assert_eq!(network_ready(&kubelet), (false, "NetworkPluginNotReady".to_owned()));
    let dir = kubelet.daemon.dir().join("net.d");
    let none = format!("no network config found in {}: cni plugin not initialized", dir.display());
    let told = info(&kubelet)["lastCNILoadStatus"].clone();
    assert_eq!(told, format!("cni config load failed: {none}: failed to load cni config"));
    let mut config = kubelet.pod("refused");
    config.linux.get_or_insert_default().security_context = None;
    let error = kubelet.run_pod(&config).unwrap_err();
    assert!(error.message().contains("cni plugin not initialized"), "{error}");
    kubelet.check_clean();
    std::fs::create_dir_all(&dir).unwrap();
    let list = r#"{"cniVersion":"1.0.0","name":"lo-only","plugins":[{"type":"loopback"}]}"#;
    std::fs::write(dir.join("10-lo.conflist"), list).unwrap();
    testkit::wait::eventually(Duration::from_secs(20), "the network", || {
        network_ready(&kubelet).0.then_some(())
    });
    assert_eq!(info(&kubelet)["lastCNILoadStatus.default"], "OK");
    // A network that gives no address is no pod's network.
    let error = kubelet.run_pod(&config).unwrap_err();
    assert!(error.message().contains("failed to setup network"), "{error}");
    kubelet.check_clean();
}
