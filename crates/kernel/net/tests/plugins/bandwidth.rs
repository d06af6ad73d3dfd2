//! `bandwidth`: the shapes that the kernel then has.

use std::time::Duration;

use net::cni::Command;
use net::netlink::qdisc::{self, TokenBucket};
use net::netlink::{Connection, Protocol, link};
use serde_json::json;
use testkit::needs;

use crate::place::{Host, chained, ip};

#[test]
fn both_directions_are_shaped_and_still_pass() {
    needs!(root);
    let host = Host::new();
    let pod = host.pod();
    let result = host.add(&pod, "a", &host.config(json!({})));
    let limits = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 16_000_000, "egressBurst": 1_600_000});
    let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "bandwidth", "runtimeConfig": {"bandwidth": limits}});
    let config = chained(&config, &result);
    let shaped = host.add(&pod, "a", &config);
    let device = shaped.interfaces.last().unwrap().name.clone();
    assert!(device.starts_with("bwp") && device.len() == 15, "{device}");
    let bucket_of = |name: &str| {
        host.netns.run(|| {
            let mut connection = Connection::open(Protocol::Route).unwrap();
            let link = link::get(&mut connection, name).unwrap();
            qdisc::list(&mut connection, link.index).unwrap().into_iter().find_map(|qdisc| qdisc.bucket)
        })
    };
    assert_eq!(bucket_of(&result.interfaces[1].name), Some(TokenBucket::of_bits(8_000_000, 800_000)));
    assert_eq!(bucket_of(&device), Some(TokenBucket::of_bits(16_000_000, 1_600_000)));
    let port = host.netns.serve();
    assert!(pod.reach(ip("10.7.0.1"), port).is_some());
    host.run(Command::Check, Some(&pod), "a", &config).unwrap();
    for _ in 0..2 {
        host.del(&pod, "a", &config);
    }
    assert!(!host.links().contains(&device));
    // A second ADD meets the first one's disciplines and leaves no device.
    assert!(host.run(Command::Add, Some(&pod), "a", &config).is_err());
    assert!(!host.links().contains(&device));
}

#[test]
fn a_rate_needs_a_burst() {
    needs!(root);
    let host = Host::new();
    let pod = host.pod();
    for limits in [
        json!({"ingressRate": 1000}),
        json!({"egressBurst": 1000}),
        json!({"ingressRate": 1000, "ingressBurst": u64::from(u32::MAX) * 8}),
        json!({"ingressRate": -5, "ingressBurst": 5}),
    ] {
        let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "bandwidth", "prevResult": {},
                            "runtimeConfig": {"bandwidth": limits}});
        assert!(host.run(Command::Add, Some(&pod), "a", &config).is_err(), "{config}");
    }
}

#[test]
fn only_what_goes_to_the_chosen_subnets_is_shaped() {
    needs!(root);
    let host = Host::new();
    let port = host.netns.serve();
    for (number, (subnets, passes)) in [
        (json!({}), false),
        (json!({"unshapedSubnets": ["10.7.0.0/16", "fd00::/8"]}), true),
        (json!({"unshapedSubnets": ["10.9.0.0/16"]}), false),
        (json!({"unshapedSubnets": []}), false),
        (json!({"shapedSubnets": ["10.9.0.0/16", "fd00::/8"]}), true),
        (json!({"shapedSubnets": ["10.7.0.1/32"]}), false),
        (json!({"shapedSubnets": ["0.0.0.0/0"]}), false),
    ]
    .into_iter()
    .enumerate()
    {
        let (pod, id) = (host.pod(), format!("subnets-{number}"));
        let result = host.add(&pod, &id, &host.config(json!({})));
        // Whom to ask for is known from here on: a question goes to no subnet.
        assert!(pod.reach(ip("10.7.0.1"), port).is_some());
        // The first packet empties this bucket for a minute, or does not fit into it.
        let limits = json!({"egressRate": 8, "egressBurst": 160});
        let mut config = json!({"cniVersion": "1.0.0", "name": "net", "type": "bandwidth", "runtimeConfig": {"bandwidth": limits}});
        config.as_object_mut().unwrap().extend(subnets.as_object().unwrap().clone());
        let config = chained(&config, &result);
        host.add(&pod, &id, &config);
        host.run(Command::Check, Some(&pod), &id, &config).unwrap();
        let mut other = config.clone();
        other["runtimeConfig"]["bandwidth"]["egressRate"] = json!(16);
        assert!(host.run(Command::Check, Some(&pod), &id, &other).is_err(), "{subnets}");
        let limit = if passes { Duration::from_secs(5) } else { Duration::from_millis(300) };
        assert_eq!(pod.reach_within(ip("10.7.0.1"), port, limit).is_some(), passes, "{subnets}");
        host.del(&pod, &id, &config);
    }
    let pod = host.pod();
    let result = host.add(&pod, "wrong", &host.config(json!({})));
    for wrong in [
        json!({"unshapedSubnets": ["10.0.0.0/8"], "shapedSubnets": ["10.0.0.0/8"]}),
        json!({"shapedSubnets": ["10.0.0.0"]}),
        json!({"unshapedSubnets": ["10.0.0.0/33"]}),
    ] {
        let mut limits = json!({"egressRate": 8000, "egressBurst": 8000});
        limits.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "bandwidth", "runtimeConfig": {"bandwidth": limits}});
        assert!(host.run(Command::Add, Some(&pod), "wrong", &chained(&config, &result)).is_err(), "{wrong}");
    }
}
