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

#[test]
fn without_a_configuration_pods_of_their_own_network_are_refused_until_one_appears() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    assert_eq!(network_ready(&kubelet), (false, "NetworkPluginNotReady".to_owned()));
    let mut config = kubelet.pod("refused");
    config.linux.get_or_insert_default().security_context = None;
    let error = kubelet.run_pod(&config).unwrap_err();
    assert!(error.message().contains("cni plugin not initialized"), "{error}");
    kubelet.check_clean();
    let dir = kubelet.daemon.dir().join("net.d");
    std::fs::create_dir_all(&dir).unwrap();
    let list = r#"{"cniVersion":"1.0.0","name":"lo-only","plugins":[{"type":"loopback"}]}"#;
    std::fs::write(dir.join("10-lo.conflist"), list).unwrap();
    testkit::wait::eventually(Duration::from_secs(20), "the network", || {
        network_ready(&kubelet).0.then_some(())
    });
    // A network that gives no address is no pod's network.
    let error = kubelet.run_pod(&config).unwrap_err();
    assert!(error.message().contains("failed to setup network"), "{error}");
    kubelet.check_clean();
}
