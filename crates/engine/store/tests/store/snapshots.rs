//! The namespaces' view of a driver, here of the native one.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use model::filter::Filters;
use model::mask::Mask;
use model::snapshot::{Commit, Info, Kind as SnapshotKind, Mount, Snapshotter, Usage};
use model::{Cx, Result};
use spec::{Kind, Labels};

use crate::bed::{Bed, labels, leased, refused, within};

fn none() -> Labels {
    Labels::new()
}

fn source(mounts: &[Mount]) -> &Path {
    assert_eq!(mounts.len(), 1);
    Path::new(&mounts[0].source)
}

#[test]
fn a_snapshot_lives() {
    let bed = Bed::new();
    let native = bed.store.snapshotter("native").unwrap();
    within("one", |cx| {
        let mounts = native.prepare(cx, "k", "", &labels(&[("mine", "1")])).unwrap();
        fs::write(source(&mounts).join("file"), b"x").unwrap();
        assert_eq!(native.mounts(cx, "k").unwrap(), mounts);
        let info = native.stat(cx, "k").unwrap();
        assert_eq!((info.kind, info.name.as_str(), info.parent.as_str()), (SnapshotKind::Active, "k", ""));
        assert_eq!(info.labels, labels(&[("mine", "1")]));
        refused(native.prepare(cx, "k", "", &none()), Kind::AlreadyExists, "snapshot \"k\": already exists");

        native.commit(cx, "base", "k", &Commit { labels: labels(&[("l", "1")]), parent: None }).unwrap();
        refused(native.stat(cx, "k"), Kind::NotFound, "snapshot k does not exist: not found");
        assert_eq!(native.stat(cx, "base").unwrap().kind, SnapshotKind::Committed);
        assert!(native.usage(cx, "base").unwrap().inodes >= 2);
        let mounts = native.prepare(cx, "top", "base", &none()).unwrap();
        assert_eq!(fs::read(source(&mounts).join("file")).unwrap(), b"x");
        native.view(cx, "look", "base", &none()).unwrap();
        assert_eq!(native.stat(cx, "look").unwrap().kind, SnapshotKind::View);
        assert_eq!(native.stat(cx, "top").unwrap().parent, "base");

        refused(
            native.remove(cx, "base"),
            Kind::FailedPrecondition,
            "cannot remove snapshot with child: failed precondition",
        );
        refused(
            native.commit(cx, "base", "top", &Commit::default()),
            Kind::AlreadyExists,
            "snapshot \"base\": already exists",
        );
        assert_eq!(native.stat(cx, "top").unwrap().kind, SnapshotKind::Active);
        native.remove(cx, "top").unwrap();
        native.remove(cx, "look").unwrap();
        native.remove(cx, "base").unwrap();
        refused(native.remove(cx, "base"), Kind::NotFound, "snapshot base does not exist: not found");
        assert!(native.list(cx, &Filters::default()).unwrap().is_empty());
    });
    bed.store.collect().unwrap();
    assert!(bed.store.check().unwrap().is_empty());
}

#[test]
fn refusals_are_containerds() {
    let bed = Bed::new();
    refused(
        bed.store.snapshotter("zfs").map(drop),
        Kind::InvalidArgument,
        "snapshotter not loaded: zfs: invalid argument",
    );
    let native = bed.store.snapshotter("native").unwrap();
    within("one", |cx| {
        refused(
            native.prepare(cx, "k", "none", &none()),
            Kind::NotFound,
            "parent snapshot none does not exist: not found",
        );
        refused(native.mounts(cx, "none"), Kind::NotFound, "snapshot none does not exist: not found");
        refused(native.usage(cx, "none"), Kind::NotFound, "snapshot none does not exist: not found");
        refused(
            native.commit(cx, "a", "none", &Commit::default()),
            Kind::NotFound,
            "snapshot none does not exist: not found",
        );
        native.prepare(cx, "k", "", &none()).unwrap();
        let error = native.prepare(cx, "k2", "k", &none()).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
        refused(
            native.update(cx, "k", &none(), &Mask::new(["parent".to_owned()])),
            Kind::InvalidArgument,
            "cannot update \"parent\" field on snapshot \"k\": invalid argument",
        );
        assert_eq!(native.list(cx, &Filters::default()).unwrap().len(), 1);
    });
    // What the driver refused has left nothing there.
    bed.store.collect().unwrap();
    within("one", |cx| assert!(native.list(cx, &Filters::default()).unwrap().is_empty()));
    assert!(bed.store.check().unwrap().is_empty());
}

