//! Containers as a client of containerd's container service knows them.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use model::Any;
use model::container::{Container, Runtime};
use model::filter::Filters;
use model::mask::Mask;
use spec::{Kind, Labels};

use crate::bed::{Bed, labels, refused, within};

type Change = fn(&mut Container);

fn any(value: &str) -> Any {
    Any { type_url: "types.example/T".into(), value: value.into() }
}

fn container(id: &str) -> Container {
    Container {
        id: id.to_owned(),
        labels: Labels::new(),
        image: "app".into(),
        runtime: Runtime { name: "io.containerd.runc.v2".into(), options: Some(any("o")) },
        spec: Some(any("{}")),
        snapshotter: "native".into(),
        snapshot_key: id.to_owned(),
        sandbox_id: "pod".into(),
        extensions: BTreeMap::from([("x".to_owned(), any("x"))]),
        created_at: UNIX_EPOCH,
        updated_at: UNIX_EPOCH,
    }
}

#[test]
fn a_container_lives() {
    let bed = Bed::new();
    let containers = bed.store.containers();
    within("one", |cx| {
        let made = containers.create(cx, &container("c")).unwrap();
        assert!(made.created_at > UNIX_EPOCH);
        assert_eq!(containers.get(cx, "c").unwrap(), made);
        refused(
            containers.create(cx, &container("c")),
            Kind::AlreadyExists,
            "container \"c\": already exists",
        );

        let mut wanted = container("c");
        wanted.labels = labels(&[("a", "1")]);
        wanted.extensions = BTreeMap::from([("y".to_owned(), any("y"))]);
        wanted.image = "other".into();
        let mask = Mask::new(["labels.a".to_owned(), "extensions.y".to_owned()]);
        let updated = containers.update(cx, &wanted, &mask).unwrap();
        assert_eq!(updated.extensions.keys().collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!((updated.image.as_str(), updated.labels.len()), ("app", 1));
        let updated = containers.update(cx, &wanted, &Mask::all()).unwrap();
        assert_eq!((updated.image.as_str(), updated.extensions.len()), ("other", 1));
        assert_eq!(updated.created_at, made.created_at);

        let list = |filter: &str| containers.list(cx, &Filters::parse(&[filter]).unwrap()).unwrap().len();
        assert_eq!((list("id==c"), list("image==app"), list("labels.a==1")), (1, 0, 1));
        assert_eq!(list("runtime.name~=runc"), 1);
        containers.delete(cx, "c").unwrap();
        let gone = "container \"c\" in namespace \"one\": not found";
        refused(containers.get(cx, "c"), Kind::NotFound, gone);
        refused(containers.delete(cx, "c"), Kind::NotFound, gone);
        refused(containers.update(cx, &wanted, &Mask::all()), Kind::NotFound, gone);
    });
}

#[test]
fn what_is_no_container_is_refused() {
    let bed = Bed::new();
    let containers = bed.store.containers();
    let cases: [(Change, &str); 6] = [
        (
            |c| c.id = "a/b".into(),
            "container.ID: identifier \"a/b\" must match ^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$: invalid argument",
        ),
        (|c| c.id = String::new(), "container.ID: identifier must not be empty: invalid argument"),
        (|c| c.runtime.name = String::new(), "container.Runtime.Name must be set: invalid argument"),
        (|c| c.spec = None, "container.Spec must be set: invalid argument"),
        (
            |c| c.snapshotter = String::new(),
            "container.Snapshotter must be set if container.SnapshotKey is set: invalid argument",
        ),
        (
            |c| c.extensions = BTreeMap::from([(String::new(), any(""))]),
            "container.Extension keys must not be zero-length: invalid argument",
        ),
    ];
    within("one", |cx| {
        for (change, text) in cases {
            let mut bad = container("c");
            change(&mut bad);
            refused(
                containers.create(cx, &bad),
                Kind::InvalidArgument,
                &format!("create container failed validation: {text}"),
            );
        }
        assert!(containers.list(cx, &Filters::default()).unwrap().is_empty());
        let made = containers.create(cx, &container("c")).unwrap();
        let mut bad = made.clone();
        bad.runtime.name = "other".into();
        refused(
            containers.update(cx, &bad, &Mask::all()),
            Kind::InvalidArgument,
            "container.Runtime.Name field is immutable: invalid argument",
        );
        bad = made.clone();
        bad.snapshotter = "other".into();
        refused(
            containers.update(cx, &bad, &Mask::all()),
            Kind::InvalidArgument,
            "container.Snapshotter field is immutable: invalid argument",
        );
        refused(
            containers.update(cx, &made, &Mask::new(["sandboxid".to_owned()])),
            Kind::InvalidArgument,
            "cannot update \"sandboxid\" field on \"c\": invalid argument",
        );
        assert_eq!(containers.get(cx, "c").unwrap(), made);
    });
}
