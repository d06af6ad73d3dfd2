//! `firewall`: bridges are kept apart, and pods of one bridge are not unless asked.

use std::time::Duration;

use net::cni::Command;
use serde_json::json;
use testkit::needs;

use crate::place::{Host, Namespace, chained, ip};

/// A pod on the bridge `BRIDGE`, whose network is 10.N.0.0/24.
fn pod_on(host: &Host, bridge: &str, number: u8, id: &str, firewall: &serde_json::Value) -> Namespace {
    let pod = host.pod();
    let mut network = host.config(json!({"name": bridge, "bridge": bridge, "ipMasq": false}));
    network["ipam"]["ranges"] = json!([[{"subnet": format!("10.{number}.0.0/24")}]]);
    let result = host.add(&pod, id, &network);
    let mut config = firewall.clone();
    config["name"] = bridge.into();
    host.add(&pod, id, &chained(&config, &result));
    pod
}

fn keeps_bridges_apart(backend: &str) {
    let host = Host::new();
    let config = json!({"cniVersion": "1.0.0", "type": "firewall", "backend": backend, "ingressPolicy": "same-bridge"});
    let a = pod_on(&host, "br1", 1, "a", &config);
    let b = pod_on(&host, "br1", 1, "b", &config);
    let c = pod_on(&host, "br2", 2, "c", &config);
    let port = b.serve();
    assert!(a.reach(ip("10.1.0.3"), port).is_some());
    assert_eq!(c.reach_within(ip("10.1.0.3"), port, Duration::from_millis(500)), None);
    let port = c.serve();
    assert_eq!(a.reach_within(ip("10.2.0.2"), port, Duration::from_millis(500)), None);
    assert!(host.netns.reach(ip("10.2.0.2"), port).is_some());
}

#[test]
fn bridges_are_kept_apart_by_nftables() {
    needs!(root, program "nft");
    keeps_bridges_apart("nftables");
}

#[test]
fn bridges_are_kept_apart_by_iptables() {
    needs!(root, program "iptables");
    keeps_bridges_apart("iptables");
}

#[test]
fn a_pods_rules_come_and_go() {
    needs!(root, program "nft");
    let host = Host::new();
    let pod = host.pod();
    let result = host.add(&pod, "a", &host.config(json!({})));
    let mut config = json!({"cniVersion": "1.1.0", "name": "net", "type": "firewall"});
    config = chained(&config, &result);
    host.add(&pod, "a", &config);
    host.run(Command::Check, Some(&pod), "a", &config).unwrap();
    let rules = host.ruleset();
    assert!(rules.contains("ip daddr 10.7.0.2 ct state established,related accept"), "{rules}");
    assert!(rules.contains("ip6 saddr fd07::2 accept"), "{rules}");
    host.run(Command::Del, Some(&pod), "a", &config).unwrap();
    assert!(host.run(Command::Check, Some(&pod), "a", &config).is_err());
    assert!(!host.ruleset().contains("10.7.0.2 accept"), "{}", host.ruleset());
}

#[test]
fn where_iptables_filters_its_rules_accept() {
    needs!(root, program "nft", program "iptables");
    let host = Host::new();
    let outside = host.outside();
    host.netns.run(|| testkit::command::Run::new("iptables").line("-P FORWARD DROP").ok());
    let pod = host.pod();
    let result = host.add(&pod, "a", &host.config(json!({})));
    let port = outside.serve();
    assert_eq!(pod.reach_within(ip("192.0.2.2"), port, Duration::from_millis(500)), None);
    let config = chained(&json!({"cniVersion": "1.0.0", "name": "net", "type": "firewall"}), &result);
    host.add(&pod, "a", &config);
    assert!(pod.reach(ip("192.0.2.2"), port).is_some());
    host.run(Command::Check, Some(&pod), "a", &config).unwrap();
    host.del(&pod, "a", &config);
    assert_eq!(pod.reach_within(ip("192.0.2.2"), port, Duration::from_millis(500)), None);
}
