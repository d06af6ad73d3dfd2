//! The records are lost, or their database is damaged, while everything else is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::container::{Container, Runtime};
use model::event::Exchange;
use spec::{Digest, Kind, Labels};
use store::recover::{Bundle, Recovered};
use store::{Sharing, Store};

use crate::bed::{Bed, image, labels, leased, put, refused, sha256, within};

const DATABASE: &str = "io.containerd.metadata.v1.bolt";

/// A closed store with a blob, a committed snapshot and one on top of it, which nothing but their records keeps.
struct Closed {
    dir: tempfile::TempDir,
    blob: Digest,
}

impl Closed {
    fn new() -> Self {
        let bed = Bed::new();
        let (native, content) = (bed.store.snapshotter("native").unwrap(), bed.store.content());
        within("one", |cx| {
            bed.store.leases().create(cx, Some(&"l".parse().unwrap()), &Labels::new()).unwrap()
        });
        let blob = leased("one", "l", |cx| {
            native.prepare(cx, "k", "", &Labels::new()).unwrap();
            native.commit(cx, "chain", "k", &Default::default()).unwrap();
            native.prepare(cx, "top", "chain", &Labels::new()).unwrap();
            let blob = put(&*content, cx, b"layer", &Labels::new()).unwrap();
            bed.store.images().create(cx, &image("app", &blob), None).unwrap();
            blob
        });
        Self { dir: bed.dir, blob }
    }

    fn meta(&self) -> PathBuf {
        self.dir.path().join(DATABASE)
    }

    fn open(&self) -> Arc<Store> {
        crate::bed::open(self.dir.path(), Sharing::Shared, &Exchange::default()).unwrap()
    }

    fn remove_copy(&self) {
        remove_copy(&self.meta());
    }

    /// Everything is recorded and there, and stays after a collection.
    #[track_caller]
    fn assert_whole(&self, store: &Store) {
        store.collect().unwrap();
        assert!(store.check().unwrap().is_empty());
        within("one", |cx| {
            store.images().get(cx, "app").unwrap();
            store.content().info(cx, &self.blob).unwrap();
            store.snapshotter("native").unwrap().stat(cx, "top").unwrap();
        });
    }
}

