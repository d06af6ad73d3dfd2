//! `tuning`: settings of the pod, and what they were.

use net::cni::Command;
use net::netlink::{Connection, Protocol, link};
use serde_json::json;
use testkit::needs;

use crate::place::{Host, chained};

#[test]
fn settings_are_made_checked_and_taken_back() {
    needs!(root);
    let host = Host::new();
    let pod = host.pod();
    let result = host.add(&pod, "a", &host.config(json!({})));
    let data = host.dir.path().join("tuning");
    let config = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "tuning", "dataDir": data, "mac": "02:00:00:00:00:99", "mtu": 1400,
        "allmulti": true, "promisc": true, "txQLen": 77,
        "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "500"},
    });
    let config = chained(&config, &result);
    let eth0 = || pod.run(|| link::get(&mut Connection::open(Protocol::Route).unwrap(), "eth0").unwrap());
    let before = eth0();
    let tuned = host.add(&pod, "a", &config);
    assert_eq!(tuned.interfaces[2].mac, "02:00:00:00:00:99");
    let after = eth0();
    assert_eq!((after.mac_text().as_str(), after.mtu, after.tx_queue_len), ("02:00:00:00:00:99", 1400, 77));
    assert!(after.promiscuity == 1 && after.is_allmulti());
    let value = pod.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/eth0/arp_filter").unwrap());
    assert_eq!(value, "1\n");
    assert!(data.join("a_eth0.json").metadata().unwrap().len() > 2);
    host.run(Command::Check, Some(&pod), "a", &config).unwrap();
    host.del(&pod, "a", &config);
    let restored = eth0();
    assert_eq!(
        (restored.mac, restored.mtu, restored.tx_queue_len),
        (before.mac, before.mtu, before.tx_queue_len)
    );
    assert!(restored.promiscuity == 0 && !restored.is_allmulti());
    assert!(!data.join("a_eth0.json").exists());
    assert!(host.run(Command::Check, Some(&pod), "a", &config).is_err());
    drop(pod);
    host.run(Command::Del, None, "a", &config).unwrap();
}

#[test]
fn settings_outside_of_the_network_are_refused() {
    needs!(root);
    let host = Host::new();
    let pod = host.pod();
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for key in [
        "kernel.core_pattern",
        "net/../kernel/core_pattern",
        "net.ipv4.conf./../../../../kernel.core_pattern",
    ] {
        let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "tuning", "prevResult": {},
                            "sysctl": {key: "|/bin/false"}});
        let error = host.run(Command::Add, Some(&pod), "a", &config).unwrap_err();
        assert!(error.msg.contains("invalid net sysctl key"), "{key}: {error}");
    }
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern);
}
