//! Each edge by example, and the whole against a naive fixed point.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn now() -> SystemTime {
    rfc3339("2026-01-01T00:00:00Z").unwrap()
}

fn record(noun: Noun, key: &str, labels: &[(&str, &str)]) -> Record {
    let labels = labels.iter().map(|(key, value)| (format!("containerd.io/gc.{key}"), (*value).to_owned()));
    Record { namespace: "ns".into(), key: key.into(), labels: labels.collect(), noun }
}

fn content(key: &str, labels: &[(&str, &str)]) -> Record {
    record(Noun::Content, key, labels)
}

fn snapshot(key: &str, parent: Option<&str>, labels: &[(&str, &str)]) -> Record {
    record(Noun::Snapshot { parent: parent.map(str::to_owned) }, key, labels)
}

fn image(key: &str, target: &str, labels: &[(&str, &str)]) -> Record {
    record(Noun::Image { target: target.into() }, key, labels)
}

fn lease(key: &str, holds: &[(Kind, &str)], labels: &[(&str, &str)]) -> Record {
    let holds = holds.iter().map(|(kind, key)| (*kind, (*key).to_owned())).collect();
    record(Noun::Lease { holds }, key, labels)
}

fn ingest(key: &str, end: Option<i64>, expected: Option<&str>, open: bool) -> Record {
    let expires_at = end.map(|s| {
        if s < 0 {
            now() - Duration::from_secs(s.unsigned_abs())
        } else {
            now() + Duration::from_secs(s.unsigned_abs())
        }
    });
    record(Noun::Ingest { expires_at, expected: expected.map(str::to_owned), open }, key, &[])
}

#[track_caller]
fn check(records: &[Record], expected: &[&str]) {
    let found: Vec<&str> = garbage(records, now()).into_iter().map(|at| records[at].key.as_str()).collect();
    assert_eq!(found, expected);
}

#[test]
fn an_image_keeps_its_tree() {
    check(
        &[
            image("app", "index", &[]),
            content("index", &[("ref.content.m.0", "manifest")]),
            content("manifest", &[("ref.content.config", "config"), ("ref.content.l.0", "layer")]),
            content("config", &[("ref.snapshot.overlayfs", "chain2")]),
            content("layer", &[]),
            content("stray", &[("ref.content.l.0", "layer2")]),
            content("layer2", &[]),
            snapshot("overlayfs/chain1", None, &[]),
            snapshot("overlayfs/chain2", Some("overlayfs/chain1"), &[]),
            snapshot("native/chain2", None, &[]),
        ],
        &["stray", "layer2", "native/chain2"],
    );
}

#[test]
fn an_expired_image_goes_with_its_tree() {
    check(
        &[
            image("old", "a", &[("expire", "2025-12-31T23:59:59Z")]),
            image("new", "b", &[("expire", "2026-01-01T00:00:01Z")]),
            image("odd", "c", &[("expire", "tomorrow")]),
            content("a", &[]),
            content("b", &[]),
            content("c", &[]),
        ],
        &["old", "a"],
    );
}

#[test]
fn a_lease_keeps_what_it_holds_until_it_expires() {
    let holds = [
        (Kind::Content, "manifest"),
        (Kind::Ingest, "upload"),
        (Kind::Snapshot, "native/k"),
        (Kind::Image, "tmp"),
    ];
    let rest = [
        content("manifest", &[("ref.content.l.0", "layer")]),
        content("layer", &[]),
        content("target", &[]),
        ingest("upload", None, None, false),
        snapshot("native/p", None, &[]),
        snapshot("native/k", Some("native/p"), &[]),
        image("tmp", "target", &[("expire", "2020-01-01T00:00:00Z")]),
    ];
    let with = |labels: &[(&str, &str)]| {
        let mut records = vec![lease("l", &holds, labels)];
        records.extend_from_slice(&rest);
        records
    };
    check(&with(&[]), &[]);
    check(&with(&[("expire", "no time")]), &[]);
    check(
        &with(&[("expire", "2025-01-01T00:00:00+01:00")]),
        &["l", "manifest", "layer", "target", "upload", "native/p", "native/k", "tmp"],
    );
    check(&with(&[("flat", "1")]), &["layer"]);
}

#[test]
fn a_container_keeps_its_snapshot_and_not_its_image() {
    let container =
        record(Noun::Container { snapshot: Some("overlayfs/k".into()) }, "c", &[("ref.content", "x")]);
    check(
        &[
            container,
            snapshot("overlayfs/k", Some("overlayfs/p"), &[]),
            snapshot("overlayfs/p", None, &[]),
            content("x", &[]),
            content("y", &[]),
        ],
        &["y"],
    );
}

#[test]
fn roots_and_back_references_keep() {
    check(
        &[
            content("rooted", &[("root", "2020"), ("ref.content.0", "below")]),
            content("below", &[]),
            content("referrer", &[("bref.content.x", "below"), ("bref.contentious", "below")]),
            content("no", &[("bref.contentious", "below"), ("ref.contents", "below")]),
            snapshot("native/s", None, &[("bref.image/x", "app")]),
            snapshot("native/t", None, &[("bref.container", "none")]),
            snapshot("native/u", None, &[("bref.snapshot.native/x", "s")]),
            image("app", "gone", &[]),
        ],
        &["no", "native/t"],
    );
}

