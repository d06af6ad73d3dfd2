//! The grammar by example, and against a model that builds filters from known selectors.

use std::collections::BTreeMap;

use proptest::prelude::*;

use spec::Kind;

use super::*;

/// A record whose fields are a map from joined path to value.
struct Record(BTreeMap<String, String>);

impl Fields for Record {
    fn field(&self, path: &[&str]) -> Option<&str> {
        match path {
            ["name"] => self.0.get("name").map(String::as_str),
            ["labels", key @ ..] => label(&self.0, key),
            _ => None,
        }
    }
}

fn record(fields: &[(&str, &str)]) -> Record {
    Record(fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

#[test]
fn selectors_choose_as_containerd_does() {
    let foo = record(&[("name", "foo"), ("bar", "baz"), ("a.b/c", "v w"), ("slash", "a/b|c")]);
    for (filter, passes) in [
        ("", true),
        ("name==foo", true),
        ("name == foo", true),
        ("name==fo", false),
        ("name!=foo", false),
        ("name!=bar", true),
        ("name", true),
        ("other", false),
        ("labels.bar", true),
        ("labels.nope", false),
        ("labels.bar==baz,name==foo", true),
        ("labels.bar==baz,name==bar", false),
        ("labels.\"a.b/c\"==\"v w\"", true),
        ("labels.a.\"b/c\"==\"v w\"", true),
        ("labels.nope!=x", true),
        ("labels.nope!=\"\"", false),
        ("name~=^fo", true),
        ("name~=/^f.o$/", true),
        ("name~=|o{2}|", true),
        ("name~=/x/", false),
        ("labels.slash~=/a\\/b/", true),
        ("labels.slash~=|^b\\|c$|", true),
        ("labels.nope~=^$", true),
        ("name==\"\\x66\\u006f\\157\"", true),
    ] {
        let filters = Filters::parse(&[filter]).unwrap();
        assert_eq!(filters.matches(&foo), passes, "{filter}");
    }
}

#[test]
fn one_filter_of_a_list_is_enough() {
    let foo = record(&[("name", "foo")]);
    assert!(Filters::parse(&["name==bar", "name==foo"]).unwrap().matches(&foo));
    assert!(!Filters::parse(&["name==bar", "name==baz"]).unwrap().matches(&foo));
    assert!(Filters::default().matches(&foo));
    assert!(Filters::default().pass_all());
}

#[test]
fn what_is_no_filter_is_refused_in_containerds_words() {
    for (filter, text) in [
        ("name=foo", "filters: parse error: [name >|=|< foo]: unsupported operator \"=\": invalid argument"),
        (
            "name===foo",
            "filters: parse error: [name >|=|< ==foo]: unsupported operator \"===\": invalid argument",
        ),
        ("==foo", "filters: parse error: [ >|=|< =foo]: expected field or quoted: invalid argument"),
        ("name==", "filters: parse error: [name==]: expected value or quoted: invalid argument"),
        ("name==foo,", "filters: parse error: [name==foo,]: expected field or quoted: invalid argument"),
        (
            "name==foo bar",
            "filters: parse error: [name==foo >| |< bar]: unexpected input:  : invalid argument",
        ),
        (
            "name==\"foo",
            "filters: parse error: [name== >|\"|< foo]: quoted literal not terminated: invalid argument",
        ),
        (
            "name==/foo/",
            "filters: parse error: [name== >|/|< foo/]: invalid quote encountered: invalid argument",
        ),
        (
            "name==\"\\q\"",
            "filters: parse error: [name== >|\"|< \\q\"]: unquoting failed: quote syntax error: invalid argument",
        ),
        (
            "name foo",
            "filters: parse error: [name  >|f|< oo]: expected an operator (\"==\"|\"!=\"|\"~=\"): invalid argument",
        ),
        ("name~=(", "filters: error compiling regexp \"(\": error: unclosed group: invalid argument"),
    ] {
        let error = Filters::parse(&[filter]).unwrap_err();
        assert_eq!(error.to_string(), text, "{filter}");
        assert_eq!(error.kind(), Kind::InvalidArgument);
    }
}

#[test]
fn regular_expression_follows_gos_syntax() {
    let passes = |filter: &str, name: &str| {
        let filters = Filters::parse(&[filter]).unwrap_or_else(|error| panic!("{filter}: {error}"));
        filters.matches(&record(&[("name", name)]))
    };
    // What dockerd's image store asks.
    let tags = r#"name~="^docker\\.io/library/busybox:[\\w][\\w.-]{0,127}$""#;
    assert!(passes(tags, "docker.io/library/busybox:latest"));
    assert!(!passes(tags, "docker.io/library/busybox:lat\u{e9}st"));
    assert!(!passes(r"name~=/^\\d+$/", "\u{0663}"));
    assert!(passes(r"name~=/^\\Qa.b\\E\\z/", "a.b"));
    assert!(!passes(r"name~=/^\\Qa.b\\E\\z/", "axb"));
    assert!(passes(r"name~=/^(?P<n>[[:word:]]+)$/", "a_b"));
}

#[test]
fn a_regular_expression_has_a_size() {
    assert!(Filters::parse(&["name~=/(a{1000}){1000}/"]).is_err());
    assert!(Filters::parse(&[format!("name=={}", "x".repeat(70_000))]).is_err());
}

#[test]
fn a_request_has_a_bounded_number_of_filters() {
    assert!(Filters::parse(&vec!["name==x"; 4096]).is_ok());
    assert!(Filters::parse(&vec!["name==x"; 4097]).is_err());
    let error = Filters::parse(&["name~=x,".repeat(300) + "name"]).unwrap_err();
    assert_eq!(error.to_string(), "filters: too many regular expressions: invalid argument");
    assert!(Filters::parse(&vec!["name~=x"; 256]).is_ok());
    assert!(Filters::parse(&vec!["name~=x"; 257]).is_err());
}

/// A selector as the model knows it: path, operator, value.
type Known = (String, &'static str, String);

fn known() -> impl Strategy<Value = Known> {
    let key = prop_oneof![Just("a".to_owned()), Just("b.c/d".to_owned()), Just("e\"f".to_owned())];
    let operator = prop_oneof![Just("=="), Just("!="), Just("")];
    (key, operator, "[a-c, .\\\\\"é]{0,2}")
}

fn written((key, operator, value): &Known) -> String {
    let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    match *operator {
        "" => format!("labels.{}", quote(key)),
        _ => format!("labels.{}{operator}{}", quote(key), quote(value)),
    }
}

proptest! {
    #[test]
    fn filters_agree_with_the_model(
        filters in prop::collection::vec(prop::collection::vec(known(), 1..4), 0..4),
        labels in prop::collection::btree_map(prop_oneof![Just("a".to_owned()), Just("b.c/d".to_owned())], "[a-c, .]{0,2}", 0..3),
    ) {
        let texts: Vec<String> =
            filters.iter().map(|all| all.iter().map(written).collect::<Vec<_>>().join(",")).collect();
        let expected = filters.is_empty() || filters.iter().any(|all| all.iter().all(|(key, operator, value)| {
            match (labels.get(key), *operator) {
                (found, "") => found.is_some(),
                (found, "==") => found == Some(value),
                (found, _) => found.cloned().unwrap_or_default() != *value,
            }
        }));
        let parsed = Filters::parse(&texts).unwrap();
        prop_assert_eq!(parsed.matches(&Record(labels)), expected, "{:?}", texts);
    }

    #[test]
    fn no_text_breaks_the_parser(text in "\\PC{0,40}|[a-z=~!,.\"/|\\\\\u{0}\n ]{0,24}") {
        if let Ok(filters) = Filters::parse(&[text]) {
            filters.matches(&record(&[("name", "foo")]));
        }
    }
}
