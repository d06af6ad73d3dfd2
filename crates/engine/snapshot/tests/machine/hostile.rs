//! Layers that nobody honest makes: a clear error, or nothing outside the tree.

use std::path::Path;

use snapshot::Limits;
use spec::Kind;
use testkit::needs;
use testkit::tar::{Archive, Entry};

use crate::stage::{Stage, Which, upper};

const BOTH: [Which; 2] = [Which::Overlay, Which::Native];

/// Applies `layer` to a new snapshot of every driver and gives each outcome to `check`.
fn each(layer: &[u8], check: impl Fn(spec::Result<()>, &Path)) {
    for which in BOTH {
        let stage = Stage::new(which);
        let mounts = stage.prepare("active", "").unwrap();
        let done = stage.apply(&mounts, layer).map(drop);
        check(done, &upper(&mounts));
        stage.remove("active").unwrap();
        let left = std::fs::read_dir(stage.dir.path().join("driver/snapshots")).unwrap().count();
        assert_eq!(left, 0, "a failed layer can be removed whole");
    }
}

#[track_caller]
fn refused(layer: &[u8], words: &str) {
    each(layer, |done, _| {
        let error = done.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
        assert!(error.text().contains(words), "{error}");
    });
}

#[test]
fn names_that_climb_are_refused() {
    needs!(root, overlayfs);
    refused(&Archive::new().file("../evil", 0o644, b"x").finish(), "\"../evil\" leads out of the root");
    refused(&Archive::new().file("a/../../evil", 0o644, b"x").finish(), "leads out of the root");
    let link = Archive::new().file("a", 0o644, b"").hardlink("b", "../../etc/passwd", 0o644).finish();
    refused(&link, "leads out of the root");
}

#[test]
fn links_lead_nowhere_outside() {
    needs!(root, overlayfs);
    let outside = testkit::place::temp();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "safe").unwrap();
    let out = outside.path().to_str().unwrap();
    let layer = Archive::new()
        .symlink("abs", out)
        .file("abs/evil", 0o644, b"x")
        .symlink("rel", &format!("../../../../../../../../{out}"))
        .file("rel/evil", 0o644, b"x")
        .symlink("file", victim.to_str().unwrap())
        .file("file", 0o644, b"overwritten")
        .finish();
    each(&layer, |done, root| {
        done.unwrap();
        assert!(root.join(&out[1..]).join("evil").exists(), "what a link names is made inside");
        assert!(!root.join("file").is_symlink(), "a file replaces a link, it is not written through it");
    });
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "safe");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_directory_swapped_for_a_link_is_not_followed() {
    needs!(root, overlayfs);
    let outside = testkit::place::temp();
    let out = outside.path().to_str().unwrap();
    // The directory's descriptor is kept open when the link takes its name.
    let layer = Archive::new()
        .dir("d", 0o755)
        .file("d/one", 0o644, b"")
        .symlink("d", out)
        .file("d/two", 0o644, b"")
        .dir("d", 0o755)
        .file("d/three", 0o644, b"")
        .finish();
    each(&layer, |done, root| {
        done.unwrap();
        assert_eq!(std::fs::read_dir(root.join("d")).unwrap().count(), 1);
        assert!(root.join("d/three").exists());
    });
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn metadata_goes_to_links_themselves() {
    needs!(root, overlayfs);
    let outside = testkit::place::temp();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "safe").unwrap();
    std::fs::set_permissions(&victim, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let name = victim.to_str().unwrap();
    let layer = Archive::new()
        .entry(&Entry { link: name, mode: 0o4777, uid: 7, gid: 7, ..Entry::new(b'2', "link") })
        .entry(&Entry { link: "link", mode: 0o4777, uid: 7, gid: 7, ..Entry::new(b'1', "again") })
        .finish();
    each(&layer, |done, _| done.unwrap());
    let stat = std::fs::metadata(&victim).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.mtime()), (0o600, 0, stat.mtime()));
}

#[test]
fn hard_links_to_what_is_not_in_the_tree_fail() {
    needs!(root, overlayfs);
    refused(&Archive::new().hardlink("b", "/etc/passwd", 0o644).finish(), "find the file to link to");
    refused(&Archive::new().file("a", 0o644, b"").hardlink("a", "a", 0o644).finish(), "make it");
    each(&Archive::new().dir("d", 0o755).hardlink("e", "d", 0o755).finish(), |done, _| {
        assert!(done.unwrap_err().text().contains("link"));
    });
}

#[test]
fn a_link_loop_ends() {
    needs!(root, overlayfs);
    let layer = Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", 0o644, b"").finish();
    refused(&layer, "too many symbolic links");
}

#[test]
fn device_numbers_out_of_range_are_refused() {
    needs!(root, overlayfs);
    refused(&Archive::new().char_device("d", 0o666, 4096, 0).finish(), "device number");
    refused(&Archive::new().char_device("d", 0o666, 1, 1 << 20).finish(), "device number");
}

#[test]
fn owners_out_of_range_are_refused() {
    needs!(root, overlayfs);
    for uid in [u64::from(u32::MAX), 1 << 32] {
        refused(&Archive::new().entry(&Entry { uid, ..Entry::new(b'0', "f") }).finish(), "uid");
    }
}

#[test]
fn overlays_own_attributes_are_not_the_images_to_set() {
    needs!(root, overlayfs);
    let xattrs: &[(&str, &[u8])] = &[("trusted.overlay.opaque", b"y"), ("trusted.overlay.redirect", b"/etc")];
    let layer = Archive::new().entry(&Entry { xattrs, mode: 0o755, ..Entry::new(b'5', "d") }).finish();
    each(&layer, |done, root| {
        done.unwrap();
        let tree = crate::tree::describe(root, crate::tree::Times::All);
        assert!(!tree["d"].contains("overlay"), "{}", tree["d"]);
    });
}

