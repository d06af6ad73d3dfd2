//! `portmap`: ports of the host, from the world, from the host itself and from the pods.

use std::net::UdpSocket;
use std::time::Duration;

use net::cni::Command;
use serde_json::{Value, json};
use testkit::needs;

use crate::place::{Host, Namespace, chained, ip};

fn config(host: &Host, pod: &Namespace, id: &str, mappings: Value, extra: Value) -> Value {
    let result = host.add(pod, id, &host.config(json!({"hairpinMode": true})));
    let mut config = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "portmap", "backend": "nftables",
        "runtimeConfig": {"portMappings": mappings},
    });
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    chained(&config, &result)
}

#[test]
fn a_port_of_the_host_leads_to_the_pod() {
    needs!(root, program "nft");
    let host = Host::new();
    let outside = host.outside();
    let (pod, neighbour) = (host.pod(), host.pod());
    let port = pod.serve();
    let mappings = json!([{"hostPort": 8080, "containerPort": port, "protocol": "tcp"}]);
    let config = config(&host, &pod, "a", mappings, json!({}));
    host.add(&neighbour, "b", &host.config(json!({})));
    let result = host.add(&pod, "a", &config);
    assert_eq!(result.ips.len(), 2);
    // From the world the pod sees who it is.
    assert_eq!(outside.reach(ip("192.0.2.1"), 8080), Some(ip("192.0.2.2")));
    assert_eq!(outside.reach(ip("2001:db8::1"), 8080), Some(ip("2001:db8::2")));
    // From the host, by its loopback too.
    assert_eq!(host.netns.reach(ip("127.0.0.1"), 8080), Some(ip("10.7.0.1")));
    assert!(host.netns.reach(ip("192.0.2.1"), 8080).is_some());
    assert!(host.netns.reach(ip("2001:db8::1"), 8080).is_some());
    // From a pod of the same network, and from the pod itself: the answer comes back by the host.
    for from in [&neighbour, &pod] {
        assert_eq!(from.reach(ip("10.7.0.1"), 8080), Some(ip("10.7.0.1")));
        assert_eq!(from.reach(ip("fd07::1"), 8080), Some(ip("fd07::1")));
    }
    // What is not translated is nobody else's.
    assert_eq!(neighbour.reach(ip("10.7.0.2"), port), Some(ip("10.7.0.3")));
    host.run(Command::Check, Some(&pod), "a", &config).unwrap();
    for _ in 0..2 {
        host.del(&pod, "a", &config);
    }
    assert_eq!(outside.reach(ip("192.0.2.1"), 8080), None);
    assert!(host.run(Command::Check, Some(&pod), "a", &config).is_err());
    assert!(!host.ruleset().contains("dnat"), "{}", host.ruleset());
}

#[test]
fn a_mapping_may_be_of_one_address_and_one_source() {
    needs!(root, program "nft");
    let host = Host::new();
    let outside = host.outside();
    let pod = host.pod();
    let port = pod.serve();
    let mappings = json!([
        {"hostPort": 8080, "containerPort": port, "protocol": "tcp", "hostIP": "192.0.2.1"},
        {"hostPort": 8081, "containerPort": port, "protocol": "tcp", "hostIP": "0.0.0.0"},
        {"hostPort": 8082, "containerPort": port, "protocol": "udp"},
    ]);
    let extra = json!({"conditionsV4": ["ip", "saddr", "!=", "192.0.2.2"]});
    let config = config(&host, &pod, "a", mappings, extra);
    host.add(&pod, "a", &config);
    assert_eq!(outside.reach(ip("192.0.2.1"), 8080), None);
    assert!(host.netns.reach(ip("192.0.2.1"), 8080).is_some());
    assert_eq!(host.netns.reach(ip("10.7.0.1"), 8080), None);
    assert!(host.netns.reach(ip("10.7.0.1"), 8081).is_some());
    assert_eq!(host.netns.reach(ip("::1"), 8081), None);
    let rules = host.ruleset();
    assert_eq!(rules.matches("udp dport 8082 dnat").count(), 2, "{rules}");
    assert_eq!(rules.matches("dport 808").count(), 4, "{rules}");
}

#[test]
fn iptables_serves_where_it_is_asked_for() {
    needs!(root, program "nft", program "iptables");
    let host = Host::new();
    let outside = host.outside();
    let pod = host.pod();
    let port = pod.serve();
    let mappings = json!([{"hostPort": 8080, "containerPort": port, "protocol": "tcp"}]);
    let mut config = config(&host, &pod, "a", mappings, json!({"backend": "iptables"}));
    host.add(&pod, "a", &config);
    assert_eq!(outside.reach(ip("192.0.2.1"), 8080), Some(ip("192.0.2.2")));
    assert!(host.netns.reach(ip("127.0.0.1"), 8080).is_some());
    assert!(pod.reach(ip("10.7.0.1"), 8080).is_some());
    host.run(Command::Check, Some(&pod), "a", &config).unwrap();
    // The configuration changed while the pod ran.
    config["backend"] = "nftables".into();
    host.del(&pod, "a", &config);
    assert_eq!(outside.reach(ip("192.0.2.1"), 8080), None);
    assert!(!host.ruleset().contains("CNI-DN-"), "{}", host.ruleset());
}

#[test]
fn mappings_that_make_no_sense_are_refused() {
    needs!(root);
    let host = Host::new();
    let pod = host.pod();
    let base = |mapping: Value| {
        json!({"cniVersion": "1.0.0", "name": "net", "type": "portmap", "prevResult": {"cniVersion": "1.0.0"},
               "runtimeConfig": {"portMappings": [mapping]}})
    };
    for mapping in [
        json!({"hostPort": 0, "containerPort": 80, "protocol": "tcp"}),
        json!({"hostPort": 65536, "containerPort": 80, "protocol": "tcp"}),
        json!({"hostPort": 80, "containerPort": -1, "protocol": "tcp"}),
        json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"}),
        json!({"hostPort": 80, "containerPort": 80, "protocol": "tcp", "hostIP": "x -j ACCEPT"}),
    ] {
        let error = host.run(Command::Add, Some(&pod), "a", &base(mapping.clone())).unwrap_err();
        assert_eq!(error.code, net::cni::code::INVALID_CONFIG, "{mapping}: {error}");
    }
    assert_eq!(host.ruleset(), "");
}

#[test]
fn a_client_that_goes_on_sending_reaches_the_new_pod() {
    needs!(root, program "nft");
    let host = Host::new();
    let outside = host.outside();
    let pod = host.pod();
    let client = outside.run(|| UdpSocket::bind("192.0.2.2:0").unwrap());
    let server = pod.run(|| UdpSocket::bind("0.0.0.0:53").unwrap());
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    let mappings = json!([{"hostPort": 5353, "containerPort": 53, "protocol": "udp"}]);
    let config = config(&host, &pod, "a", mappings, json!({}));
    // The host follows this flow from now on, as one to itself.
    client.send_to(b"early", "192.0.2.1:5353").unwrap();
    testkit::wait::eventually(Duration::from_secs(5), "the flow is tracked", || {
        let flows = host.netns.run(|| std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap());
        flows.contains("dport=5353").then_some(())
    });
    host.add(&pod, "a", &config);
    // The refusal of the first may be waiting as an error on the socket.
    let _ = client.send_to(b"late", "192.0.2.1:5353");
    client.send_to(b"late", "192.0.2.1:5353").unwrap();
    let mut buffer = [0; 16];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"late"[..], client.local_addr().unwrap()));
}