#[test]
fn namespaces_have_keys_of_their_own() {
    let bed = Bed::new();
    let native = bed.store.snapshotter("native").unwrap();
    let sources = ["one", "two"]
        .map(|name| within(name, |cx| source(&native.prepare(cx, "k", "", &none()).unwrap()).to_owned()));
    assert_ne!(sources[0], sources[1]);
    within("two", |cx| native.remove(cx, "k").unwrap());
    within("one", |cx| assert_eq!(native.list(cx, &Filters::default()).unwrap().len(), 1));
}

#[test]
fn labels_pass_down_only_when_they_are_the_drivers() {
    let bed = Bed::new();
    let native = bed.store.snapshotter("native").unwrap();
    within("one", |cx| {
        let all = labels(&[("mine", "1"), ("containerd.io/snapshot/x", "2"), ("containerd.io/gc.root", "3")]);
        native.prepare(cx, "k", "", &all).unwrap();
        assert_eq!(native.stat(cx, "k").unwrap().labels, all);
        let mask = Mask::new(["labels.mine".to_owned(), "labels.containerd.io/snapshot/x".to_owned()]);
        let info = native.update(cx, "k", &labels(&[("mine", "4")]), &mask).unwrap();
        assert_eq!(info.labels, labels(&[("mine", "4"), ("containerd.io/gc.root", "3")]));
        let list = |filter: &str| native.list(cx, &Filters::parse(&[filter]).unwrap()).unwrap().len();
        assert_eq!((list("kind==active"), list("kind==committed"), list("labels.mine==4")), (1, 0, 1));
        assert_eq!((list("name==k,parent==\"\""), list("parent==x")), (1, 0));
    });
}

#[test]
fn a_known_target_is_leased_and_told() {
    let bed = Bed::new();
    let native = bed.store.snapshotter("native").unwrap();
    within("one", |cx| {
        native.prepare(cx, "k", "", &none()).unwrap();
        native.commit(cx, "chain", "k", &Commit::default()).unwrap();
        bed.store.leases().create(cx, Some(&"l".parse().unwrap()), &none()).unwrap();
    });
    leased("one", "l", |cx| {
        let wanted = labels(&[("containerd.io/snapshot.ref", "chain")]);
        refused(
            native.prepare(cx, "extract", "", &wanted),
            Kind::AlreadyExists,
            "target snapshot \"chain\": already exists",
        );
        assert_eq!(bed.store.leases().resources(cx, "l").unwrap()[0].id, "chain");
        let other = labels(&[("containerd.io/snapshot.ref", "other")]);
        native.prepare(cx, "extract", "", &other).unwrap();
    });
}

#[test]
fn a_driver_that_cannot_rebase_is_not_asked_to() {
    let bed = Bed::new();
    let native = bed.store.snapshotter("native").unwrap();
    if native.capabilities().contains(&model::snapshot::REBASE) {
        return;
    }
    within("one", |cx| {
        native.prepare(cx, "k", "", &none()).unwrap();
        native.commit(cx, "base", "k", &Commit::default()).unwrap();
        native.prepare(cx, "k", "", &none()).unwrap();
        let commit = Commit { parent: Some("base".into()), ..Commit::default() };
        let text = "snapshotter \"native\" cannot rebase a snapshot: not implemented";
        refused(native.commit(cx, "top", "k", &commit), Kind::Unimplemented, text);
    });
}

#[test]
fn a_driver_that_can_rebase_puts_a_parent_below() {
    testkit::needs!(root, overlayfs);
    let dir = testkit::place::temp();
    let overlay = snapshot::Overlay::open(snapshot::OverlayConfig {
        root: dir.path().join("overlay"),
        ..snapshot::OverlayConfig::default()
    });
    let Ok(overlay) = overlay else {
        println!("SKIP a_driver_that_can_rebase_puts_a_parent_below: no overlay on this file system");
        return;
    };
    let overlay: std::sync::Arc<dyn model::snapshot::Snapshotter> = std::sync::Arc::new(overlay);
    let store = store::Store::open(store::Config {
        root: dir.path().to_owned(),
        sharing: store::Sharing::Shared,
        snapshotters: [("overlayfs".to_owned(), overlay)].into(),
        events: Default::default(),
    })
    .unwrap();
    let view = store.snapshotter("overlayfs").unwrap();
    within("one", |cx| {
        view.prepare(cx, "a", "", &none()).unwrap();
        view.prepare(cx, "b", "", &none()).unwrap();
        view.commit(cx, "base", "a", &Commit::default()).unwrap();
        view.commit(cx, "top", "b", &Commit { parent: Some("base".into()), ..Commit::default() }).unwrap();
        assert_eq!(view.stat(cx, "top").unwrap().parent, "base");
        let child = Kind::FailedPrecondition;
        refused(view.remove(cx, "base"), child, "cannot remove snapshot with child: failed precondition");
        let mounts = view.prepare(cx, "c", "top", &none()).unwrap();
        let lower = mounts[0].options.iter().find(|option| option.starts_with("lowerdir=")).unwrap();
        assert_eq!(lower.split(':').count(), 2, "{lower}");
        view.remove(cx, "c").unwrap();
        view.remove(cx, "top").unwrap();
        view.remove(cx, "base").unwrap();
    });
    store.collect().unwrap();
    assert!(store.check().unwrap().is_empty());
}

