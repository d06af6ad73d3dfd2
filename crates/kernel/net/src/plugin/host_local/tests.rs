//! `host-local` on folders of its own: what is given, kept, freed and refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::cni::{Command, NetworkConfig, code};
use crate::plugin::find;

fn call(id: &str, config: Value) -> Call {
    Call {
        container_id: id.into(),
        netns: Some("/proc/1/ns/net".into()),
        ifname: "eth0".into(),
        args: Vec::new(),
        path: Vec::new(),
        config: NetworkConfig::parse(config.to_string().as_bytes()).unwrap(),
        deadline: Instant::now() + Duration::from_secs(10),
    }
}

fn config(dir: &Path, ipam: Value) -> Value {
    let mut ipam = ipam;
    ipam["type"] = "host-local".into();
    ipam["dataDir"] = dir.to_str().unwrap().into();
    json!({"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": ipam})
}

fn run(command: Command, call: &Call) -> Result<Vec<String>, Error> {
    let result = find("host-local").unwrap().run(command, call)?;
    Ok(result.unwrap_or_default().ips.iter().map(|ip| ip.address.to_string()).collect())
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir.join("net"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn leases_are_the_standard_plugins_files() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        config(dir.path(), json!({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}]]}));
    let call = call("pod", config);
    assert_eq!(run(Command::Add, &call).unwrap(), ["10.0.0.2/24", "fd00::2/64"]);
    assert_eq!(
        names(dir.path()).into_iter().collect::<Vec<_>>(),
        ["10.0.0.2", "fd00::2", "last_reserved_ip.0", "last_reserved_ip.1", "lock"]
    );
    assert_eq!(fs::read_to_string(dir.path().join("net/10.0.0.2")).unwrap(), "pod\r\neth0");
    assert_eq!(fs::read_to_string(dir.path().join("net/last_reserved_ip.1")).unwrap(), "fd00::2");
    run(Command::Check, &call).unwrap();
    assert!(run(Command::Add, &call).unwrap_err().msg.contains("duplicate allocation is not allowed"));
    for _ in 0..2 {
        run(Command::Del, &call).unwrap();
    }
    assert!(run(Command::Check, &call).is_err());
    assert_eq!(names(dir.path()).len(), 3);
}

#[test]
fn a_freed_address_is_the_last_to_be_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), json!({"subnet": "10.0.0.0/29"}));
    for (id, wanted) in [("a", "10.0.0.2/29"), ("b", "10.0.0.3/29")] {
        assert_eq!(run(Command::Add, &call(id, config.clone())).unwrap(), [wanted]);
    }
    run(Command::Del, &call("a", config.clone())).unwrap();
    for (id, wanted) in [("c", "4"), ("d", "5"), ("e", "6"), ("f", "2")] {
        assert_eq!(run(Command::Add, &call(id, config.clone())).unwrap(), [format!("10.0.0.{wanted}/29")]);
    }
    let error = run(Command::Add, &call("g", config)).unwrap_err();
    assert_eq!(
        (error.code, error.msg.contains("no IP addresses available in range set")),
        (code::INTERNAL, true)
    );
}

#[test]
fn a_failed_range_frees_the_ones_before() {
    let dir = tempfile::tempdir().unwrap();
    let ranges = json!([[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.0.1.0/30"}]]);
    let config = config(dir.path(), json!({"ranges": ranges}));
    assert_eq!(run(Command::Add, &call("a", config.clone())).unwrap().len(), 2);
    let before = names(dir.path());
    assert!(run(Command::Add, &call("b", config)).is_err());
    assert_eq!(names(dir.path()), before);
}

#[test]
fn ranges_in_another_case_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), json!({"Routes": null}));
    let range = json!({"Subnet": "10.0.0.0/24", "RangeStart": "10.0.0.7", "RangeEnd": null, "Gateway": ""});
    config["runtimeConfig"] = json!({"IPRanges": [[range]]});
    assert_eq!(run(Command::Add, &call("a", config)).unwrap(), ["10.0.0.7/24"]);
}

#[test]
fn an_address_can_be_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), json!({"subnet": "10.0.0.0/24"}));
    config["runtimeConfig"] = json!({"ips": ["10.0.0.77/24"]});
    assert_eq!(run(Command::Add, &call("a", config.clone())).unwrap(), ["10.0.0.77/24"]);
    assert!(run(Command::Add, &call("b", config.clone())).unwrap_err().msg.contains("is not available"));
    config["runtimeConfig"] = json!({"ips": ["10.0.0.1"]});
    assert!(run(Command::Add, &call("b", config.clone())).unwrap_err().msg.contains("gateway"));
    config["runtimeConfig"] = json!({"ips": ["10.9.0.1"]});
    assert!(
        run(Command::Add, &call("b", config.clone())).unwrap_err().msg.contains("failed to allocate all")
    );
    let mut by_args = call("c", config);
    by_args.config.raw.remove("runtimeConfig");
    by_args.args = vec![("IgnoreUnknown".into(), "1".into()), ("IP".into(), "10.0.0.9".into())];
    assert_eq!(run(Command::Add, &by_args).unwrap(), ["10.0.0.9/24"]);
    assert_eq!(names(dir.path()).iter().filter(|name| name.starts_with("10.")).count(), 2);
}

#[test]
fn what_belongs_to_nobody_is_collected() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), json!({"subnet": "10.0.0.0/24"}));
    for id in ["a", "b"] {
        run(Command::Add, &call(id, config.clone())).unwrap();
    }
    // Of a version that noted the container alone, and of a crash.
    fs::write(dir.path().join("net/10.0.0.50"), "b").unwrap();
    fs::write(dir.path().join("net/10.0.0.51"), "").unwrap();
    run(Command::Gc, &call("", config.clone())).unwrap();
    assert_eq!(names(dir.path()).iter().filter(|name| name.starts_with("10.")).count(), 4);
    config["cni.dev/valid-attachments"] = json!([{"containerID": "b", "ifname": "eth0"}]);
    run(Command::Gc, &call("", config)).unwrap();
    let left: Vec<_> = names(dir.path()).into_iter().filter(|name| name.starts_with("10.")).collect();
    assert_eq!(left, ["10.0.0.3", "10.0.0.50"]);
}

#[test]
fn fifty_at_once_get_fifty_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), json!({"subnet": "10.0.0.0/24"}));
    let given: BTreeSet<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..50)
            .map(|number| {
                let config = config.clone();
                scope.spawn(move || run(Command::Add, &call(&format!("pod{number}"), config)).unwrap())
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(given.len(), 50);
}

#[test]
fn what_cannot_be_served_is_refused_before_a_file_is_made() {
    let dir = tempfile::tempdir().unwrap();
    for (ipam, wanted) in [
        (json!({}), "no IP ranges specified"),
        (json!({"subnet": "10.0.0.0/33"}), "invalid CIDR"),
        (json!({"subnet": "10.0.0.0/24", "gateway": "x"}), "invalid IP address"),
        (json!({"ranges": [[{"subnet": "10.0.0.0/24"}], [{"subnet": "10.0.0.0/25"}]]}), "overlaps"),
    ] {
        let error = run(Command::Add, &call("a", config(dir.path(), ipam))).unwrap_err();
        assert!(error.msg.contains(wanted), "{error}");
    }
    let mut named = config(dir.path(), json!({"subnet": "10.0.0.0/24"}));
    named["name"] = "../../etc".into();
    assert_eq!(run(Command::Add, &call("a", named)).unwrap_err().code, code::INVALID_CONFIG);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
