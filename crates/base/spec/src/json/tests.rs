//! Go's rules by example, and any input against the strict reader.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Mapping {
    host_port: i64,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    labels: BTreeMap<String, String>,
    args: Vec<String>,
    on: bool,
    inner: Option<Box<Mapping>>,
}

fn read(json: &str) -> Mapping {
    from_slice(json.as_bytes()).unwrap()
}

#[test]
fn struct_keys_in_another_case_match() {
    let read = read(r#"{"HostPort":8080,"HOSTIP":"::1","iNNER":{"hostport":1},"unknown":{"hostPort":2}}"#);
    assert_eq!((read.host_port, read.host_ip.as_deref()), (8080, Some("::1")));
    assert_eq!(read.inner.unwrap().host_port, 1);
    assert!(is_same_key("hoſtPort", "hostPort") && is_same_key("\u{212A}ey", "key"));
    assert!(!is_same_key("hostport2", "hostPort") && !is_same_key("höstPort", "hostPort"));
}

#[test]
fn map_keys_keep_their_case() {
    let labels = read(r#"{"Labels":{"A":"1","a":"2"}}"#).labels;
    let wanted = [("A", "1"), ("a", "2")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(labels, BTreeMap::from(wanted));
}

#[test]
fn repeated_key_last_one_counts() {
    for (json, port) in [
        (r#"{"hostPort":1,"hostPort":2}"#, 2),
        (r#"{"hostPort":1,"HostPort":2}"#, 2),
        (r#"{"HostPort":1,"hostPort":2}"#, 2),
        (r#"{"hostPort":1,"HostPort":null}"#, 1),
    ] {
        assert_eq!(read(json).host_port, port, "{json}");
    }
}

#[test]
fn exact_key_of_another_field_is_not_folded() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Both {
        #[serde(default)]
        a: u8,
        #[serde(default, rename = "A")]
        upper: u8,
    }
    let both: Both = from_str(r#"{"A":1,"a":2}"#).unwrap();
    assert_eq!(both, Both { a: 2, upper: 1 });
}

#[test]
fn null_counts_as_absent_in_every_type() {
    let nothing = r#"{"hostPort":null,"hostIP":null,"labels":null,"args":null,"on":null,"inner":null}"#;
    assert_eq!(read(nothing), Mapping::default());
    assert_eq!(read("null"), Mapping::default());

    #[derive(Deserialize)]
    #[serde(default)]
    struct Tuned {
        retries: u32,
    }
    impl Default for Tuned {
        fn default() -> Self {
            Self { retries: 3 }
        }
    }
    assert_eq!(from_str::<Tuned>(r#"{"retries":null}"#).unwrap().retries, 3);
}

#[test]
fn null_element_is_its_zero_value() {
    let read = read(r#"{"args":["a",null],"labels":{"x":null},"inner":{"inner":null}}"#);
    assert_eq!(read.args, ["a", ""]);
    assert_eq!(read.labels["x"], "");
    let ports: BTreeMap<String, Value> = from_str(r#"{"80/tcp":null}"#).unwrap();
    assert_eq!(ports["80/tcp"], Value::Null);
    assert_eq!(from_str::<Vec<Mapping>>("[null]").unwrap(), [Mapping::default()]);
    assert_eq!(from_str::<Vec<u32>>("[null,7]").unwrap(), [0, 7]);
}

#[test]
fn wrong_type_is_reported_with_its_path() {
    let error = from_str::<Mapping>(r#"{"Inner":{"args":["a",5]}}"#).unwrap_err().to_string();
    assert_eq!(error, "inner.args[1]: invalid type: integer `5`, expected a string");
    let error = from_str::<Mapping>("{\n\"args\": [}").unwrap_err();
    assert_eq!(error.line(), 2);
    assert!(from_str::<Mapping>("[1]").is_err());
    assert!(from_str::<Mapping>(r#"{"hostPort":1.5}"#).is_err());
    assert!(from_str::<Mapping>(r#"{"hostPort":"1"}"#).is_err());
}

#[test]
fn denied_unknown_keys_are_still_refused() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        kind: String,
    }
    assert_eq!(from_str::<Strict>(r#"{"Kind":"a/b"}"#).unwrap().kind, "a/b");
    assert!(from_str::<Strict>(r#"{"kind":"a/b","kinds":1}"#).is_err());
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    let args = |json: &[u8]| from_slice::<Mapping>(json).unwrap().args;
    assert_eq!(args(b"{\"args\":[\"a\xffb\"]}"), ["a\u{fffd}b"]);
    assert_eq!(
        args(br#"{"args":["\ud800","\udc00x","\ud83d\ude00","\\ud800"]}"#),
        ["\u{fffd}", "\u{fffd}x", "😀", "\\ud800"]
    );
    assert_eq!(args(br#"{"args":["\ud800\n\ud800\ud83d\ude00"]}"#), ["\u{fffd}\n\u{fffd}😀"]);
}

#[test]
fn bytes_behind_the_document_are_refused_or_ignored() {
    let two = br#"{"hostPort":1} {"hostPort":2}"#;
    assert!(from_slice::<Mapping>(two).is_err());
    assert_eq!(first_from_slice::<Mapping>(two).unwrap().host_port, 1);
    assert!(first_from_slice::<Mapping>(b"").is_err());
}

#[test]
fn document_of_too_many_values_is_refused() {
    let json = format!("[{}0]", "0,".repeat(MAX_VALUES));
    assert!(from_str::<Vec<u8>>(&json).unwrap_err().to_string().starts_with("too many values"));
}

#[test]
fn parsed_values_are_read_by_the_same_rules() {
    let value: Value = serde_json::from_str(r#"{"HostPort":-1,"args":null,"hostip":"a"}"#).unwrap();
    let read: Mapping = from_value(&value).unwrap();
    assert_eq!((read.host_port, read.host_ip.as_deref()), (-1, Some("a")));
    let object = value.as_object().unwrap();
    assert_eq!(from_object::<Mapping>(object).unwrap(), read);
    assert_eq!(field(object, "hostPort").and_then(Value::as_i64), Some(-1));
    assert_eq!(field(object, "args"), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(json in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = from_slice::<Mapping>(&json);
    }

    #[test]
    fn any_escapes_are_read_or_refused(text in "(\\\\u[dD][89abcdefABCDEF]?[0-9a-f]{0,2}|\\\\|\\PC|\"){0,16}") {
        let _ = from_str::<Vec<String>>(&format!("[\"{text}\"]"));
    }

    #[test]
    fn documents_in_their_own_spelling_read_as_strictly(port in any::<i64>(), args in proptest::collection::vec("\\PC*", 0..4)) {
        let json = serde_json::json!({ "hostPort": port, "args": args }).to_string();
        let strict: Mapping = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(from_str::<Mapping>(&json).unwrap(), strict);
    }
}