/// The native driver behind a remote one's manners: what it is asked for by reference it has had all along.
struct Remote(snapshot::Native);

impl Snapshotter for Remote {
    fn capabilities(&self) -> &[&'static str] {
        self.0.capabilities()
    }

    fn stat(&self, cx: &Cx<'_>, key: &str) -> Result<Info> {
        self.0.stat(cx, key)
    }

    fn update(&self, cx: &Cx<'_>, key: &str, labels: &Labels, mask: &Mask) -> Result<Info> {
        self.0.update(cx, key, labels, mask)
    }

    fn usage(&self, cx: &Cx<'_>, key: &str) -> Result<Usage> {
        self.0.usage(cx, key)
    }

    fn mounts(&self, cx: &Cx<'_>, key: &str) -> Result<Vec<Mount>> {
        self.0.mounts(cx, key)
    }

    fn prepare(&self, cx: &Cx<'_>, key: &str, parent: &str, labels: &Labels) -> Result<Vec<Mount>> {
        let mounts = self.0.prepare(cx, key, parent, labels)?;
        let Some(target) = labels.get(spec::label::SNAPSHOT_REF) else { return Ok(mounts) };
        let commit = Commit { labels: labels.clone(), parent: None };
        self.0.commit(cx, &format!("remote {target}"), key, &commit)?;
        Err(spec::Error::already_exists(format!("target snapshot {target:?}")))
    }

    fn view(&self, cx: &Cx<'_>, key: &str, parent: &str, labels: &Labels) -> Result<Vec<Mount>> {
        self.0.view(cx, key, parent, labels)
    }

    fn commit(&self, cx: &Cx<'_>, name: &str, key: &str, commit: &Commit) -> Result<()> {
        self.0.commit(cx, name, key, commit)
    }

    fn remove(&self, cx: &Cx<'_>, key: &str) -> Result<()> {
        self.0.remove(cx, key)
    }

    fn list(&self, cx: &Cx<'_>, filters: &Filters) -> Result<Vec<Info>> {
        self.0.list(cx, filters)
    }

    fn cleanup(&self, cx: &Cx<'_>) -> Result<()> {
        self.0.cleanup(cx)
    }
}

#[test]
fn what_a_remote_driver_has_gets_its_record() {
    let dir = testkit::place::temp();
    let remote: Arc<dyn Snapshotter> =
        Arc::new(Remote(snapshot::Native::open(&dir.path().join("remote")).unwrap()));
    let store = store::Store::open(store::Config {
        root: dir.path().to_owned(),
        sharing: store::Sharing::Shared,
        snapshotters: [("remote".to_owned(), remote)].into(),
        events: Default::default(),
    })
    .unwrap();
    let view = store.snapshotter("remote").unwrap();
    within("one", |cx| store.leases().create(cx, Some(&"l".parse().unwrap()), &none()).map(drop).unwrap());
    leased("one", "l", |cx| {
        let (base, top) = ("sha256-base", "sha256-top");
        let wanted = |target: &str| labels(&[("containerd.io/snapshot.ref", target), ("mine", "1")]);
        let had = |target: &str| format!("target snapshot \"{target}\" from snapshotter: already exists");
        refused(view.prepare(cx, "extract-1", "", &wanted(base)), Kind::AlreadyExists, &had(base));
        refused(view.prepare(cx, "extract-2", base, &wanted(top)), Kind::AlreadyExists, &had(top));
        let info = view.stat(cx, top).unwrap();
        assert_eq!((info.kind, info.parent.as_str()), (SnapshotKind::Committed, base));
        assert_eq!(info.labels, wanted(top));
        refused(view.stat(cx, "extract-2"), Kind::NotFound, "snapshot extract-2 does not exist: not found");
        assert_eq!(store.leases().resources(cx, "l").unwrap().len(), 2);
    });
    store.collect().unwrap();
    assert_eq!(store.check().unwrap(), []);
    within("one", |cx| store.leases().delete(cx, "l").unwrap());
    assert_eq!(store.collect().unwrap().snapshots.get("remote"), Some(&2));
}