#[test]
fn whiteouts_of_nothing_or_of_the_directory_itself_are_refused() {
    needs!(root, overlayfs);
    for name in ["d/.wh.", "d/.wh..", "d/.wh..."] {
        let layer = Archive::new().dir("d", 0o755).file(name, 0o600, b"").finish();
        refused(&layer, "invalid whiteout name");
    }
}

#[test]
fn damaged_archives_are_refused() {
    needs!(root, overlayfs);
    let good = Archive::new().file("f", 0o644, &[1; 2000]).finish();
    refused(&good[..700], "ends in the middle");
    refused(&good[..300], "ends in the middle");
    let mut wrong = good.clone();
    wrong[0] ^= 1;
    refused(&wrong, "checksum");
    refused(
        b"this is no tar archive but a longer text of more than five hundred and twelve bytes"
            .repeat(9)
            .as_slice(),
        "checksum",
    );
    refused(&Archive::new().entry(&Entry::new(b'Z', "odd")).finish(), "unknown type");
    refused(
        &Archive::new().entry(&Entry { pax: &[("GNU.sparse.major", "1")], ..Entry::new(b'0', "s") }).finish(),
        "sparse",
    );
    let sparse = |map: &str, size: &str| {
        let pax = [("GNU.sparse.map", map), ("GNU.sparse.size", size)];
        Archive::new().entry(&Entry { pax: &pax, data: b"1234", ..Entry::new(b'0', "s") }).finish()
    };
    refused(&sparse("0,4,2,4", "10"), "sparse");
    refused(&sparse("0,3", "10"), "sparse");
    refused(&sparse("8,4", "10"), "sparse");
    refused(&sparse("9223372036854775800,4", "9223372036854775807"), "more than the");
    let long = "x".repeat(5000);
    refused(&Archive::new().file(&long, 0o644, b"").finish(), "more than a path may have");
    let part = "y".repeat(300);
    refused(&Archive::new().file(&part, 0o644, b"").finish(), "make it");
}

#[test]
fn links_cannot_make_a_tree_too_deep_to_remove() {
    needs!(root, overlayfs);
    let deep = vec!["d".repeat(200); 15].join("/");
    let layer = Archive::new()
        .file(&format!("{deep}/f"), 0o644, b"")
        .symlink("short", &deep)
        .file(&format!("short/{deep}/f"), 0o644, b"")
        .finish();
    refused(&layer, "more than a path may have");
}

#[test]
fn bounds_hold() {
    needs!(root, overlayfs);
    let stage = Stage::new(Which::Overlay);
    let mounts = stage.prepare("active", "").unwrap();
    let mut many = Archive::new();
    for number in 0..20 {
        many = many.file(&format!("f{number}"), 0o644, b"");
    }
    let limits = Limits { most_entries: 10, ..Limits::default() };
    let error = stage.apply_within(&mounts, &many.finish(), limits).unwrap_err();
    assert!(error.text().contains("more than 10 entries"), "{error}");
    let bomb =
        zstd::encode_all(&Archive::new().file("zeros", 0o644, &vec![0; 8 << 20]).finish()[..], 3).unwrap();
    let limits = Limits { free_bytes: 1 << 20, ratio: 100, ..Limits::default() };
    let error = stage.apply_within(&mounts, &bomb, limits).unwrap_err();
    assert!(error.text().contains("decompression bomb"), "{error}");
    assert_eq!(error.kind(), Kind::InvalidArgument);
}

#[test]
fn only_tar_layers_are_known() {
    let stage_dir = testkit::place::temp();
    let content = crate::stage::store(stage_dir.path()).content();
    let differ = crate::stage::differ(stage_dir.path(), content);
    for media_type in ["application/vnd.oci.image.layer.v1.tar+encrypted", "application/vnd.erofs", ""] {
        let error = model::Ctx::background()
            .on_this_thread(|cx| {
                use model::diff::Differ;
                differ.apply_stream(cx, media_type, &mut &b""[..], &[], &Default::default())
            })
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Unimplemented, "{media_type}");
    }
}

#[test]
fn a_full_disk_is_told() {
    needs!(root, overlayfs);
    let stage = Stage::new(Which::Native);
    let place = stage.dir.path().join("small");
    std::fs::create_dir(&place).unwrap();
    let options = vec!["size=1m".to_owned()];
    let tmpfs = model::snapshot::Mount {
        kind: "tmpfs".into(),
        source: "tmpfs".into(),
        options,
        ..Default::default()
    };
    snapshot::mount::all(&[tmpfs], &place).unwrap();
    let bind = model::snapshot::Mount {
        kind: "bind".into(),
        source: place.display().to_string(),
        options: vec!["rw".into()],
        ..Default::default()
    };
    let layer = Archive::new().file("big", 0o644, &vec![1; 4 << 20]).finish();
    let done = stage.apply(&[bind], &layer);
    snapshot::mount::unmount_all(&place).unwrap();
    let error = done.unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted, "{error}");
    assert!(error.text().contains("\"big\": cannot write it"), "{error}");
}

#[test]
fn a_caller_who_leaves_stops_the_work() {
    needs!(root, overlayfs);
    let stage = Stage::new(Which::Overlay);
    let mounts = stage.prepare("active", "").unwrap();
    stage.ctx.cancel();
    let error = stage.apply(&mounts, &Archive::new().file("f", 0o644, b"").finish()).unwrap_err();
    assert_eq!(error.kind(), Kind::Canceled, "{error}");
}
