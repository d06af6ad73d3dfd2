//! Configurations of networks: what is read, negotiated and refused.

use std::fs;

use serde_json::json;

use super::*;

fn parse(value: Value) -> Result<NetworkList, ConfigError> {
    NetworkList::parse(value.to_string().as_bytes())
}

fn complete(error: ConfigError) -> String {
    spec::error::Error::from(error).text().to_owned()
}

#[test]
fn the_newest_version_that_is_spoken_is_taken() {
    for (single, several, wanted) in [
        (Some("1.0.0"), None, Version::V1_0_0),
        (None, None, Version::V0_1_0),
        (Some("0.3.1"), Some(json!(["0.4.0", "1.0.0"])), Version::V1_0_0),
        (Some("1.0.0"), Some(json!(["0.4.0"])), Version::V1_0_0),
        (Some("9.0.0"), Some(json!(["1.1.0", "1.2.0"])), Version::V1_1_0),
        (Some("0.4.0"), Some(json!([])), Version::V0_4_0),
    ] {
        let mut list = json!({"name": "n", "plugins": [{"type": "t"}]});
        if let Some(single) = single {
            list["cniVersion"] = single.into();
        }
        if let Some(several) = several {
            list["cniVersions"] = several;
        }
        assert_eq!(parse(list.clone()).unwrap().version, wanted, "{list}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (list, wanted) in [
        (json!({"plugins": [{"type": "t"}]}), "missing network name"),
        (json!({"name": "../n", "plugins": [{"type": "t"}]}), "invalid characters found in network name"),
        (json!({"name": 5}), "name: must be a string"),
        (json!({"name": "n"}), "no plugins in list"),
        (json!({"name": "n", "plugins": []}), "no plugins in list"),
        (json!({"name": "n", "plugins": {}}), "plugins: must be an array"),
        (json!({"name": "n", "plugins": [1]}), "plugins: must hold objects"),
        (json!({"name": "n", "plugins": [{}]}), "failed to parse plugin config 0: missing plugin type"),
        (json!({"name": "n", "plugins": [{"type": "../sh"}]}), "invalid plugin name: ../sh"),
        (json!({"name": "n", "plugins": [{"type": "t", "capabilities": [1]}]}), "capabilities"),
        (json!({"name": "n", "cniVersion": "7.0.0", "plugins": [{"type": "t"}]}), "incompatible CNI version"),
        (json!({"name": "n", "cniVersions": ["x"], "plugins": [{"type": "t"}]}), "cniVersions: must be"),
        (
            json!({"name": "n", "disableCheck": 1, "plugins": [{"type": "t"}]}),
            "disableCheck: must be true or false",
        ),
        (json!({"name": "n", "loadOnlyInlinedPlugins": true}), "loadOnlyInlinedPlugins"),
        (json!([]), "error parsing configuration list"),
    ] {
        let text = complete(parse(list.clone()).unwrap_err());
        assert!(text.contains(wanted), "{list}: {text}");
    }
}

#[test]
fn flags_may_be_strings() {
    let list =
        parse(json!({"name": "n", "disableCheck": "TRUE", "disableGC": true, "plugins": [{"type": "t"}]}));
    let list = list.unwrap();
    assert!(list.disable_check && list.disable_gc);
}

#[test]
fn a_single_plugin_becomes_a_list() {
    let list =
        NetworkList::of_single(br#"{"cniVersion":"0.3.1","name":"n","type":"bridge","mtu":9}"#).unwrap();
    assert_eq!((list.name.as_str(), list.version, list.plugins.len()), ("n", Version::V0_3_1, 1));
    assert_eq!(list.plugins[0].raw["mtu"], 9);
    // Somebody who puts a list into a .conf file is told.
    let error = NetworkList::of_single(br#"{"name":"n","plugins":[{"type":"t"}]}"#).unwrap_err();
    assert!(complete(error).contains("missing plugin type"));
}

#[test]
fn plugins_of_the_networks_directory_follow_the_inlined_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("10-n.conflist");
    fs::create_dir(dir.path().join("n")).unwrap();
    fs::write(dir.path().join("n/20-b.conf"), r#"{"type":"b"}"#).unwrap();
    fs::write(dir.path().join("n/10-a.conf"), r#"{"type":"a"}"#).unwrap();
    fs::write(dir.path().join("n/readme.txt"), "x").unwrap();
    let names =
        |list: &NetworkList| list.plugins.iter().map(|entry| entry.plugin.clone()).collect::<Vec<_>>();

    fs::write(&path, r#"{"cniVersion":"1.1.0","name":"n","plugins":[{"type":"t"}]}"#).unwrap();
    let list = NetworkList::load(&path).unwrap();
    assert_eq!(names(&list), ["t", "a", "b"]);
    assert_eq!(names(&NetworkList::parse(list.to_text().as_bytes()).unwrap()), ["t", "a", "b"]);

    fs::write(&path, r#"{"cniVersion":"1.1.0","name":"n"}"#).unwrap();
    assert_eq!(names(&NetworkList::load(&path).unwrap()), ["a", "b"]);

    let only = r#"{"cniVersion":"1.1.0","name":"n","loadOnlyInlinedPlugins":true,"plugins":[{"type":"t"}]}"#;
    fs::write(&path, only).unwrap();
    let list = NetworkList::load(&path).unwrap();
    assert_eq!(names(&list), ["t"]);
    assert_eq!(list.to_text(), only);
}

#[test]
fn a_plugin_sees_the_capabilities_that_it_asked_for() {
    let list = parse(json!({
        "cniVersion": "1.0.0", "name": "n",
        "plugins": [{"type": "t", "name": "other", "capabilities": {"portMappings": true, "mac": false}}, {"type": "u"}]
    }))
    .unwrap();
    let given = json!({"portMappings": [{"hostPort": 80}], "mac": "x", "dns": {}});
    let given = given.as_object().unwrap();
    let previous = CniResult::default();
    let first = list.config_for(&list.plugins[0], Some(&previous), given).unwrap();
    assert_eq!(
        Value::Object(first.raw),
        json!({
            "type": "t", "name": "n", "capabilities": {"portMappings": true, "mac": false}, "cniVersion": "1.0.0",
            "prevResult": {"cniVersion": "1.0.0"}, "runtimeConfig": {"portMappings": [{"hostPort": 80}]}
        })
    );
    let second = list.config_for(&list.plugins[1], None, given).unwrap();
    assert_eq!(Value::Object(second.raw), json!({"type": "u", "cniVersion": "1.0.0", "name": "n"}));
}
