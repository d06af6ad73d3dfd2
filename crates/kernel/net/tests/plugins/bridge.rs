//! `bridge`: who reaches whom, what is left behind, what a failure takes back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use net::cni::Command;
use net::netlink::{Connection, Mac, Protocol, link};
use serde_json::json;
use testkit::needs;

use crate::place::{Host, chained, ip};

#[test]
fn pods_reach_each_other_the_host_and_the_world() {
    needs!(root, program "nft");
    let host = Host::new();
    let outside = host.outside();
    let config = host.config(json!({}));
    let (a, b) = (host.pod(), host.pod());
    let results = [host.add(&a, "a", &config), host.add(&b, "b", &config)];
    let addresses: Vec<String> =
        results.iter().flat_map(|r| &r.ips).map(|ip| ip.address.to_string()).collect();
    assert_eq!(addresses, ["10.7.0.2/24", "fd07::2/64", "10.7.0.3/24", "fd07::3/64"]);

    let port = b.serve();
    assert_eq!(a.reach(ip("10.7.0.3"), port), Some(ip("10.7.0.2")));
    assert_eq!(a.reach(ip("fd07::3"), port), Some(ip("fd07::2")));
    let port = host.netns.serve();
    assert_eq!(a.reach(ip("10.7.0.1"), port), Some(ip("10.7.0.2")));
    assert_eq!(a.reach(ip("fd07::1"), port), Some(ip("fd07::2")));
    // The world has no way back to pods: without masquerading nothing would come.
    let port = outside.serve();
    assert_eq!(a.reach(ip("192.0.2.2"), port), Some(ip("192.0.2.1")));
    assert_eq!(a.reach(ip("2001:db8::2"), port), Some(ip("2001:db8::1")));

    host.run(Command::Check, Some(&a), "a", &chained(&config, &results[0])).unwrap();
    let other = host.run(Command::Check, Some(&b), "b", &chained(&config, &results[0]));
    assert!(other.is_err(), "the result of another pod passed");

    for _ in 0..2 {
        host.del(&a, "a", &config);
    }
    assert!(host.run(Command::Check, Some(&a), "a", &chained(&config, &results[0])).is_err());
    host.del(&b, "b", &config);
    // One goes by the name of its container alone, as when its namespace is lost.
    let c = host.pod();
    host.add(&c, "c", &config);
    drop(c);
    host.run(Command::Del, None, "c", &config).unwrap();
    assert_eq!(host.leases(), [""; 0]);
    assert!(!host.ruleset().contains("id: "), "{}", host.ruleset());
    testkit::wait::eventually(Duration::from_secs(10), "the pairs are gone", || {
        (host.links() == ["uplink", "br7"]).then_some(())
    });
}

#[test]
fn an_add_that_fails_leaves_nothing_and_spares_what_was_there() {
    needs!(root, program "nft");
    let host = Host::new();
    let pod = host.pod();
    let mut config = host.config(json!({}));
    config["ipam"]["ranges"] = json!([[{"subnet": "10.7.0.0/30"}]]);
    let result = host.add(&pod, "a", &config);
    let (links, leases, rules) = (host.links(), host.leases(), host.ruleset());
    // The range is exhausted; then the interface exists, with an address left to give.
    let other = host.pod();
    let error = host.run(Command::Add, Some(&other), "b", &config).unwrap_err();
    assert!(error.msg.contains("no IP addresses available"), "{error}");
    let again = host.config(json!({}));
    let error = host.run(Command::Add, Some(&pod), "a", &again).unwrap_err();
    assert!(error.msg.contains("already exists"), "{error}");
    // Another address is on the bridge already: fails after the pod has its own.
    let mut moved = host.config(json!({}));
    moved["ipam"]["ranges"] = json!([[{"subnet": "10.8.0.0/24"}]]);
    let error = host.run(Command::Add, Some(&other), "c", &moved).unwrap_err();
    assert!(error.msg.contains("already has an IP address different from"), "{error}");
    assert_eq!((host.links(), host.leases(), host.ruleset()), (links, leases, rules));
    assert_eq!(
        other.run(|| link::list(&mut Connection::open(Protocol::Route).unwrap()).unwrap()).len(),
        other_links()
    );
    host.run(Command::Check, Some(&pod), "a", &chained(&config, &result)).unwrap();
}

/// Links of a namespace that nobody added any to: `lo`, and the ifb devices of kernels that have them built in.
fn other_links() -> usize {
    let host = Host::new();
    host.netns.run(|| link::list(&mut Connection::open(Protocol::Route).unwrap()).unwrap()).len()
}

#[test]
fn the_hosts_own_namespace_is_refused() {
    needs!(root);
    let host = Host::new();
    for command in [Command::Add, Command::Del] {
        let error = host.run(command, Some(&host.netns), "a", &host.config(json!({}))).unwrap_err();
        assert_eq!(error.code, net::cni::code::INVALID_NETNS);
    }
}

