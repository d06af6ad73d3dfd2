//! Garbage collection through the traits: what is kept, what goes, and when.

use std::time::{Duration, Instant};

use model::content::Open;
use model::image::Delete;
use spec::{Kind, Labels};
use store::gc::Config;

use crate::bed::{Bed, image, labels, leased, put, refused, within};

#[test]
fn an_image_keeps_its_tree_until_it_goes() {
    let bed = Bed::new();
    let (content, images) = (bed.store.content(), bed.store.images());
    let native = bed.store.snapshotter("native").unwrap();
    within("one", |cx| {
        let layer = put(&*content, cx, b"layer", &Labels::new()).unwrap();
        let config =
            put(&*content, cx, b"config", &labels(&[("containerd.io/gc.ref.snapshot.native", "chain")]))
                .unwrap();
        let refs = [
            ("containerd.io/gc.ref.content.l.0", layer.as_str()),
            ("containerd.io/gc.ref.content.config", config.as_str()),
        ];
        let manifest = put(&*content, cx, b"manifest", &labels(&refs)).unwrap();
        let stray = put(&*content, cx, b"stray", &Labels::new()).unwrap();
        native.prepare(cx, "k", "", &Labels::new()).unwrap();
        native.commit(cx, "chain", "k", &Default::default()).unwrap();
        native.prepare(cx, "stray", "chain", &Labels::new()).unwrap();
        images.create(cx, &image("app", &manifest), None).unwrap();

        let stats = bed.store.collect().unwrap();
        assert_eq!((stats.records, stats.blobs, stats.bytes), (2, 1, 5));
        assert_eq!(stats.snapshots.get("native"), Some(&1));
        refused(content.info(cx, &stray), Kind::NotFound, &format!("content digest {stray}: not found"));
        for digest in [&layer, &config, &manifest] {
            content.info(cx, digest).unwrap();
        }
        native.stat(cx, "chain").unwrap();
        assert_eq!(bed.store.collect().unwrap().records, 0);

        images.delete(cx, "app", &Delete::default()).unwrap();
        let stats = bed.store.collect().unwrap();
        assert_eq!((stats.records, stats.blobs), (4, 3));
    });
    assert!(bed.store.check().unwrap().is_empty());
}

#[test]
fn a_lease_protects_until_it_ends() {
    let bed = Bed::new();
    let (content, leases) = (bed.store.content(), bed.store.leases());
    within("one", |cx| leases.create(cx, Some(&"l".parse().unwrap()), &Labels::new()).map(drop).unwrap());
    let digest = leased("one", "l", |cx| put(&*content, cx, b"data", &Labels::new()).unwrap());
    let open = Open { reference: "up".into(), ..Open::default() };
    leased("one", "l", |cx| content.ingest(cx, &open).unwrap().write(b"half").unwrap());
    assert_eq!(bed.store.collect().unwrap().records, 0);
    within("one", |cx| leases.delete(cx, "l").unwrap());
    let stats = bed.store.collect().unwrap();
    assert_eq!((stats.records, stats.blobs, stats.ingests), (2, 1, 1));
    within("one", |cx| {
        refused(content.info(cx, &digest), Kind::NotFound, &format!("content digest {digest}: not found"));
        refused(content.status(cx, "up"), Kind::NotFound, "reference up: not found");
    });
}

#[test]
fn an_ingest_that_is_written_is_never_collected() {
    let bed = Bed::new();
    let (content, leases) = (bed.store.content(), bed.store.leases());
    within("one", |cx| leases.create(cx, Some(&"l".parse().unwrap()), &Labels::new()).map(drop).unwrap());
    let open = Open { reference: "up".into(), ..Open::default() };
    let mut ingest = leased("one", "l", |cx| content.ingest(cx, &open).unwrap());
    within("one", |cx| leases.delete(cx, "l").unwrap());
    bed.store.collect().unwrap();
    ingest.write(b"data").unwrap();
    within("one", |cx| ingest.commit(cx, &Default::default()).map(drop).unwrap());
    bed.assert_whole();
}

#[test]
fn an_ingest_without_a_lease_has_a_day() {
    let bed = Bed::new();
    let content = bed.store.content();
    within("one", |cx| {
        content.ingest(cx, &Open { reference: "up".into(), ..Open::default() }).unwrap();
        bed.store.collect().unwrap();
        content.status(cx, "up").unwrap();
    });
}

#[test]
fn what_a_crash_left_without_a_record_goes() {
    let bed = Bed::new();
    let content = bed.store.content();
    let kept =
        within("one", |cx| put(&*content, cx, b"kept", &labels(&[("containerd.io/gc.root", "1")])).unwrap());
    let stray = crate::bed::sha256(b"stray");
    std::fs::write(bed.blob_path(&stray), b"stray").unwrap();
    std::fs::create_dir(bed.content_root().join("ingest").join("ab".repeat(32))).unwrap();
    std::fs::write(bed.content_root().join("trash/7"), b"dying").unwrap();
    assert_eq!(bed.store.check().unwrap().len(), 2);
    drop(content);
    let bed = bed.reopened();
    let stats = bed.store.collect().unwrap();
    assert_eq!((stats.blobs, stats.ingests), (1, 1));
    assert!(!bed.blob_path(&stray).exists() && bed.blob_path(&kept).exists());
    assert_eq!(std::fs::read_dir(bed.content_root().join("trash")).unwrap().count(), 0);
    assert!(bed.store.check().unwrap().is_empty());
}

#[test]
fn the_background_collects_after_deletions_and_on_request() {
    let bed = Bed::new();
    let (content, images) = (bed.store.content(), bed.store.images());
    let config = Config { startup_delay: Duration::ZERO, ..Config::default() };
    bed.store.start_gc(config).unwrap();
    bed.store.start_gc(config).unwrap();
    within("one", |cx| {
        bed.store.leases().create(cx, Some(&"l".parse().unwrap()), &Labels::new()).unwrap();
    });
    leased("one", "l", |cx| {
        let digest = put(&*content, cx, b"data", &Labels::new()).unwrap();
        images.create(cx, &image("app", &digest), None).unwrap();
        bed.store.leases().delete(cx, "l").unwrap();
        images.delete(cx, "app", &Delete::default()).unwrap();
        // As a `sync` deletion does.
        bed.store.wait_for_gc(cx).unwrap();
        assert!(!bed.blob_path(&digest).exists());
    });
    within("one", |cx| {
        let digest = put(&*content, cx, b"more", &labels(&[("containerd.io/gc.root", "1")])).unwrap();
        content.delete(cx, &digest).unwrap();
        testkit::wait::eventually(Duration::from_secs(10), "the blob to be collected", || {
            (!bed.blob_path(&digest).exists()).then_some(())
        });
    });
    let start = Instant::now();
    drop(bed);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn waiting_for_a_collection_ends_with_the_request() {
    let bed = Bed::new();
    let config = Config { schedule_delay: Duration::from_secs(3600), ..Config::default() };
    bed.store.start_gc(config).unwrap();
    let ctx = crate::bed::ctx("one").with_deadline(Instant::now() + Duration::from_millis(50));
    let error = ctx.on_this_thread(|cx| bed.store.wait_for_gc(cx)).unwrap_err();
    assert_eq!(error.kind(), Kind::DeadlineExceeded);
}
