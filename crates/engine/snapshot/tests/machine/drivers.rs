//! One suite that every driver passes.

use model::mask::Mask;
use model::snapshot::{Commit, Kind};
use spec::{Kind as ErrorKind, Labels};
use testkit::needs;
use testkit::tar::Archive;

use crate::stage::{Stage, Which, open};

#[test]
fn overlay_is_a_snapshotter() {
    needs!(root, overlayfs);
    suite(Which::Overlay);
}

#[test]
fn native_is_a_snapshotter() {
    needs!(root);
    suite(Which::Native);
}

fn suite(which: Which) {
    life(&Stage::new(which));
    refusals(&Stage::new(which));
    labels(&Stage::new(which));
    usage(&Stage::new(which));
    reopening(which);
    crowd(&Stage::new(which));
}

fn write(stage: &Stage, mounts: &[model::snapshot::Mount], name: &str, text: &str) {
    stage.look(mounts, |root| std::fs::write(root.join(name), text).unwrap());
}

/// A snapshot's changes are in its children and never in its parents or siblings.
fn life(stage: &Stage) {
    let base = stage.prepare("base-active", "").unwrap();
    write(stage, &base, "a", "base");
    write(stage, &base, "b", "base");
    stage.commit("base", "base-active").unwrap();

    let left = stage.prepare("left", "base").unwrap();
    write(stage, &left, "a", "left");
    stage.look(&left, |root| std::fs::remove_file(root.join("b")).unwrap());
    let right = stage.prepare("right", "base").unwrap();
    stage.look(&right, |root| {
        assert_eq!(std::fs::read_to_string(root.join("a")).unwrap(), "base");
        assert!(root.join("b").exists());
    });
    assert_eq!(stage.cx(|cx| stage.driver.mounts(cx, "left")).unwrap(), left);

    stage.commit("top", "left").unwrap();
    let view = stage.cx(|cx| stage.driver.view(cx, "view", "top", &Labels::new())).unwrap();
    stage.look(&view, |root| {
        assert_eq!(std::fs::read_to_string(root.join("a")).unwrap(), "left");
        assert!(!root.join("b").exists());
        assert!(std::fs::write(root.join("c"), "x").is_err(), "a view is read only");
    });
    let stat = |key: &str| stage.cx(|cx| stage.driver.stat(cx, key)).unwrap();
    assert_eq!((stat("base").kind, stat("base").parent.as_str()), (Kind::Committed, ""));
    assert_eq!((stat("top").kind, stat("top").parent.as_str()), (Kind::Committed, "base"));
    assert_eq!((stat("right").kind, stat("view").kind), (Kind::Active, Kind::View));
    let names: Vec<_> = stage
        .cx(|cx| stage.driver.list(cx, &model::Filters::default()))
        .unwrap()
        .into_iter()
        .map(|info| info.name)
        .collect();
    assert_eq!(names, ["base", "right", "top", "view"]);
    for key in ["view", "top", "right", "base"] {
        stage.remove(key).unwrap();
    }
    let snapshots = stage.dir.path().join("driver/snapshots");
    assert_eq!(std::fs::read_dir(snapshots).unwrap().count(), 0, "nothing is left");
}

fn refusals(stage: &Stage) {
    let kind = |done: spec::Result<()>| done.unwrap_err().kind();
    let prepare = |key: &str, parent: &str| kind(stage.prepare(key, parent).map(drop));
    stage.prepare("active", "").unwrap();
    assert_eq!(prepare("active", ""), ErrorKind::AlreadyExists);
    assert_eq!(prepare("x", "nowhere"), ErrorKind::NotFound);
    assert_eq!(prepare("x", "active"), ErrorKind::InvalidArgument);
    assert_eq!(kind(stage.remove("nowhere")), ErrorKind::NotFound);
    assert_eq!(kind(stage.commit("name", "nowhere")), ErrorKind::NotFound);
    stage.commit("done", "active").unwrap();
    assert_eq!(kind(stage.commit("name", "done")), ErrorKind::FailedPrecondition);
    let mounts = |key: &str| kind(stage.cx(|cx| stage.driver.mounts(cx, key)).map(drop));
    assert_eq!(mounts("done"), ErrorKind::FailedPrecondition);
    assert_eq!(mounts("active"), ErrorKind::NotFound);
    stage.prepare("child", "done").unwrap();
    assert_eq!(kind(stage.remove("done")), ErrorKind::FailedPrecondition);
    assert_eq!(kind(stage.commit("done", "child")), ErrorKind::AlreadyExists);
    stage.prepare("other-active", "").unwrap();
    stage.commit("other", "other-active").unwrap();
    assert_eq!(kind(stage.rebase("name", "child", "other")), ErrorKind::InvalidArgument);
    stage.remove("child").unwrap();
    stage.remove("done").unwrap();
}

