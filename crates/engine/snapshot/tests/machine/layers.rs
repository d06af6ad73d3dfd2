//! Layers as honest tools make them.

use testkit::needs;
use testkit::tar::{Archive, Entry};

use crate::stage::{Stage, Which, upper};
use crate::tree::{Times, assert_same};

/// Three layers with everything in them: deletions, opaque and replaced directories, links, attributes, devices.
fn layers() -> Vec<Vec<u8>> {
    let long = "n".repeat(200);
    let deep = format!("deep/{long}/{long}/end");
    let base = Archive::new()
        .dir("etc", 0o755)
        .file("etc/passwd", 0o644, b"root")
        .file("etc/shadow", 0o600, b"secret")
        .dir("opt", 0o1777)
        .file("opt/a", 0o755, b"a")
        .file("opt/b", 0o4755, b"b")
        .dir("gone", 0o700)
        .file("gone/x", 0o644, b"x")
        .dir("replaced", 0o755)
        .file("replaced/old", 0o644, b"old")
        .dir("private", 0o710)
        .dir("private/inner", 0o2750)
        .file("private/inner/f", 0o640, b"f")
        .symlink("link", "/etc/passwd")
        .hardlink("etc/passwd-", "etc/passwd", 0o644)
        .char_device("null", 0o666, 1, 3)
        .fifo("pipe", 0o622)
        .file(&deep, 0o644, b"deep")
        .entry(&Entry {
            xattrs: &[("user.k", b"v"), ("security.capability", CAPABILITY)],
            ..Entry::new(b'0', "cap")
        });
    let middle = Archive::new()
        .whiteout("gone")
        .whiteout("etc/shadow")
        .opaque("opt")
        .file("opt/c", 0o644, b"c")
        .whiteout("replaced")
        .dir("replaced", 0o711)
        .file("replaced/new", 0o644, b"new")
        .whiteout("nowhere")
        // No entry for private and private/inner: they keep what they look like below.
        .file("private/inner/g", 0o600, b"g");
    let top = Archive::new()
        .dir("gone", 0o755)
        .file("gone/back", 0o644, b"back")
        .file("link", 0o644, b"a file now")
        .dir("null", 0o755)
        .whiteout("opt/c")
        .file("etc/passwd", 0o644, b"changed");
    vec![base.finish(), middle.finish(), top.finish_bare()]
}

/// `cap_net_bind_service=ep`, version 2.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn overlay_in_order_and_at_once_are_the_same() {
    needs!(root, overlayfs);
    let stage = Stage::new(Which::Overlay);
    let layers = layers();
    let (sequential, parallel) = (stage.sequentially(&layers), stage.at_once(&layers));
    let left = stage.describe(&sequential, Times::All);
    assert_same("parallel differs from sequential", &left, &stage.describe(&parallel, Times::All));
    assert!(!left.contains_key("gone/x") && left.contains_key("gone/back"));
    assert!(!left.contains_key("replaced/old") && left.contains_key("replaced/new"));
    assert!(!left.contains_key("opt/a") && !left.contains_key("opt/c"));
    assert!(left["private/inner"].starts_with("42750 "), "{}", left["private/inner"]);
    assert!(left["private"].starts_with("40710 "), "{}", left["private"]);
    assert!(left["cap"].contains("security.capability=") && left["cap"].contains("user.k=v"));
    assert!(left["null"].starts_with("40755"), "a device became a directory");
}

#[test]
fn each_layers_own_directory_is_the_same_too() {
    needs!(root, overlayfs);
    let stage = Stage::new(Which::Overlay);
    let layers = layers();
    stage.sequentially(&layers);
    stage.at_once(&layers);
    for number in 0..layers.len() {
        let of = |prefix: &str| {
            let key = format!("look-{prefix}{number}");
            let mounts = stage.prepare(&key, &format!("{prefix}{number}")).unwrap();
            let lower = mounts[0].options.iter().find_map(|option| option.strip_prefix("lowerdir=")).unwrap();
            crate::tree::describe(lower.split(':').next().unwrap().as_ref(), Times::All)
        };
        assert_same(&format!("layer {number}"), &of("sequential"), &of("parallel"));
    }
}

#[test]
fn native_shows_what_overlay_shows() {
    needs!(root, overlayfs);
    let (overlay, native) = (Stage::new(Which::Overlay), Stage::new(Which::Native));
    let layers = layers();
    let left = overlay.describe(&overlay.sequentially(&layers), Times::NotOfDirectories);
    let right = native.describe(&native.sequentially(&layers), Times::NotOfDirectories);
    assert_same("native differs from overlay", &left, &right);
}

#[test]
fn an_opaque_root_hides_everything_below() {
    needs!(root, overlayfs);
    let layers = vec![
        Archive::new().file("old", 0o644, b"").dir("both", 0o755).file("both/old", 0o644, b"").finish(),
        Archive::new().file(".wh..wh..opq", 0o600, b"").dir("both", 0o700).file("new", 0o644, b"").finish(),
    ];
    for which in [Which::Overlay, Which::Native] {
        let stage = Stage::new(which);
        let names = |name: &str| stage.describe(name, Times::All).into_keys().collect::<Vec<_>>();
        assert_eq!(names(&stage.sequentially(&layers)), ["both", "new"], "{which:?}");
        if which == Which::Overlay {
            assert_eq!(names(&stage.at_once(&layers)), ["both", "new"], "at once");
        }
    }
}

