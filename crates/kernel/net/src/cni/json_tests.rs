//! Results of every version, read and written.

use serde_json::json;

use super::*;

fn parse(value: Value) -> Result<CniResult, Error> {
    CniResult::from_json(value, Version::V1_1_0)
}

/// A dual stack result with all that 1.1.0 can say.
fn full() -> Value {
    json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "cni0", "mac": "02:00:00:00:00:01"},
            {"name": "eth0", "mac": "02:00:00:00:00:02", "mtu": 1400, "sandbox": "/run/netns/a", "pciID": "0:1"}
        ],
        "ips": [
            {"interface": 1, "address": "10.1.0.5/16", "gateway": "10.1.0.1"},
            {"interface": 1, "address": "fd00::5/64", "gateway": "fd00::1"},
            {"interface": 1, "address": "10.2.0.5/16"}
        ],
        "routes": [
            {"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1300, "table": 7},
            {"dst": "::/0"}
        ],
        "dns": {"nameservers": ["10.1.0.1"], "search": ["a.example"]}
    })
}

#[test]
fn the_newest_form_is_read_and_written_unchanged() {
    assert_eq!(parse(full()).unwrap().to_json(Version::V1_1_0).unwrap(), full());
    let mut older = full();
    older["cniVersion"] = "1.0.0".into();
    assert_eq!(parse(full()).unwrap().to_json(Version::V1_0_0).unwrap(), older);
}

#[test]
fn the_form_of_0_4_names_families_and_drops_what_came_later() {
    let written = parse(full()).unwrap().to_json(Version::V0_4_0).unwrap();
    assert_eq!(
        written["interfaces"][1],
        json!({"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"})
    );
    let families: Vec<_> =
        written["ips"].as_array().unwrap().iter().map(|ip| ip["version"].clone()).collect();
    assert_eq!(families, ["4", "6", "4"]);
    assert_eq!(written["cniVersion"], "0.4.0");
    let again = parse(written).unwrap();
    assert_eq!(again.ips, parse(full()).unwrap().ips);
    assert_eq!(again.routes, parse(full()).unwrap().routes);
}

#[test]
fn the_form_of_0_2_keeps_one_address_of_each_family() {
    let written = parse(full()).unwrap().to_json(Version::V0_2_0).unwrap();
    let wanted = json!({
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.1.0.5/16", "gateway": "10.1.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]},
        "ip6": {"ip": "fd00::5/64", "gateway": "fd00::1", "routes": [{"dst": "::/0"}]},
        "dns": {"nameservers": ["10.1.0.1"], "search": ["a.example"]}
    });
    assert_eq!(written, wanted);
    let again = parse(written).unwrap();
    assert_eq!(again.ips.len(), 2);
    assert_eq!(again.routes.len(), 2);
}

#[test]
fn an_old_result_needs_an_address() {
    let error = CniResult::default().to_json(Version::V0_1_0).unwrap_err();
    assert_eq!(error.msg, "cannot convert: no valid IP addresses");
}

#[test]
fn empty_dns_is_written_only_before_1_0() {
    let result = CniResult::default();
    assert_eq!(result.to_json(Version::V1_1_0).unwrap(), json!({"cniVersion": "1.1.0"}));
    assert_eq!(result.to_json(Version::V0_3_1).unwrap(), json!({"cniVersion": "0.3.1", "dns": {}}));
}

#[test]
fn nothing_may_be_said_as_null_or_empty() {
    let value = json!({"interfaces": null, "ips": [{"address": "10.0.0.1/8", "gateway": ""}], "routes": null, "dns": null});
    let result = parse(value).unwrap();
    assert_eq!(result.ips[0].gateway, None);
    assert_eq!(parse(Value::Null).unwrap(), CniResult::default());
}

#[test]
fn nonsense_is_refused() {
    for (value, wanted) in [
        (
            json!({"ips": [{"interface": 1, "address": "10.0.0.1/8"}], "interfaces": [{"name": "a"}]}),
            "is of interface",
        ),
        (json!({"ips": [{"interface": -1, "address": "10.0.0.1/8"}]}), "invalid value"),
        (json!({"ips": [{"address": "10.0.0.1"}]}), "invalid CIDR address: 10.0.0.1"),
        (json!({"ips": [{"address": "10.0.0.1/33"}]}), "invalid CIDR address"),
        (json!({"ips": [{"address": "10.0.0.1/+3"}]}), "invalid CIDR address"),
        (json!({"ips": [{"gateway": "10.0.0.1"}]}), "missing field `address`"),
        (json!({"cniVersion": "2.0.0"}), "incompatible CNI version"),
        (json!("text"), "no JSON object"),
        (json!([]), "no JSON object"),
    ] {
        let error = parse(value.clone()).unwrap_err();
        assert!(error.to_string().contains(wanted), "{value}: {error}");
    }
}

#[test]
fn networks_are_compared_by_prefix() {
    let net: IpNet = "10.1.2.3/20".parse().unwrap();
    assert_eq!(net.network().to_string(), "10.1.0.0");
    assert!(net.contains("10.1.15.255".parse().unwrap()));
    assert!(!net.contains("10.1.16.0".parse().unwrap()));
    assert!(!net.contains("::1".parse().unwrap()));
    let all: IpNet = "::/0".parse().unwrap();
    assert!(all.contains("fd00::1".parse().unwrap()));
    assert_eq!("fd00::5/128".parse::<IpNet>().unwrap().network().to_string(), "fd00::5");
}
