//! Namespaces as a client of containerd's namespace service knows them.

use model::image::Delete;
use model::mask::Mask;
use spec::{Kind, Labels};

use crate::bed::{Bed, image, labels, put, refused, sha256, within};

#[test]
fn a_namespace_lives() {
    let bed = Bed::new();
    let namespaces = bed.store.namespaces();
    within("any", |cx| {
        namespaces.create(cx, "test", &labels(&[("a", "1"), ("b", "2")])).unwrap();
        refused(
            namespaces.create(cx, "test", &Labels::new()),
            Kind::AlreadyExists,
            "namespace \"test\": already exists",
        );
        let error = namespaces.create(cx, "a/b", &Labels::new()).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(namespaces.labels(cx, "none").unwrap().is_empty());

        let mask = Mask::new(["labels.a".to_owned(), "labels.c".to_owned()]);
        namespaces.update(cx, "test", &labels(&[("c", "3"), ("d", "4")]), &mask).unwrap();
        assert_eq!(namespaces.labels(cx, "test").unwrap(), labels(&[("b", "2"), ("c", "3")]));
        namespaces.update(cx, "test", &labels(&[("d", "4")]), &Mask::all()).unwrap();
        assert_eq!(namespaces.list(cx).unwrap(), [("test".to_owned(), labels(&[("d", "4")]))]);
        refused(
            namespaces.update(cx, "test", &Labels::new(), &Mask::new(["name".to_owned()])),
            Kind::InvalidArgument,
            "cannot update \"name\" field: invalid argument",
        );
        namespaces.delete(cx, "test").unwrap();
        refused(namespaces.delete(cx, "test"), Kind::NotFound, "namespace \"test\": not found");
    });
}

#[test]
fn only_an_empty_namespace_is_deleted() {
    let bed = Bed::new();
    let namespaces = bed.store.namespaces();
    let content = bed.store.content();
    let native = bed.store.snapshotter("native").unwrap();
    within("test", |cx| {
        // The first object makes it.
        let digest = put(&*content, cx, b"data", &Labels::new()).unwrap();
        assert_eq!(namespaces.list(cx).unwrap().len(), 1);
        bed.store.images().create(cx, &image("app", &sha256(b"data")), None).unwrap();
        native.prepare(cx, "k", "", &Labels::new()).unwrap();
        refused(
            namespaces.delete(cx, "test"),
            Kind::FailedPrecondition,
            "namespace \"test\" must be empty, but it still has images, blobs, snapshots on \"native\" snapshotter: failed precondition",
        );
        bed.store.images().delete(cx, "app", &Delete::default()).unwrap();
        content.delete(cx, &digest).unwrap();
        refused(
            namespaces.delete(cx, "test"),
            Kind::FailedPrecondition,
            "namespace \"test\" must be empty, but it still has snapshots on \"native\" snapshotter: failed precondition",
        );
        native.remove(cx, "k").unwrap();
        // Leases and ingests do not count.
        bed.store.leases().create(cx, None, &Labels::new()).unwrap();
        content.ingest(cx, &model::content::Open { reference: "up".into(), ..Default::default() }).unwrap();
        namespaces.delete(cx, "test").unwrap();
        assert!(namespaces.list(cx).unwrap().is_empty());
    });
    bed.store.collect().unwrap();
    assert!(bed.store.check().unwrap().is_empty());
}

#[test]
fn a_root_has_one_store_and_go_s_database_stays() {
    let bed = Bed::new();
    let go = bed.dir.path().join("io.containerd.metadata.v1.bolt/meta.db");
    std::fs::write(&go, b"bolt's").unwrap();
    let second = store::Store::open(store::Config {
        root: bed.dir.path().to_owned(),
        sharing: store::Sharing::Shared,
        snapshotters: Default::default(),
        events: Default::default(),
    });
    let error = second.map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(
        error.text().ends_with(
            "meta.redb is in use: another containerd has this root directory: failed precondition"
        )
    );
    let bed = bed.reopened();
    within("one", |cx| bed.store.namespaces().create(cx, "one", &Labels::new()).unwrap());
    assert_eq!(std::fs::read(&go).unwrap(), b"bolt's");
}
