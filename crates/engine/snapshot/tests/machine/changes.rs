//! Layers made from what changed: applied elsewhere, they make the same tree.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use model::diff::Compare;
use model::snapshot::Mount;
use spec::{Kind, Labels, media};
use testkit::needs;
use testkit::tar::{Archive, Entry};

use crate::stage::{Stage, Which};
use crate::tree::{Times, assert_same};

fn base() -> Vec<u8> {
    Archive::new()
        .dir("etc", 0o755)
        .file("etc/passwd", 0o644, b"root")
        .hardlink("etc/passwd-", "etc/passwd", 0o644)
        .file("etc/shadow", 0o600, b"secret")
        .dir("gone", 0o755)
        .file("gone/x", 0o644, b"x")
        .dir("again", 0o755)
        .file("again/old", 0o644, b"old")
        .file("becomes-dir", 0o644, b"")
        .dir("becomes-file", 0o755)
        .file("becomes-file/x", 0o644, b"")
        .symlink("link", "etc")
        .dir("same", 0o755)
        .file("same/f", 0o644, b"same")
        .finish()
}

/// Everything that can happen to a tree; times are whole seconds, as layers have them.
fn change(root: &Path) {
    let script = format!(
        "set -e; cd {root}; echo more >> etc/passwd; rm etc/shadow; rm -r gone; rm -r again; mkdir -m 700 again; \
         echo new > again/new; rm becomes-dir; mkdir becomes-dir; touch becomes-dir/f; rm -r becomes-file; echo f > becomes-file; \
         ln -sfn usr link; mkdir -p deep/er; echo 1 > deep/er/a; ln deep/er/a deep/b; ln same/f same/g; mknod deep/null c 1 3; mkfifo deep/pipe; \
         chmod 4711 deep/b; chown 12:34 again/new; setfattr -n user.note -v hi deep/b; mkdir named; touch 'named/sp é'; \
         python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('deep/sock')\"; \
         touch named/{long}; find . -newermt 2020-01-01 -not -type d -exec touch -h -d @1700000001 {{}} +; \
         find . -type d -exec touch -d @1700000002 {{}} +",
        root = root.display(),
        long = "n".repeat(150),
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn without_socket(stage: &Stage, name: &str) -> std::collections::BTreeMap<String, String> {
    let mut tree = stage.describe(name, Times::NotOfDirectories);
    tree.remove("deep/sock");
    tree
}

fn round_trip(which: Which, lower: impl Fn(&Stage) -> Vec<Mount>) {
    for media_type in [media::LAYER, media::LAYER_GZIP, media::LAYER_ZSTD] {
        let stage = Stage::new(which);
        let parent = stage.sequentially(&[base()]);
        let upper = stage.prepare("changing", &parent).unwrap();
        stage.look(&upper, change);
        let compare = Compare { media_type: media_type.into(), ..Compare::default() };
        let layer = stage.compare(&lower(&stage), &upper, &compare).unwrap();
        assert_eq!(layer.media_type, media_type);
        stage.commit("changed", "changing").unwrap();

        let mounts = stage.prepare("copy-active", &parent).unwrap();
        let applied = stage.apply(&mounts, &stage.read(&layer)).unwrap();
        stage.commit("copy", "copy-active").unwrap();
        let (wanted, found) = (without_socket(&stage, "changed"), without_socket(&stage, "copy"));
        assert!(!wanted.contains_key("again/old") && wanted.contains_key("again/new"));
        assert_same(media_type, &wanted, &found);

        let info = stage.cx(|cx| stage.store.content().info(cx, &layer.digest)).unwrap();
        let label = info.labels.get(spec::label::UNCOMPRESSED);
        match media_type {
            media::LAYER => assert_eq!((label, &applied.diff_id), (None, &layer.digest)),
            _ => assert_eq!(label, Some(&applied.diff_id.to_string())),
        }
    }
}

fn view(stage: &Stage) -> Vec<Mount> {
    stage.cx(|cx| stage.driver.view(cx, "parent-view", "sequential0", &Labels::new())).unwrap()
}

#[test]
fn an_overlays_changes_make_the_same_tree() {
    needs!(root, overlayfs, program "python3", program "setfattr");
    round_trip(Which::Overlay, view);
}

#[test]
fn native_changes_make_the_same_tree() {
    needs!(root, overlayfs, program "python3", program "setfattr");
    round_trip(Which::Native, view);
}

#[test]
fn an_overlay_walked_side_by_side_makes_the_same_tree() {
    needs!(root, overlayfs, program "python3", program "setfattr");
    // Another directory with the same content keeps the quick way from being taken.
    round_trip(Which::Overlay, |stage| {
        let other = stage.prepare("other", "").unwrap();
        stage.apply(&other, &base()).unwrap();
        other
    });
}

#[test]
fn an_unchanged_tree_makes_an_empty_layer() {
    needs!(root, overlayfs);
    for which in [Which::Overlay, Which::Native] {
        let stage = Stage::new(which);
        let parent = stage.sequentially(&[base()]);
        let upper = stage.prepare("active", &parent).unwrap();
        let compare = Compare { media_type: media::LAYER.into(), ..Compare::default() };
        let layer = stage.compare(&view(&stage), &upper, &compare).unwrap();
        assert_eq!(stage.read(&layer), [0; 1024], "{which:?}");
    }
}

#[test]
fn one_file_is_all_that_changed() {
    needs!(root, overlayfs);
    let stage = Stage::new(Which::Native);
    let parent = stage.sequentially(&[base()]);
    let upper = stage.prepare("active", &parent).unwrap();
    stage.look(&upper, |root| std::fs::write(root.join("same/f"), "other").unwrap());
    let compare = Compare { media_type: media::LAYER.into(), ..Compare::default() };
    let layer = stage.read(&stage.compare(&view(&stage), &upper, &compare).unwrap());
    let mut reader = snapshot::tar::Reader::new(&layer[..]);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8(entry.name).unwrap());
    }
    assert_eq!(names, ["same/", "same/f"]);
}