#[test]
fn fifty_pods_at_once_are_fifty_addresses() {
    needs!(root);
    let host = Host::new();
    let config = host.config(json!({}));
    let pods: Vec<_> = (0..50).map(|_| host.pod()).collect();
    let addresses: BTreeSet<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = pods
            .iter()
            .enumerate()
            .map(|(number, pod)| {
                scope.spawn({
                    let (host, config) = (&host, &config);
                    move || host.add(pod, &format!("pod{number}"), config)
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap().ips)
            .map(|ip| ip.address.to_string())
            .collect()
    });
    assert_eq!(addresses.len(), 100);
    let started = Instant::now();
    for (number, pod) in pods.iter().enumerate() {
        host.del(pod, &format!("pod{number}"), &config);
    }
    println!("DEL of 50: {:?}", started.elapsed());
    assert_eq!((host.links(), host.leases().len()), (vec!["br7".to_owned()], 0));
    assert!(!host.ruleset().contains("id: "));
}

#[test]
fn what_belongs_to_no_attachment_is_collected() {
    needs!(root, program "nft");
    let host = Host::new();
    let mut config = host.config(json!({"cniVersion": "1.1.0"}));
    let (a, b) = (host.pod(), host.pod());
    host.add(&a, "a", &config);
    host.add(&b, "b", &config);
    config["cni.dev/valid-attachments"] = json!([{"containerID": "b", "ifname": "eth0"}]);
    host.run(Command::Gc, None, "", &config).unwrap();
    assert_eq!(host.leases(), ["10.7.0.3", "fd07::3"]);
    let rules = host.ruleset();
    assert!(rules.contains("id: b") && !rules.contains("id: a"), "{rules}");
}

#[test]
fn a_pod_may_only_send_as_itself() {
    needs!(root, program "nft");
    let host = Host::new();
    let config = host.config(json!({"macspoofchk": true, "runtimeConfig": {"mac": "02:00:00:00:00:07"}}));
    let pod = host.pod();
    let result = host.add(&pod, "a", &config);
    assert_eq!(result.interfaces[2].mac, "02:00:00:00:00:07");
    let port = host.netns.serve();
    assert!(pod.reach(ip("10.7.0.1"), port).is_some());
    assert!(host.ruleset().contains("ether saddr 02:00:00:00:00:07"), "{}", host.ruleset());
    host.del(&pod, "a", &config);
    assert!(!host.ruleset().contains("cni-br-iface"), "{}", host.ruleset());
}

#[test]
fn isolated_ports_reach_the_host_alone() {
    needs!(root);
    let host = Host::new();
    let config = host.config(json!({"portIsolation": true}));
    let (a, b) = (host.pod(), host.pod());
    host.add(&a, "a", &config);
    host.add(&b, "b", &config);
    let port = host.netns.serve();
    assert!(a.reach(ip("10.7.0.1"), port).is_some());
    let port = b.serve();
    assert_eq!(a.reach_within(ip("10.7.0.3"), port, Duration::from_millis(500)), None);
}

#[test]
fn duplicates_are_looked_for_where_asked() {
    needs!(root);
    let host = Host::new();
    let config = host.config(json!({"enabledad": true}));
    let pod = host.pod();
    host.add(&pod, "a", &config);
    // Somebody else takes the address that is next, without asking.
    let thief = host.pod();
    let mut stolen = host.config(json!({"name": "other", "ipMasq": false}));
    stolen["ipam"]["ranges"] = json!([[{"subnet": "fd07::/64", "rangeStart": "fd07::3"}]]);
    host.add(&thief, "thief", &stolen);
    let victim = host.pod();
    let error = host.run(Command::Add, Some(&victim), "b", &config).unwrap_err();
    assert!(error.msg.contains("fd07::3/64 is a duplicate"), "{error}");
    assert_eq!(host.leases(), ["10.7.0.2", "fd07::2"]);
}

#[test]
fn vlans_keep_pods_of_one_bridge_apart() {
    needs!(root);
    let host = Host::new();
    let filters = host.netns.run(|| {
        let mut connection = Connection::open(Protocol::Route).unwrap();
        link::add_bridge(&mut connection, "probe", 0, true, Mac::random().unwrap())
    });
    let need = filters.map_err(|error| format!("no bridges that tell VLANs apart: {error}"));
    if testkit::need::lacks(need) {
        return;
    }
    let on = |vlan: u16, subnet: &str| {
        let mut config = host.config(json!({"vlan": vlan, "isDefaultGateway": false, "ipMasq": false}));
        config["name"] = format!("net{vlan}").into();
        config["ipam"]["ranges"] = json!([[{"subnet": "10.9.0.0/24", "rangeStart": subnet}]]);
        let pod = host.pod();
        host.add(&pod, &format!("pod{vlan}-{}", host.links().len()), &config);
        pod
    };
    let (a, b) = (on(100, "10.9.0.10"), on(200, "10.9.0.20"));
    let port = b.serve();
    assert_eq!(a.reach_within(ip("10.9.0.20"), port, Duration::from_millis(500)), None);
    let c = on(100, "10.9.0.10");
    let port = c.serve();
    assert!(a.reach(ip("10.9.0.11"), port).is_some());
}
