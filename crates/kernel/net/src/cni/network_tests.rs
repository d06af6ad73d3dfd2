//! Networks on real namespaces, with plugins of ours and with programs that fail.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use testkit::needs;

use super::super::setup::FIRST;
use super::super::{IpPreference, PortMapping};
use super::*;

const LIST: &str = r#"{"cniVersion": "1.1.0", "name": "net", "plugins": [
    {"type": "bridge", "bridge": "brx", "isDefaultGateway": true, "ipMasq": true,
     "ipam": {"type": "host-local", "dataDir": "LEASES", "ranges": [[{"subnet": "10.6.0.0/24"}], [{"subnet": "fd06::/64"}]]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;

struct Place {
    dir: tempfile::TempDir,
    host: PathBuf,
    network: Network,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        Self::with(files, |settings| settings)
    }

    /// The same, with the settings changed by `change`.
    fn with(files: &[(&str, &str)], change: impl FnOnce(Settings) -> Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let conf_dir = dir.path().join("net.d");
        fs::create_dir(&conf_dir).unwrap();
        let leases = dir.path().join("leases");
        for (name, text) in files {
            fs::write(conf_dir.join(name), text.replace("LEASES", leases.to_str().unwrap())).unwrap();
        }
        let settings = Settings {
            conf_dir,
            bin_dirs: vec![dir.path().join("bin")],
            cache_dir: dir.path().join("cache"),
            ..Settings::default()
        };
        fs::create_dir(dir.path().join("bin")).unwrap();
        let host = crate::netns::create(&dir.path().join("ns")).unwrap();
        Self { network: Network::open(change(settings)), host, dir }
    }

    fn pod(&self, id: &str) -> Pod {
        let netns = crate::netns::create(&self.dir.path().join("ns")).unwrap();
        let mapping = PortMapping {
            host_port: 8080,
            container_port: 80,
            protocol: "tcp".into(),
            host_ip: String::new(),
        };
        Pod { id: id.into(), netns: Some(netns), port_mappings: vec![mapping], ..Pod::default() }
    }

    /// Runs `work` on the host, with half a minute to go.
    fn run<T: Send>(&self, work: impl FnOnce(&Network, Instant) -> T + Send) -> T {
        let netns = crate::netns::open(&self.host).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        crate::netns::run(std::os::fd::AsFd::as_fd(&netns), || work(&self.network, deadline)).unwrap()
    }

    fn plugin(&self, name: &str, body: &str) {
        let path = self.dir.path().join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Names of leases and of remembered attachments.
    fn left(&self) -> Vec<String> {
        let names = |dir: &Path| {
            let entries = fs::read_dir(dir).map(|entries| entries.collect::<Vec<_>>()).unwrap_or_default();
            entries.into_iter().map(|entry| entry.unwrap().file_name().into_string().unwrap())
        };
        let mut left: Vec<String> = names(&self.dir.path().join("leases/net"))
            .filter(|name| name.parse::<std::net::IpAddr>().is_ok())
            .chain(names(&self.dir.path().join("cache/results")))
            .collect();
        left.sort();
        left
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for path in crate::netns::list(&self.dir.path().join("ns")).unwrap() {
            crate::netns::remove(&path).unwrap();
        }
    }
}

#[test]
fn a_pod_is_attached_remembered_checked_and_detached() {
    needs!(root);
    let place = Place::new(&[("10-net.conflist", LIST)]);
    let pod = place.pod("pod");
    place.run(|network, deadline| network.status(deadline)).unwrap();
    let setup = place.run(|network, deadline| network.setup(&pod, deadline)).unwrap();
    let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    assert_eq!(setup.pod_ips(IpPreference::Ipv4), Some((ip("10.6.0.2"), vec![ip("fd06::2")])));
    assert_eq!(setup.pod_ips(IpPreference::Ipv6), Some((ip("fd06::2"), vec![ip("10.6.0.2")])));
    assert_eq!(setup.to_json()["Interfaces"][FIRST]["IPConfigs"][0]["Gateway"], "10.6.0.1");
    assert_eq!(place.left(), ["10.6.0.2", "fd06::2", "net-pod-eth0"]);
    let cached: Value =
        serde_json::from_slice(&fs::read(place.dir.path().join("cache/results/net-pod-eth0")).unwrap())
            .unwrap();
    assert_eq!((&cached["kind"], &cached["networkName"]), (&json!("cniCacheV1"), &json!("net")));
    assert_eq!(cached["capabilityArgs"]["portMappings"][0]["hostPort"], 8080);
    place.run(|network, deadline| network.check(&pod, deadline)).unwrap();
    // The configuration is gone; what is remembered suffices.
    fs::remove_file(place.dir.path().join("net.d/10-net.conflist")).unwrap();
    assert!(place.network.reload().is_err());
    for _ in 0..2 {
        let took = place.run(|network, deadline| {
            let begun = Instant::now();
            network.teardown(&pod, deadline).unwrap();
            begun.elapsed()
        });
        println!("teardown: {took:?}");
    }
    assert_eq!(place.left(), [""; 0]);
}

#[test]
fn a_plugin_that_fails_is_named_and_nothing_is_left() {
    needs!(root);
    let list =
        LIST.replace("\n    {\"type\": \"portmap\"", "\n    {\"type\": \"broken\"},{\"type\": \"portmap\"");
    let place = Place::new(&[("10-net.conflist", &list)]);
    let pod = place.pod("pod");
    for (body, wanted) in [
        (r#"[ $CNI_COMMAND = DEL ] || { echo '{"code":100,"msg":"no luck"}'; exit 1; }"#, "no luck"),
        ("[ $CNI_COMMAND = DEL ] || echo nonsense", "no result"),
        ("[ $CNI_COMMAND = DEL ] || exit 7", "exit status: 7"),
    ] {
        place.plugin("broken", body);
        let error = Failure::from(place.run(|network, deadline| network.setup(&pod, deadline)).unwrap_err());
        let text = error.to_string();
        assert!(text.starts_with(r#"plugin type="broken" name="net" failed (add): "#), "{text}");
        assert!(text.contains(wanted), "{text}");
        assert_eq!(place.left(), [""; 0], "{body}");
    }
}

#[test]
fn teardown_that_fails_keeps_the_address_until_the_rules_that_lead_to_it_are_gone() {
    needs!(root);
    let list = LIST.replace("{\"portMappings\": true}}", "{\"portMappings\": true}}, {\"type\": \"rules\"}");
    let place = Place::new(&[("10-net.conflist", &list)]);
    let result = r#"{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"x"}],
        "ips":[{"address":"10.6.0.2/24","interface":0}]}"#;
    place.plugin("rules", &format!("[ $CNI_COMMAND = DEL ] || echo '{result}'"));
    let pod = place.pod("pod");
    place.run(|network, deadline| network.setup(&pod, deadline)).unwrap();
    let attached = place.left();
    place.plugin("rules", "exit 7");
    let error = place.run(|network, deadline| network.teardown(&pod, deadline)).unwrap_err();
    assert!(Failure::from(error).to_string().contains("failed (delete)"));
    assert_eq!(place.left(), attached, "address and memory stay");
    place.plugin("rules", "exit 0");
    place.run(|network, deadline| network.teardown(&pod, deadline)).unwrap();
    assert_eq!(place.left(), [""; 0]);
}

#[test]
fn a_plugin_that_hangs_ends_with_the_pods_deadline() {
    needs!(root);
    let list = r#"{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "hangs"}]}"#;
    let place = Place::new(&[("10-net.conflist", list)]);
    place.plugin("hangs", "[ $CNI_COMMAND = DEL ] || exec sleep 1000");
    let pod = place.pod("pod");
    let begun = Instant::now();
    let error =
        place.run(|network, _| network.setup(&pod, Instant::now() + Duration::from_millis(300))).unwrap_err();
    assert_eq!(error.kind(), Kind::DeadlineExceeded, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(place.left(), [""; 0]);
}

#[test]
fn attachments_of_pods_that_are_gone_are_collected() {
    needs!(root);
    let place = Place::new(&[("10-net.conflist", LIST)]);
    let (a, b) = (place.pod("a"), place.pod("b"));
    for pod in [&a, &b] {
        place.run(|network, deadline| network.setup(pod, deadline)).unwrap();
    }
    crate::netns::remove(a.netns.as_ref().unwrap()).unwrap();
    place.run(|network, deadline| network.gc(&["b"], deadline)).unwrap();
    assert_eq!(place.left(), ["10.6.0.3", "fd06::3", "net-b-eth0"]);
}

#[test]
fn what_is_loaded_is_the_first_and_its_failure_is_the_status() {
    needs!(root);
    let place = Place::new(&[]);
    let status =
        || Failure::from(place.run(|network, deadline| network.status(deadline)).unwrap_err()).to_string();
    assert!(status().starts_with("cni plugin not initialized: no network config found in"), "{}", status());
    let dir = place.dir.path().join("net.d");
    fs::write(dir.join("20-b.conflist"), LIST).unwrap();
    fs::write(dir.join("10-a.conf"), r#"{"cniVersion": "1.0.0", "name": "first", "type": "loopback"}"#)
        .unwrap();
    fs::write(dir.join("00-ignored.txt"), "x").unwrap();
    place.network.reload().unwrap();
    let described = place.network.describe();
    assert_eq!(described["Networks"].as_array().unwrap().len(), 1);
    assert_eq!(described["Networks"][0]["Config"]["Name"], "first");
    fs::write(dir.join("05-broken.conflist"), "{").unwrap();
    assert!(place.network.reload().is_err());
    assert!(status().contains("05-broken.conflist"), "{}", status());
}

/// Two networks of the plugin `odd`, and a place for them.
fn two(serially: bool) -> Place {
    let list = |name: &str| {
        format!(r#"{{"cniVersion": "1.0.0", "name": "{name}", "plugins": [{{"type": "odd"}}]}}"#)
    };
    let files = [("10-a.conflist", list("a")), ("20-b.conflist", list("b"))];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    Place::with(&files, |settings| Settings { max_conf_num: 0, serially, ..settings })
}

/// An answer of a plugin with an address of its interface.
const ANSWER: &str = r#"echo '{"cniVersion": "1.0.0", "interfaces": [{"name": "'$CNI_IFNAME'", "sandbox": "x"}],
    "ips": [{"address": "10.0.0.'${CNI_IFNAME#eth}'/24", "interface": 0}]}'"#;

#[test]
fn a_pods_networks_are_set_up_at_the_same_time_and_told_in_their_order() {
    needs!(root);
    let place = two(false);
    let seen = place.dir.path().display();
    // Each waits for the other; the first comes last.
    place.plugin(
        "odd",
        &format!(
            "[ $CNI_COMMAND = ADD ] || exit 0\ntouch {seen}/$CNI_IFNAME\n\
             for i in $(seq 200); do [ -e {seen}/eth0 ] && [ -e {seen}/eth1 ] && break; sleep 0.1; done\n\
             [ -e {seen}/eth0 ] && [ -e {seen}/eth1 ] || exit 1\n[ $CNI_IFNAME = eth1 ] || sleep 0.2\n{ANSWER}"
        ),
    );
    let pod = place.pod("pod");
    let setup = place.run(|network, deadline| network.setup(&pod, deadline)).unwrap();
    let addresses = |name: &str| setup.interfaces[name].ips[0].0.to_string();
    assert_eq!([addresses("eth0"), addresses("eth1")], ["10.0.0.0", "10.0.0.1"]);
    let names: Vec<&str> =
        setup.raw.iter().map(|raw| raw["interfaces"][0]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["eth0", "eth1"]);
    assert_eq!(place.left(), ["a-pod-eth0", "b-pod-eth1"]);
    place.run(|network, deadline| network.teardown(&pod, deadline)).unwrap();
    assert_eq!(place.left(), [""; 0]);
}

#[test]
fn a_pods_networks_are_set_up_one_after_the_other_where_that_is_asked_for() {
    needs!(root);
    let place = two(true);
    let seen = place.dir.path().join("seen");
    let note = |word: &str| format!("echo {word} $CNI_IFNAME >> {}", seen.display());
    let script = [
        "[ $CNI_COMMAND = ADD ] || exit 0",
        &note("begin"),
        "[ $CNI_IFNAME = eth1 ] || sleep 0.2",
        &note("end"),
        ANSWER,
    ];
    place.plugin("odd", &script.join("\n"));
    place.run(|network, deadline| network.setup(&place.pod("pod"), deadline)).unwrap();
    assert_eq!(fs::read_to_string(&seen).unwrap(), "begin eth0\nend eth0\nbegin eth1\nend eth1\n");
}

#[test]
fn a_network_that_fails_undoes_those_that_are_set_up_with_it() {
    needs!(root);
    let place = two(false);
    let seen = place.dir.path().join("seen");
    let script = [
        &format!("echo $CNI_COMMAND $CNI_IFNAME >> {}", seen.display()),
        "[ $CNI_COMMAND = ADD ] || exit 0",
        r#"[ $CNI_IFNAME = eth1 ] || { echo '{"code": 100, "msg": "no luck"}'; exit 1; }"#,
        // Its failure is known long before.
        "sleep 0.3",
        &format!("echo added $CNI_IFNAME >> {}", seen.display()),
        ANSWER,
    ];
    place.plugin("odd", &script.join("\n"));
    let pod = place.pod("pod");
    let error = place.run(|network, deadline| network.setup(&pod, deadline)).unwrap_err();
    assert_eq!(Failure::from(error).to_string(), r#"plugin type="odd" name="a" failed (add): no luck"#);
    assert_eq!(place.left(), [""; 0]);
    let seen = fs::read_to_string(&seen).unwrap();
    let at = |line: &str| seen.lines().position(|other| other == line).unwrap_or_else(|| panic!("{seen}"));
    assert!(at("added eth1") < at("DEL eth1").min(at("DEL eth0")), "{seen}");
}

#[test]
fn only_networks_that_have_checks_are_checked_and_by_what_they_were_made_with() {
    needs!(root);
    let list = |version: &str, more: &str| {
        format!(r#"{{"cniVersion": "{version}", "name": "net", {more} "plugins": [{{"type": "odd"}}]}}"#)
    };
    for (name, list, is_checked) in [
        ("forbidden", list("1.0.0", r#""disableCheck": true,"#), false),
        ("too old", list("0.3.1", ""), false),
        ("checked", list("0.4.0", ""), true),
    ] {
        let place = Place::new(&[("10-net.conflist", &list)]);
        let answer = ANSWER.replace("1.0.0", if is_checked { "0.4.0" } else { "0.3.1" });
        let answer = if name == "forbidden" { ANSWER } else { &answer };
        let broken = r#"echo '{"code": 100, "msg": "it is not as it was"}'; exit 1"#;
        place.plugin("odd", &format!("case $CNI_COMMAND in\nADD) {answer} ;;\nCHECK) {broken} ;;\nesac"));
        let pod = place.pod("pod");
        place.run(|network, deadline| network.setup(&pod, deadline)).unwrap();
        // Of the network that is gone the attachment is still known.
        fs::remove_file(place.dir.path().join("net.d/10-net.conflist")).unwrap();
        assert!(place.network.reload().is_err());
        let said = place.run(|network, deadline| network.check(&pod, deadline));
        match said {
            Ok(()) => assert!(!is_checked, "{name}"),
            Err(error) => {
                let text = Failure::from(error).to_string();
                assert_eq!(text, r#"plugin type="odd" name="net" failed (check): it is not as it was"#);
                assert!(is_checked, "{name}");
            }
        }
    }
    let place = Place::new(&[("10-net.conflist", LIST)]);
    let error = place.run(|network, deadline| network.check(&place.pod("stranger"), deadline)).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
}
