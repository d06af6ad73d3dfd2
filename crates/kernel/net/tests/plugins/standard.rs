//! Ours beside Debian's: the same configuration gives the same result, and each removes what the other made.

use std::path::Path;
use std::time::Instant;

use net::cni::{CniResult, Command};
use serde_json::{Value, json};
use testkit::needs;

use crate::place::{Host, Namespace, chained, ip};

const DEBIAN: &str = "/usr/lib/cni";

fn needs_debian() -> bool {
    let found = Path::new(DEBIAN).join("bridge").exists();
    testkit::need::lacks(if found { Ok(()) } else { Err("no containernetworking-plugins".into()) })
}

/// Runs a plugin as a program, on the host.
fn program(
    host: &Host,
    path: &Path,
    command: &str,
    pod: &Namespace,
    id: &str,
    config: &Value,
) -> (bool, Value) {
    let done = host.netns.run(|| {
        testkit::command::Run::new(path)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", &pod.path)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", DEBIAN)
            .stdin(config.to_string())
            .run()
    });
    (done.code == 0, serde_json::from_str(&done.stdout).unwrap_or_default())
}

fn debian(host: &Host, command: &str, pod: &Namespace, id: &str, config: &Value) -> Value {
    let path = Path::new(DEBIAN).join(config["type"].as_str().unwrap());
    let (ok, output) = program(host, &path, command, pod, id, config);
    assert!(ok, "{command} of {}: {output}", path.display());
    output
}

/// A result without what differs from run to run.
fn comparable(mut result: Value) -> Value {
    for interface in result["interfaces"].as_array_mut().unwrap() {
        let interface = interface.as_object_mut().unwrap();
        interface.remove("mac");
        interface.remove("sandbox");
        if interface["name"].as_str().unwrap().starts_with("veth") {
            interface.insert("name".into(), "veth".into());
        }
    }
    // Debian's library writes an empty object where newer ones write nothing.
    if result["dns"] == json!({}) {
        result.as_object_mut().unwrap().remove("dns");
    }
    result
}

#[test]
fn results_are_equal() {
    needs!(root);
    if needs_debian() {
        return;
    }
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        for extra in [
            json!({}),
            json!({"isDefaultGateway": false, "isGateway": true, "dns": {"nameservers": ["10.7.0.9"]}}),
            json!({"isDefaultGateway": false, "hairpinMode": true, "mtu": 1400}),
        ] {
            let (ours, theirs) = (Host::new(), Host::new());
            let result = |host: &Host, run: &dyn Fn(&Namespace, &Value) -> Value| {
                let mut config = host.config(extra.clone());
                config["cniVersion"] = version.into();
                config.as_object_mut().unwrap().remove("ipMasqBackend");
                config["ipMasq"] = false.into();
                config["ipam"]["routes"] = json!([{"dst": "10.99.0.0/16"}, {"dst": "fd99::/48"}]);
                comparable(run(&host.pod(), &config))
            };
            let version = version.parse().unwrap();
            assert_eq!(
                result(&ours, &|pod, config| ours.add(pod, "a", config).to_json(version).unwrap()),
                result(&theirs, &|pod, config| debian(&theirs, "ADD", pod, "a", config)),
                "{version} {extra}"
            );
        }
    }
}

#[test]
fn each_removes_what_the_other_made() {
    needs!(root, program "iptables");
    if needs_debian() {
        return;
    }
    let host = Host::new();
    let (a, b) = (host.pod(), host.pod());
    // Debian's release knows no nftables, and fails where iptables has nothing for it to remove.
    let config = host.config(json!({"ipMasqBackend": "iptables"}));
    debian(&host, "ADD", &a, "a", &config);
    let ours = host.add(&b, "b", &config);
    assert_eq!(host.leases().len(), 4);
    let port = b.serve();
    assert_eq!(a.reach(ip("10.7.0.3"), port), Some(ip("10.7.0.2")));
    debian(&host, "CHECK", &b, "b", &chained(&config, &ours));
    host.del(&a, "a", &config);
    debian(&host, "DEL", &b, "b", &config);
    assert_eq!((host.leases(), host.links()), (vec![], vec!["br7".to_owned()]));
    assert!(!host.ruleset().contains("CNI-"), "{}", host.ruleset());
}

#[test]
fn a_chain_is_faster_than_its_programs() {
    needs!(root, program "iptables");
    if needs_debian() {
        return;
    }
    let host = Host::new();
    let mappings = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
    let network = |masquerade: &str| host.config(json!({"ipMasqBackend": masquerade}));
    let portmap = |backend: &str, result: &CniResult| {
        let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "portmap", "backend": backend, "runtimeConfig": mappings});
        chained(&config, result)
    };
    let mut ours = Vec::new();
    for number in 0..20 {
        let (pod, id) = (host.pod(), format!("pod{number}"));
        let config = network("nftables");
        let call = host.call(Some(&pod), &id, &config);
        let bridge = net::plugin::find("bridge").unwrap();
        let (took, result) = host.netns.run(|| {
            let started = Instant::now();
            let result = bridge.run(Command::Add, &call).unwrap().unwrap();
            let chained = host.call(Some(&pod), &id, &portmap("nftables", &result));
            net::plugin::find("portmap").unwrap().run(Command::Add, &chained).unwrap();
            (started.elapsed(), result)
        });
        ours.push(took);
        host.del(&pod, &id, &portmap("nftables", &result));
        host.del(&pod, &id, &config);
    }
    ours.sort();
    let pod = host.pod();
    let started = Instant::now();
    let config = network("iptables");
    let result = debian(&host, "ADD", &pod, "d", &config);
    let result = CniResult::from_json(result, "1.0.0".parse().unwrap()).unwrap();
    debian(&host, "ADD", &pod, "d", &portmap("iptables", &result));
    let theirs = started.elapsed();
    println!("bridge, host-local, portmap: ours {:?} (worst {:?}), Debian's {theirs:?}", ours[10], ours[19]);
    assert!(ours[10] < theirs / 3, "ours {:?}, Debian's {theirs:?}", ours[10]);
}

#[test]
fn the_program_speaks_as_the_standard_ones_do() {
    needs!(root);
    let host = Host::new();
    let path = Path::new(env!("CARGO_BIN_EXE_berth-cni"));
    let bin = host.dir.path().join("bin");
    testkit::command::Run::new(path).args([Path::new("install"), &bin]).ok();
    testkit::command::Run::new(bin.join("berth-cni")).args([Path::new("install"), &bin]).ok();
    let pod = host.pod();
    let config = host.config(json!({}));
    let bridge = bin.join("bridge");
    let (ok, version) = program(&host, &bridge, "VERSION", &pod, "a", &config);
    assert!(ok);
    assert_eq!(version["supportedVersions"].as_array().unwrap().len(), 7, "{version}");
    let (ok, result) = program(&host, &bridge, "ADD", &pod, "a", &config);
    assert!(ok, "{result}");
    assert_eq!(result["ips"][0]["address"], "10.7.0.2/24");
    let (ok, error) = program(&host, &bridge, "ADD", &pod, "a", &config);
    assert_eq!((ok, &error["code"]), (false, &json!(999)), "{error}");
    assert_eq!(program(&host, &bridge, "DEL", &pod, "a", &config), (true, Value::Null));
    let (ok, error) = program(&host, &bridge, "NONSENSE", &pod, "a", &config);
    assert_eq!((ok, &error["code"]), (false, &json!(4)), "{error}");
    let about = testkit::command::Run::new(&bridge).run();
    assert!(about.code == 0 && about.stderr.contains("CNI bridge plugin"));
}