#[test]
fn a_first_layers_whiteouts_do_not_show() {
    needs!(root, overlayfs);
    let stage = Stage::new(Which::Overlay);
    let layer = Archive::new().whiteout("x").dir("d", 0o755).whiteout("d/y").opaque("d").finish();
    let only = stage.sequentially(&[layer]);
    let tree = stage.describe(&only, Times::All);
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["d"]);
    assert!(!tree["d"].contains("overlay"), "{}", tree["d"]);
}

#[test]
fn a_deletion_spares_what_its_own_layer_wrote() {
    needs!(root, overlayfs);
    let base = Archive::new().dir("d", 0o755).file("d/old", 0o644, b"").file("f", 0o644, b"old").finish();
    // The deletions come last here; most tools write them first.
    let top = Archive::new()
        .dir("d", 0o700)
        .file("d/new", 0o644, b"")
        .file("f", 0o644, b"new")
        .whiteout("d")
        .whiteout("f")
        .finish();
    for which in [Which::Overlay, Which::Native] {
        let stage = Stage::new(which);
        let tree = stage.describe(&stage.sequentially(&[base.clone(), top.clone()]), Times::All);
        assert_eq!(tree.keys().collect::<Vec<_>>(), ["d", "d/new", "f"], "{which:?}");
    }
}

#[test]
fn a_deleted_directory_may_come_back_without_an_entry() {
    needs!(root, overlayfs);
    let base = Archive::new().dir("d", 0o711).dir("d/e", 0o700).file("d/e/old", 0o644, b"").finish();
    let top = Archive::new().whiteout("d").file("d/e/new", 0o644, b"").finish();
    let mut trees = Vec::new();
    for which in [Which::Overlay, Which::Native] {
        let stage = Stage::new(which);
        let layers = [base.clone(), top.clone()];
        trees.push(stage.describe(&stage.sequentially(&layers), Times::All));
        if which == Which::Overlay {
            trees.push(stage.describe(&stage.at_once(&layers), Times::All));
        }
    }
    assert_eq!(trees[0].keys().collect::<Vec<_>>(), ["d", "d/e", "d/e/new"]);
    assert!(trees[0]["d"].starts_with("40755") && trees[0]["d/e"].starts_with("40755"));
    assert_same("parallel", &trees[0], &trees[1]);
    assert_same("native", &trees[0], &trees[2]);
}

#[test]
fn sixty_layers_mount() {
    needs!(root, overlayfs);
    let stage = Stage::new(Which::Overlay);
    let layers: Vec<_> = (0..60)
        .map(|number| {
            Archive::new()
                .file(&format!("file{number:02}"), 0o644, b"x")
                .file("same", 0o644, &[number])
                .finish()
        })
        .collect();
    let name = stage.sequentially(&layers);
    assert_eq!(stage.describe(&name, Times::All).len(), 61);
    let mounts = stage.prepare("active", &name).unwrap();
    assert!(mounts[0].options.iter().map(String::len).sum::<usize>() > 2000);
    stage.look(&mounts, |root| assert_eq!(std::fs::read(root.join("same")).unwrap(), [59]));
}

#[test]
fn times_are_the_archives() {
    needs!(root, overlayfs);
    let stage = Stage::new(Which::Overlay);
    let pax = &[("mtime", "1600000000.123456789")];
    let layer = Archive::new()
        .entry(&Entry { pax, mode: 0o755, ..Entry::new(b'5', "d") })
        .entry(&Entry { pax, data: b"x", ..Entry::new(b'0', "d/f") })
        .entry(&Entry { pax, link: "f", ..Entry::new(b'2', "d/l") })
        .entry(&Entry { pax: &[("mtime", "-5")], ..Entry::new(b'0', "early") })
        .finish();
    let mounts = stage.prepare("active", "").unwrap();
    stage.apply(&mounts, &layer).unwrap();
    let tree = crate::tree::describe(&upper(&mounts), Times::All);
    for name in ["d", "d/f", "d/l"] {
        assert!(tree[name].contains(" 1600000000.123456789"), "{name}: {}", tree[name]);
    }
    assert!(tree["early"].contains(" 0.000000000"), "{}", tree["early"]);
}

#[test]
fn entries_through_links_stay_inside() {
    needs!(root, overlayfs);
    let layer = Archive::new()
        .dir("usr", 0o755)
        .dir("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .symlink("run", "/var/run")
        .symlink("up", "../../../../usr")
        .file("lib/a", 0o644, b"a")
        .file("run/b", 0o644, b"b")
        .file("up/c", 0o644, b"c")
        .finish();
    for which in [Which::Overlay, Which::Native] {
        let stage = Stage::new(which);
        let tree = stage.describe(&stage.sequentially(std::slice::from_ref(&layer)), Times::All);
        for name in ["usr/lib/a", "var/run/b", "usr/c"] {
            assert!(tree.contains_key(name), "{which:?} {name}");
        }
    }
}
