//! Which files are valid, and what they say.

use super::*;

/// As a generator writes it.
const GPU: &str = r#"---
cdiVersion: 1.1.0
kind: nvidia.com/gpu
containerEdits:
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  deviceNodes:
  - path: /dev/nvidiactl
  hooks:
  - hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
    args: [nvidia-cdi-hook, update-ldcache, --folder, /usr/lib]
    timeout: 5
  mounts:
  - hostPath: /usr/bin/nvidia-smi
    containerPath: /usr/bin/nvidia-smi
    options: [ro, nosuid, nodev, rbind, rprivate]
devices:
- name: "0"
  annotations: {arch: ampere}
  containerEdits:
    deviceNodes:
    - {path: /dev/nvidia0, hostPath: /dev/gpu0, type: c, major: 195, minor: 0, fileMode: 0666, permissions: rw, uid: 0}
    additionalGids: [44]
    netDevices:
    - {hostInterfaceName: eth7, name: rdma0}
    intelRdt: {closID: gold, schemata: ["L3:0=f"], enableMonitoring: true}
- name: all
  containerEdits: {env: [ALL=1]}
"#;

#[test]
fn a_generators_file_is_understood() {
    let file = parse(GPU.as_bytes(), false).unwrap();
    assert_eq!(file.qualified(&file.devices[0]), "nvidia.com/gpu=0");
    let edits = &file.devices[0].container_edits;
    let node = &edits.device_nodes[0];
    assert_eq!((node.major, node.file_mode, node.uid), (Number(195), Some(Number(0o666)), Some(Number(0))));
    assert_eq!((edits.additional_gids.as_slice(), edits.net_devices.len()), (&[Number(44)][..], 1));
    let rdt = edits.intel_rdt.as_ref().unwrap();
    assert_eq!((rdt.clos_id.as_str(), rdt.enable_monitoring), ("gold", Truth(true)));
    let of_all = file.container_edits.unwrap();
    assert_eq!(of_all.hooks[0].timeout, Some(Number(5)));
    assert_eq!(of_all.mounts[0].options.len(), 5);
}

#[test]
fn json_and_yaml_say_the_same() {
    let json = r#"{"cdiVersion":"0.5.0","kind":"v.com/net","devices":[{"name":"a","containerEdits":
        {"deviceNodes":[{"path":"/dev/x","fileMode":438,"uid":null}],"mounts":null}}]}"#;
    let yaml = "cdiVersion: 0.5.0\nkind: v.com/net\ndevices:\n- name: a\n  containerEdits:\n    deviceNodes:\n    \
        - path: /dev/x\n      fileMode: 0666\n    mounts:\n";
    assert_eq!(parse(json.as_bytes(), true).unwrap(), parse(yaml.as_bytes(), false).unwrap());
}

/// A file of one device with `edits`.
fn with(version: &str, kind: &str, name: &str, edits: &str) -> Result<File, String> {
    let text = format!(
        r#"{{"cdiVersion":"{version}","kind":"{kind}","devices":[{{"name":"{name}","containerEdits":{edits}}}]}}"#
    );
    parse(text.as_bytes(), true)
}

#[test]
fn what_a_file_uses_must_be_in_its_version() {
    let env = r#"{"env":["A=1"]}"#;
    let mount = r#"{"mounts":[{"hostPath":"/a","containerPath":"/b","type":"bind"}]}"#;
    let node = r#"{"deviceNodes":[{"path":"/dev/a","hostPath":"/dev/b"}]}"#;
    let monitored = r#"{"intelRdt":{"closID":"a","enableMonitoring":true}}"#;
    for (version, kind, name, edits, fine) in [
        ("0.2.0", "v.com/c", "a", env, false),
        ("0.3.0", "v.com/c", "a", env, true),
        ("v0.3.0", "v.com/c", "a", env, true),
        ("0.3.0", "v.com/c", "0", env, false),
        ("0.5.0", "v.com/c", "0", env, true),
        ("0.3.0", "v.com/c", "a", mount, false),
        ("0.4.0", "v.com/c", "a", mount, true),
        ("0.4.0", "v.com/c", "a", node, false),
        ("0.5.0", "v.com/c", "a", node, true),
        ("0.5.0", "v.com/c.d", "a", env, false),
        ("0.6.0", "v.com/c.d", "a", env, true),
        ("0.6.0", "v.com/c", "a", r#"{"additionalGids":[1]}"#, false),
        ("0.7.0", "v.com/c", "a", r#"{"additionalGids":[1]}"#, true),
        ("1.0.0", "v.com/c", "a", monitored, false),
        ("1.1.0", "v.com/c", "a", monitored, true),
        ("1.2.0", "v.com/c", "a", env, false),
        ("", "v.com/c", "a", env, false),
    ] {
        assert_eq!(with(version, kind, name, edits).is_ok(), fine, "{version} {kind} {name} {edits}");
    }
}

#[test]
fn what_is_not_valid_is_refused() {
    for edits in [
        "{}",
        r#"{"env":["A"]}"#,
        r#"{"env":["=A"]}"#,
        r#"{"env":["A=\u0000"]}"#,
        r#"{"unknown":1}"#,
        r#"{"deviceNodes":[{}]}"#,
        r#"{"deviceNodes":[{"path":"relative"}]}"#,
        r#"{"deviceNodes":[{"path":"/dev/a","type":"x"}]}"#,
        r#"{"deviceNodes":[{"path":"/dev/a","permissions":"rx"}]}"#,
        r#"{"deviceNodes":[{"path":"/dev/a","major":-1}]}"#,
        r#"{"deviceNodes":[{"path":"/dev/a","uid":4294967296}]}"#,
        r#"{"hooks":[{"hookName":"sometimes","path":"/h"}]}"#,
        r#"{"hooks":[{"hookName":"prestart","path":""}]}"#,
        r#"{"hooks":[{"hookName":"prestart","path":"/h","env":["A"]}]}"#,
        r#"{"mounts":[{"hostPath":"","containerPath":"/a"}]}"#,
        r#"{"mounts":[{"hostPath":"/a","containerPath":"a"}]}"#,
        r#"{"intelRdt":{"closID":"a/b"}}"#,
        r#"{"netDevices":[{"hostInterfaceName":"eth0"}]}"#,
        r#"{"additionalGids":[-1]}"#,
    ] {
        assert!(with("1.1.0", "v.com/c", "a", edits).is_err(), "{edits}");
    }
    for (kind, name) in [("v.com", "a"), ("v.com/", "a"), ("0/c", "a"), ("v.com/c", ""), ("v.com/c", "a=b")] {
        assert!(with("1.1.0", kind, name, r#"{"env":["A=1"]}"#).is_err(), "{kind} {name}");
    }
    let twice = r#"{"cdiVersion":"1.1.0","kind":"v.com/c","devices":[
        {"name":"a","containerEdits":{"env":["A=1"]}},{"name":"a","containerEdits":{"env":["A=1"]}}]}"#;
    assert!(parse(twice.as_bytes(), true).unwrap_err().contains("multiple device"));
    assert!(parse(br#"{"cdiVersion":"1.1.0","kind":"v.com/c","devices":[]}"#, true).is_err());
    assert!(parse(b"\xff", false).is_err() && parse(b"[]", true).is_err());
}
