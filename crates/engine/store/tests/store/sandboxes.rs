//! Sandboxes as a client of containerd's sandbox store knows them, and pods, which are made and go as one.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use model::Any;
use model::container::{Container, Runtime};
use model::filter::Filters;
use model::mask::Mask;
use model::sandbox::Sandbox;
use spec::{Kind, Labels};

use crate::bed::{Bed, labels, put, refused, within};

fn any(value: &str) -> Any {
    Any { type_url: "types.example/T".into(), value: value.into() }
}

fn sandbox(id: &str) -> Sandbox {
    Sandbox {
        id: id.to_owned(),
        runtime: Runtime { name: "io.containerd.runc.v2".into(), options: Some(any("o")) },
        spec: Some(any("{}")),
        sandboxer: "podsandbox".into(),
        labels: labels(&[("a", "1")]),
        extensions: BTreeMap::from([("x".to_owned(), any("x"))]),
        created_at: UNIX_EPOCH,
        updated_at: UNIX_EPOCH,
    }
}

fn container(id: &str) -> Container {
    Container {
        id: id.to_owned(),
        labels: Labels::new(),
        image: String::new(),
        runtime: Runtime { name: "io.containerd.runc.v2".into(), options: None },
        spec: Some(any("{}")),
        snapshotter: String::new(),
        snapshot_key: String::new(),
        sandbox_id: String::new(),
        extensions: BTreeMap::new(),
        created_at: UNIX_EPOCH,
        updated_at: UNIX_EPOCH,
    }
}

#[test]
fn a_sandbox_lives() {
    let bed = Bed::new();
    let sandboxes = bed.store.sandboxes();
    within("one", |cx| {
        let made = sandboxes.create(cx, &sandbox("s")).unwrap();
        assert!(made.created_at > UNIX_EPOCH);
        assert_eq!(sandboxes.get(cx, "s").unwrap(), made);
        refused(sandboxes.create(cx, &sandbox("s")), Kind::AlreadyExists, "sandbox \"s\": already exists");
        let mut wanted = sandbox("s");
        wanted.labels = labels(&[("b", "2")]);
        wanted.extensions = BTreeMap::from([("y".to_owned(), any("y"))]);
        let mask = Mask::new(["labels.b".to_owned(), "extensions.y".to_owned()]);
        let updated = sandboxes.update(cx, &wanted, &mask).unwrap();
        assert_eq!(updated.labels, labels(&[("a", "1"), ("b", "2")]));
        assert_eq!(updated.extensions.keys().collect::<Vec<_>>(), ["x", "y"]);
        let updated = sandboxes.update(cx, &wanted, &Mask::all()).unwrap();
        assert_eq!((updated.labels.len(), updated.extensions.len()), (1, 1));
        assert_eq!(updated.created_at, made.created_at);
        let filters = Filters::parse(&["labels.b==2"]).unwrap();
        assert_eq!(sandboxes.list(cx, &filters).unwrap().len(), 1);
        sandboxes.delete(cx, "s").unwrap();
        refused(sandboxes.delete(cx, "s"), Kind::NotFound, "sandbox \"s\": not found");
        refused(sandboxes.get(cx, "s"), Kind::NotFound, "sandbox \"s\": not found");
    });
    within("two", |cx| assert!(sandboxes.list(cx, &Filters::default()).unwrap().is_empty()));
}

#[test]
fn an_update_that_must_not_be_changes_nothing() {
    let bed = Bed::new();
    let sandboxes = bed.store.sandboxes();
    within("one", |cx| {
        let made = sandboxes.create(cx, &sandbox("s")).unwrap();
        let mut wanted = sandbox("s");
        wanted.runtime.name = "other".into();
        refused(
            sandboxes.update(cx, &wanted, &Mask::all()),
            Kind::InvalidArgument,
            "sandbox.Runtime.Name field is immutable: invalid argument",
        );
        refused(
            sandboxes.update(cx, &wanted, &Mask::new(["sandboxer".to_owned()])),
            Kind::InvalidArgument,
            "cannot update \"sandboxer\" field on sandbox \"s\": invalid argument",
        );
        assert_eq!(sandboxes.get(cx, "s").unwrap(), made);
        assert_eq!(sandboxes.create(cx, &sandbox("-")).unwrap_err().kind(), Kind::InvalidArgument);
    });
}

#[test]
fn a_pod_is_made_and_goes_as_one() {
    let bed = Bed::new();
    let sandboxes = bed.store.sandboxes();
    let containers = bed.store.containers();
    let leases = bed.store.leases();
    within("one", |cx| {
        let count = || {
            let of = Filters::default();
            let (a, b) = (sandboxes.list(cx, &of).unwrap().len(), containers.list(cx, &of).unwrap().len());
            (a, b, leases.list(cx, &of).unwrap().len())
        };
        sandboxes.create_pod(cx, &sandbox("p"), &container("p")).unwrap();
        assert_eq!(count(), (1, 1, 1));
        // The container's id is taken: neither the sandbox nor the lease of the second pod may stay.
        containers.create(cx, &container("q")).unwrap();
        let refused = sandboxes.create_pod(cx, &sandbox("q"), &container("q")).unwrap_err();
        assert_eq!(refused.kind(), Kind::AlreadyExists);
        assert_eq!(count(), (1, 2, 1));
        sandboxes.delete_pod(cx, "p").unwrap();
        sandboxes.delete_pod(cx, "p").unwrap();
        assert_eq!(count(), (0, 1, 0));
    });
}

#[test]
fn collection_keeps_what_a_sandbox_refers_to() {
    let bed = Bed::new();
    let (content, sandboxes) = (bed.store.content(), bed.store.sandboxes());
    let native = bed.store.snapshotter("native").unwrap();
    within("one", |cx| {
        let digest = put(&*content, cx, b"state", &Labels::new()).unwrap();
        native.prepare(cx, "k", "", &Labels::new()).unwrap();
        let mut pod = sandbox("s");
        pod.labels = labels(&[
            ("containerd.io/gc.ref.content.state", digest.as_str()),
            ("containerd.io/gc.ref.snapshot.native", "k"),
        ]);
        sandboxes.create(cx, &pod).unwrap();
        assert_eq!(bed.store.collect().unwrap().records, 0);
        content.info(cx, &digest).unwrap();
        native.stat(cx, "k").unwrap();
        // A reference that an update takes away holds no longer.
        pod.labels.remove("containerd.io/gc.ref.snapshot.native");
        sandboxes.update(cx, &pod, &Mask::new(["labels".to_owned()])).unwrap();
        assert_eq!(bed.store.collect().unwrap().records, 1);
        sandboxes.delete(cx, "s").unwrap();
        assert_eq!(bed.store.collect().unwrap().records, 1);
    });
    assert!(bed.store.check().unwrap().is_empty());
}