fn remove_copy(meta: &Path) {
    for entry in fs::read_dir(meta).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("meta.copy") || name.starts_with("meta.journal.") {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn what_an_empty_database_knows_nothing_of_is_kept() {
    let closed = Closed::new();
    let (old, meta) = (closed.blob.clone(), closed.meta());
    closed.remove_copy();
    fs::remove_file(meta.join("meta.redb")).unwrap();
    let store = closed.open();

    let told = store.kept().unwrap();
    assert!(told.contains("1 blobs and 2 snapshots"), "{told}");
    assert!(store.lost().unwrap().ends_with("meta.redb is missing"));
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
    let store = closed.open();
    assert_eq!(store.collect().unwrap().blobs, 0);
    drop(store);
    fs::remove_file(meta.join("kept.json")).unwrap();
    let store = closed.open();
    assert_eq!((store.kept(), store.lost()), (None, None));
    let stats = store.collect().unwrap();
    assert_eq!((stats.blobs, stats.snapshots.get("native")), (1, Some(&2)));
}

#[test]
fn an_empty_file_is_no_reason_to_delete() {
    let closed = Closed::new();
    closed.remove_copy();
    fs::write(closed.meta().join("meta.redb"), b"").unwrap();
    let store = closed.open();
    assert!(store.lost().unwrap().ends_with("meta.redb is empty"));
    let stats = store.collect().unwrap();
    assert_eq!((stats.blobs, stats.snapshots.get("native")), (0, Some(&0)));
    let path =
        closed.dir.path().join("io.containerd.content.v1.content/blobs/sha256").join(closed.blob.hex());
    assert_eq!(fs::read(path).unwrap(), b"layer");
}

#[test]
fn a_store_that_never_had_records_is_new() {
    let bed = Bed::new();
    assert_eq!((bed.store.kept(), bed.store.lost(), bed.store.restored()), (None, None, None));
}

#[test]
fn a_damaged_database_is_made_again_without_loss() {
    let closed = Closed::new();
    let path = closed.meta().join("meta.redb");
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    for page in bad.chunks_mut(4096).skip(1) {
        page[1000] ^= 4;
    }
    for (damage, word) in [(bad, "is damaged"), (Vec::new(), "is empty")] {
        fs::write(&path, damage).unwrap();
        let store = closed.open();
        let told = store.restored().unwrap();
        assert!(told.contains(word) && told.contains("second copy"), "{told}");
        assert_eq!(store.lost(), None);
        closed.assert_whole(&store);
    }
    // What was restored is told once.
    assert_eq!(closed.open().restored(), None);
}

#[test]
fn what_a_short_copy_lost_is_kept_from_the_collector() {
    let closed = Closed::new();
    let meta = closed.meta();
    let journal = fs::read_dir(&meta).unwrap().map(|entry| entry.unwrap().path());
    let journal = journal.filter(|path| path.to_str().unwrap().contains("meta.journal.")).max().unwrap();
    // A power cut took the end of the journal, with the blob's record, and damaged the database.
    let bytes = fs::read(&journal).unwrap();
    let digest = closed.blob.as_str().as_bytes();
    let at = bytes.windows(digest.len()).position(|part| part == digest).unwrap();
    fs::write(&journal, &bytes[..at]).unwrap();
    fs::write(meta.join("meta.redb"), b"").unwrap();
    let store = closed.open();
    assert!(store.restored().is_some());
    let told = store.kept().unwrap();
    assert!(told.contains("1 blobs and 0 snapshots"), "{told}");
    assert_eq!(store.collect().unwrap().blobs, 0);
    within("one", |cx| {
        store.snapshotter("native").unwrap().stat(cx, "top").unwrap();
        let refs = labels(&[("containerd.io/gc.root", "1")]);
        assert_eq!(put(&*store.content(), cx, b"layer", &refs).unwrap(), sha256(b"layer"));
    });
}

#[test]
fn a_snapshot_that_its_driver_lost_can_be_made_again() {
    let closed = Closed::new();
    let native = closed.dir.path().join("io.containerd.snapshotter.v1.native");
    fs::remove_dir_all(&native).unwrap();
    let store = closed.open();
    let view = store.snapshotter("native").unwrap();
    within("one", |cx| {
        let lost = store.lost_snapshots(cx, "native").unwrap();
        assert_eq!(lost.len(), 2);
        assert!(lost.iter().all(|key| key.starts_with("one/")), "{lost:?}");
        assert_eq!(view.stat(cx, "chain").unwrap_err().kind(), Kind::NotFound);
        // As an unpacker does: a target that is lost is no target that exists.
        let target = labels(&[("containerd.io/snapshot.ref", "chain")]);
        view.prepare(cx, "extract", "", &target).unwrap();
        view.commit(cx, "chain", "extract", &Default::default()).unwrap();
        view.prepare(cx, "top", "chain", &Labels::new()).unwrap();
        assert!(store.lost_snapshots(cx, "native").unwrap().is_empty());
        assert_eq!(view.stat(cx, "top").unwrap().parent, "chain");
        assert_eq!(store.lost_snapshots(cx, "absent").unwrap(), Vec::<String>::new());
    });
    assert!(store.check().unwrap().is_empty());
}

#[test]
fn a_commit_over_a_lost_snapshot_replaces_it() {
    let closed = Closed::new();
    let store = closed.open();
    let view = store.snapshotter("native").unwrap();
    within("one", |cx| view.prepare(cx, "extract", "", &Labels::new()).map(drop).unwrap());
    drop((view, store));
    // The directory of `chain` and of what stands on it is lost, with its record file.
    let root = closed.dir.path().join("io.containerd.snapshotter.v1.native");
    fs::remove_file(root.join("metadata.redb")).unwrap();
    for id in ["1", "2"] {
        fs::remove_dir_all(root.join("snapshots").join(id)).unwrap();
    }
    let store = closed.open();
    let view = store.snapshotter("native").unwrap();
    within("one", |cx| {
        assert_eq!(store.lost_snapshots(cx, "native").unwrap().len(), 2);
        view.commit(cx, "chain", "extract", &Default::default()).unwrap();
        assert!(view.stat(cx, "chain").is_ok());
    });
}

fn bundle(id: &str) -> Bundle {
    let container = Container {
        id: id.to_owned(),
        labels: Labels::new(),
        image: "app".into(),
        runtime: Runtime { name: "io.containerd.runc.v2".into(), options: None },
        spec: Some(model::Any { type_url: "types.example/Spec".into(), value: b"{}".to_vec() }),
        snapshotter: String::new(),
        snapshot_key: String::new(),
        sandbox_id: String::new(),
        extensions: Default::default(),
        created_at: std::time::UNIX_EPOCH,
        updated_at: std::time::UNIX_EPOCH,
    };
    Bundle { namespace: "one".parse().unwrap(), container }
}

#[test]
fn recovery_makes_lost_records_again() {
    let closed = Closed::new();
    closed.remove_copy();
    fs::write(closed.meta().join("meta.redb"), b"").unwrap();
    let store = closed.open();
    let done = store.recover(&[bundle("top"), bundle("-odd")]).unwrap();
    assert_eq!((done.snapshots, done.blobs, done.containers), (2, 1, vec!["one/top".to_owned()]));
    assert_eq!(done.left.len(), 1, "{:?}", done.left);
    assert!(!closed.meta().join("kept.json").exists());
    let done = store.recover(&[bundle("top")]).unwrap();
    assert_eq!(done, Recovered::default());
    drop(store);
    let store = closed.open();
    assert_eq!((store.kept(), store.lost()), (None, None));
    store.collect().unwrap();
    assert!(store.check().unwrap().is_empty());
    within("one", |cx| {
        store.content().info(cx, &closed.blob).unwrap();
        let view = store.snapshotter("native").unwrap();
        assert_eq!(view.stat(cx, "top").unwrap().parent, "chain");
        let top = store.containers().get(cx, "top").unwrap();
        assert_eq!((top.snapshotter.as_str(), top.snapshot_key.as_str()), ("native", "top"));
        // The lease is the operator's to delete; the container keeps its snapshot without it.
        store.leases().delete(cx, store::recover::LEASE).unwrap();
        store.collect().unwrap();
        view.stat(cx, "top").unwrap();
        assert!(store.content().info(cx, &closed.blob).is_err());
    });
}

#[test]
fn recovery_drops_what_is_damaged_or_lost() {
    let closed = Closed::new();
    let native = closed.dir.path().join("io.containerd.snapshotter.v1.native");
    fs::remove_dir_all(&native).unwrap();
    let path =
        closed.dir.path().join("io.containerd.content.v1.content/blobs/sha256").join(closed.blob.hex());
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"lAyer").unwrap();
    let store = closed.open();
    let done = store.recover(&[]).unwrap();
    assert_eq!(done.lost_snapshots["native"].len(), 2);
    assert_eq!(done.lost_blobs, [closed.blob.to_string()]);
    assert!(!path.exists());
    within("one", |cx| {
        assert!(store.lost_snapshots(cx, "native").unwrap().is_empty());
        // The record stays, with its labels, for the bytes that a pull brings.
        assert_eq!(put(&*store.content(), cx, b"layer", &Labels::new()).unwrap(), closed.blob);
    });
    assert!(store.check().unwrap().is_empty());
}