#[test]
fn equal_changes_make_equal_layers() {
    needs!(root, overlayfs, program "python3", program "setfattr");
    let digest = || {
        let stage = Stage::new(Which::Overlay);
        let parent = stage.sequentially(&[base()]);
        let upper = stage.prepare("changing", &parent).unwrap();
        stage.look(&upper, change);
        stage.look(&upper, |root| std::fs::write(root.join("etc/now"), "now").unwrap());
        let epoch = Some(UNIX_EPOCH + Duration::from_secs(1_600_000_000));
        let compare = Compare { source_date_epoch: epoch, ..Compare::default() };
        stage.compare(&view(&stage), &upper, &compare).unwrap().digest
    };
    assert_eq!(digest(), digest());
}

#[test]
fn the_second_of_two_equal_layers_is_the_first() {
    needs!(root, overlayfs);
    let stage = Stage::new(Which::Overlay);
    let upper = stage.prepare("active", "").unwrap();
    stage.apply(&upper, &base()).unwrap();
    let first = stage.compare(&[], &upper, &Compare::default()).unwrap();
    assert_eq!(stage.compare(&[], &upper, &Compare::default()).unwrap(), first);
    let named = Compare { reference: "mine".into(), ..Compare::default() };
    assert_eq!(stage.compare(&[], &upper, &named).unwrap(), first);
    let filters = model::Filters::default();
    assert!(stage.cx(|cx| stage.store.content().statuses(cx, &filters)).unwrap().is_empty());
}

#[test]
fn a_failed_comparison_leaves_no_ingest() {
    needs!(root, overlayfs);
    let stage = Stage::new(Which::Native);
    let gone = Mount { kind: "bind".into(), source: "/nowhere/at/all".into(), ..Mount::default() };
    assert!(stage.compare(&[], &[gone], &Compare::default()).is_err());
    let odd = Compare { media_type: "application/zip".into(), ..Compare::default() };
    assert_eq!(stage.compare(&[], &[], &odd).unwrap_err().kind(), Kind::Unimplemented);
    let filters = model::Filters::default();
    assert!(stage.cx(|cx| stage.store.content().statuses(cx, &filters)).unwrap().is_empty());
    assert!(stage.cx(|cx| stage.store.content().list(cx, &filters)).unwrap().is_empty());
}

#[test]
fn a_layer_in_the_store_is_applied() {
    needs!(root, overlayfs);
    let stage = Stage::new(Which::Overlay);
    let from = stage.prepare("from", "").unwrap();
    stage
        .apply(
            &from,
            &Archive::new().entry(&Entry { mode: 0o600, data: b"x", ..Entry::new(b'0', "f") }).finish(),
        )
        .unwrap();
    let layer = stage.compare(&[], &from, &Compare::default()).unwrap();
    let to = stage.prepare("to", "").unwrap();
    let differ = stage.differ();
    use model::diff::{Apply, Differ};
    stage.cx(|cx| differ.apply(cx, &layer, &to, &Apply { sync_fs: true })).unwrap();
    assert!(crate::stage::upper(&to).join("f").exists());
}

#[test]
fn a_renamed_directory_is_compared_through_the_mount() {
    needs!(root, overlayfs);
    let stage = Stage::new(Which::Overlay);
    let parent = stage.sequentially(&[base()]);
    let mut upper = stage.prepare("changing", &parent).unwrap();
    // Some kernels do this by default: the upper directory then only names where the old content is.
    upper[0].options.push("redirect_dir=on".into());
    stage.look(&upper, |root| std::fs::rename(root.join("etc"), root.join("moved")).unwrap());
    let layer = stage.compare(&view(&stage), &upper, &Compare::default()).unwrap();
    let mounts = stage.prepare("copy-active", &parent).unwrap();
    stage.apply(&mounts, &stage.read(&layer)).unwrap();
    stage.commit("copy", "copy-active").unwrap();
    let tree = stage.describe("copy", Times::All);
    assert!(tree.contains_key("moved/passwd") && !tree.contains_key("etc"), "{tree:?}");
}