#[test]
fn ingests_live_while_open_or_not_expired_and_keep_what_they_stand_for() {
    check(
        &[
            ingest("fresh", Some(10), Some("shared"), false),
            ingest("stale", Some(-10), Some("other"), false),
            ingest("written", Some(-10), None, true),
            ingest("unleased", None, None, false),
            content("shared", &[]),
            content("other", &[]),
        ],
        &["stale", "unleased", "other"],
    );
}

#[test]
fn a_condition_keeps_a_snapshot_while_it_holds() {
    let used = |key: &str, at: &str| snapshot(key, None, &[("cond.value-usedat", at)]);
    check(
        &[
            image(
                "app",
                "x",
                &[("cond.snapshot.native", "usedat<1h|young"), ("cond.snapshot.native/2", "usedat<1h|old")],
            ),
            image(
                "b",
                "x",
                &[
                    ("cond.snapshot.native/3", "bogus,usedat>1h|oldest"),
                    ("cond.snapshot.native/4", "usedat=1h|never"),
                ],
            ),
            content("x", &[]),
            used("native/young", "2025-12-31T23:30:00Z"),
            used("native/old", "2025-12-31T22:30:00Z"),
            used("native/oldest", "2025-12-30T22:30:00Z"),
            used("native/never", "2025-12-31T23:00:00Z"),
        ],
        &["native/old", "native/never"],
    );
}

#[test]
fn namespaces_do_not_mix() {
    let mut other = content("x", &[]);
    other.namespace = "other".into();
    check(&[image("app", "x", &[]), other], &["x"]);
}

/// Any small set of records whose keys collide often.
fn any_record() -> impl Strategy<Value = Record> {
    let key = || prop::sample::select(vec!["a", "b", "c", "d"]);
    let noun = prop_oneof![
        3 => Just(Noun::Content),
        1 => key().prop_map(|key| Noun::Image { target: key.into() }),
        1 => (key(), any::<bool>()).prop_map(|(key, snapshot)| Noun::Lease {
            holds: vec![(if snapshot { Kind::Snapshot } else { Kind::Content }, if snapshot { format!("s/{key}") } else { key.into() })],
        }),
        2 => prop::option::of(key()).prop_map(|parent| Noun::Snapshot { parent: parent.map(|key| format!("s/{key}")) }),
        1 => Just(Noun::Sandbox),
        1 => prop::option::of(key()).prop_map(|key| Noun::Container { snapshot: key.map(|key| format!("s/{key}")) }),
    ];
    let label = prop::sample::select(vec![
        "ref.content.0",
        "ref.snapshot.s",
        "ref.image",
        "bref.content",
        "bref.image",
        "bref.snapshot.s",
        "root",
    ]);
    (noun, key(), prop::collection::btree_map(label, key(), 0..3)).prop_map(|(noun, key, labels)| {
        let labels: Vec<(&str, &str)> = labels.into_iter().collect();
        let key = if noun.kind() == Kind::Snapshot { format!("s/{key}") } else { key.to_owned() };
        record(noun, &key, &labels)
    })
}

/// Marks by asking every pair of records until nothing changes.
fn naive(records: &[Record]) -> BTreeSet<usize> {
    let has = |record: &Record, label: &str, key: &str| {
        record.labels.get(&format!("containerd.io/gc.{label}")).is_some_and(|value| value == key)
    };
    let word = |record: &Record| match record.noun.kind() {
        Kind::Content => "content",
        Kind::Image => "image",
        _ => "snapshot.s",
    };
    let plain = |record: &Record| record.key.trim_start_matches("s/").to_owned();
    let is_edge = |a: &Record, b: &Record| {
        let direct = match &a.noun {
            Noun::Image { target } => b.noun == Noun::Content && *target == b.key,
            Noun::Lease { holds } => holds.contains(&(b.noun.kind(), b.key.clone())),
            Noun::Snapshot { parent: Some(key) } | Noun::Container { snapshot: Some(key) } => {
                b.noun.kind() == Kind::Snapshot && *key == b.key
            }
            _ => false,
        };
        let labelled = a.noun.kind() != Kind::Lease
            && !matches!(b.noun.kind(), Kind::Lease | Kind::Container | Kind::Sandbox)
            && (has(a, &format!("ref.{}", word(b)), &plain(b))
                || has(a, &format!("ref.{}.0", word(b)), &plain(b)));
        let back = !matches!(a.noun.kind(), Kind::Lease | Kind::Container | Kind::Sandbox)
            && has(b, &format!("bref.{}", word(a)), &plain(a));
        direct || labelled || back
    };
    let mut kept: BTreeSet<usize> = (0..records.len())
        .filter(|at| match records[*at].noun.kind() {
            Kind::Content | Kind::Snapshot => records[*at].labels.contains_key("containerd.io/gc.root"),
            _ => true,
        })
        .collect();
    loop {
        let more: Vec<usize> = (0..records.len())
            .filter(|b| !kept.contains(b) && kept.iter().any(|a| is_edge(&records[*a], &records[*b])))
            .collect();
        if more.is_empty() {
            return (0..records.len()).filter(|at| !kept.contains(at)).collect();
        }
        kept.extend(more);
    }
}

proptest! {
    #[test]
    fn the_mark_is_the_naive_fixed_point(records in prop::collection::vec(any_record(), 0..12)) {
        let mut unique: Vec<Record> = Vec::new();
        for record in records {
            if !unique.iter().any(|other| other.noun.kind() == record.noun.kind() && other.key == record.key) {
                unique.push(record);
            }
        }
        let found: BTreeSet<usize> = garbage(&unique, now()).into_iter().collect();
        prop_assert_eq!(found, naive(&unique));
    }
}