fn labels(stage: &Stage) {
    let of = |pairs: &[(&str, &str)]| -> Labels {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    stage.cx(|cx| stage.driver.prepare(cx, "active", "", &of(&[("a", "1")]))).unwrap();
    let stat = |key: &str| stage.cx(|cx| stage.driver.stat(cx, key)).unwrap().labels;
    assert_eq!(stat("active"), of(&[("a", "1")]));
    let mask = Mask::new(["labels.b".to_owned()]);
    let wanted = of(&[("a", "9"), ("b", "2")]);
    stage.cx(|cx| stage.driver.update(cx, "active", &wanted, &mask)).unwrap();
    assert_eq!(stat("active"), of(&[("a", "1"), ("b", "2")]));
    let bad = Mask::new(["parent".to_owned()]);
    let error = stage.cx(|cx| stage.driver.update(cx, "active", &wanted, &bad)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    // A commit's labels replace those of the active snapshot.
    let commit = Commit { labels: of(&[("c", "3")]), parent: None };
    stage.cx(|cx| stage.driver.commit(cx, "done", "active", &commit)).unwrap();
    assert_eq!(stat("done"), of(&[("c", "3")]));
}

fn usage(stage: &Stage) {
    let mounts = stage.prepare("active", "").unwrap();
    let layer =
        Archive::new().file("f", 0o644, &[7; 100_000]).hardlink("g", "f", 0o644).dir("d", 0o755).finish();
    stage.apply(&mounts, &layer).unwrap();
    let usage = |key: &str| stage.cx(|cx| stage.driver.usage(cx, key)).unwrap();
    let active = usage("active");
    assert_eq!(active.inodes, 3, "the root, one file of two names, one directory");
    assert!((100_000..200_000).contains(&active.size), "{active:?}");
    stage.commit("done", "active").unwrap();
    assert_eq!(usage("done"), active);
}

/// Records survive, and what has none is removed.
fn reopening(which: Which) {
    let dir = testkit::place::temp();
    let root = dir.path().join("driver");
    let ctx = model::Ctx::background();
    let driver = open(which, &root);
    ctx.on_this_thread(|cx| driver.prepare(cx, "kept", "", &Labels::new())).unwrap();
    drop(driver);
    std::fs::create_dir_all(root.join("snapshots/new-7/fs/deep")).unwrap();
    std::fs::create_dir_all(root.join("snapshots/99/fs")).unwrap();
    let driver = open(which, &root);
    assert!(ctx.on_this_thread(|cx| driver.stat(cx, "kept")).is_ok());
    let names: Vec<_> =
        std::fs::read_dir(root.join("snapshots")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["1"]);
}

/// Verbs of many threads at once neither fail nor leave anything.
fn crowd(stage: &Stage) {
    stage.prepare("base-active", "").unwrap();
    stage.commit("base", "base-active").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            scope.spawn(move || {
                for round in 0..8 {
                    let key = format!("{thread}-{round}");
                    let mounts = stage.prepare(&key, "base").unwrap();
                    std::fs::write(crate::stage::upper(&mounts).join("f"), &key).unwrap();
                    let name = format!("done-{key}");
                    stage.commit(&name, &key).unwrap();
                    stage.cx(|cx| stage.driver.cleanup(cx)).unwrap();
                    stage.remove(&name).unwrap();
                }
            });
        }
        // Only one of those who want a name gets it.
        let won: usize = (0..4)
            .map(|_| scope.spawn(|| usize::from(stage.prepare("wanted", "base").is_ok())))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        assert_eq!(won, 1);
    });
    let snapshots = stage.dir.path().join("driver/snapshots");
    assert_eq!(std::fs::read_dir(snapshots).unwrap().count(), 2, "base and wanted");
}

#[test]
fn a_removal_that_waits_is_made_by_a_clean_up() {
    needs!(root, overlayfs);
    let dir = testkit::place::temp();
    let root = dir.path().join("driver");
    let driver =
        snapshot::Overlay::open(snapshot::OverlayConfig { root: root.clone(), ..Default::default() })
            .unwrap();
    use model::snapshot::Snapshotter;
    model::Ctx::background().on_this_thread(|cx| {
        driver.prepare(cx, "a", "", &Labels::new()).unwrap();
        driver.remove(cx, "a").unwrap();
        assert!(root.join("snapshots/1/fs").exists());
        driver.cleanup(cx).unwrap();
        assert!(!root.join("snapshots/1").exists());
    });
}

#[test]
fn a_removal_never_enters_a_mount() {
    needs!(root, overlayfs);
    let stage = Stage::new(Which::Overlay);
    let mounts = stage.prepare("active", "").unwrap();
    let inner = crate::stage::upper(&mounts).join("inner");
    std::fs::create_dir(&inner).unwrap();
    let tmpfs = model::snapshot::Mount { kind: "tmpfs".into(), source: "tmpfs".into(), ..Default::default() };
    snapshot::mount::all(&[tmpfs], &inner).unwrap();
    std::fs::write(inner.join("precious"), "x").unwrap();
    stage.remove("active").unwrap();
    let failed = stage.cx(|cx| stage.driver.cleanup(cx));
    let kept = inner.join("precious").exists();
    snapshot::mount::unmount_all(&inner).unwrap();
    assert!(kept, "what is mounted in a snapshot is not the snapshot's");
    assert!(failed.unwrap_err().text().contains("cannot remove"));
    stage.cx(|cx| stage.driver.cleanup(cx)).unwrap();
    assert!(!inner.exists());
}
