//! The records are lost while everything else is there.

use std::fs;

use spec::{Kind, Labels};

use crate::bed::{Bed, put, refused, within};

#[test]
fn what_an_empty_database_knows_nothing_of_is_kept() {
    let bed = Bed::new();
    let (native, content) = (bed.store.snapshotter("native").unwrap(), bed.store.content());
    let old = within("one", |cx| {
        native.prepare(cx, "k", "", &Labels::new()).unwrap();
        native.commit(cx, "chain", "k", &Default::default()).unwrap();
        native.prepare(cx, "top", "chain", &Labels::new()).unwrap();
        put(&*content, cx, b"layer", &Labels::new()).unwrap()
    });
    drop((native, content));
    let meta = bed.dir.path().join("io.containerd.metadata.v1.bolt");
    let Bed { store, dir, events, .. } = bed;
    drop(store);
    fs::remove_file(meta.join("meta.redb")).unwrap();
    let store = crate::bed::open(dir.path(), store::Sharing::Shared, &events).unwrap();

    let told = store.kept().unwrap();
    assert!(told.contains("1 blobs and 2 snapshots"), "{told}");
    let stats = store.collect().unwrap();
    assert_eq!((stats.blobs, stats.snapshots.get("native")), (0, Some(&0)));
    assert!(store.check().unwrap().is_empty());
    let (native, content) = (store.snapshotter("native").unwrap(), store.content());
    within("one", |cx| {
        refused(native.stat(cx, "chain"), Kind::NotFound, "snapshot chain does not exist: not found");
        // The same keys, numbered from the beginning, would meet what the driver still has.
        native.prepare(cx, "k", "", &Labels::new()).unwrap();
        native.commit(cx, "chain", "k", &Default::default()).unwrap();
        assert_eq!(put(&*content, cx, b"layer", &Labels::new()).unwrap(), old);
        put(&*content, cx, b"new", &Labels::new()).unwrap();
    });
    let stats = store.collect().unwrap();
    assert_eq!((stats.blobs, stats.bytes, stats.snapshots.get("native")), (1, 3, Some(&1)));

    // A restart does not forget; the operator who removes the list does.
    drop((native, content, store));
    let store = crate::bed::open(dir.path(), store::Sharing::Shared, &events).unwrap();
    assert_eq!(store.collect().unwrap().blobs, 0);
    drop(store);
    fs::remove_file(meta.join("kept.json")).unwrap();
    let store = crate::bed::open(dir.path(), store::Sharing::Shared, &events).unwrap();
    assert_eq!(store.kept(), None);
    let stats = store.collect().unwrap();
    assert_eq!((stats.blobs, stats.snapshots.get("native")), (1, Some(&2)));
}
