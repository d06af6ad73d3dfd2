//! `ctr images import`, `export`, `pull` and `push` beyond the usual: names, flags, and ends that come at once.

use std::time::Duration;

use serde_json::json;
use testkit::daemon::Daemon;
use testkit::image::{self, Build, Image, Layer, busybox_tar};
use testkit::needs;
use testkit::registry::Registry;

use crate::stage::keeping;

/// Far above what a call takes that ends at once, far below what a stream may wait for its transfer.
const AT_ONCE: Duration = Duration::from_secs(60);

#[test]
fn an_export_that_is_refused_ends_at_once_and_leaves_no_file() {
    needs!(root, built "containerd", built "ctr");
    let daemon = Daemon::start();
    let out = daemon.dir().join("out.tar");
    let out = out.to_str().unwrap();
    for (words, part) in [
        (&[out, "example.com/no/such:v1"][..], "example.com/no/such:v1\": not found"),
        (&["--platform=no/such/thing/at/all", out, "example.com/no/such:v1"], "platform"),
        (&["-", "example.com/no/such:v1"], "not found"),
    ] {
        let said = daemon.ctr("image export").args(words).limit(AT_ONCE).fails();
        assert!(said.contains(part), "{words:?}: {said}");
        assert!(!std::path::Path::new(out).exists(), "{words:?}");
    }
}

#[test]
fn an_archive_that_cannot_be_read_is_named() {
    needs!(root, built "containerd", built "ctr");
    let daemon = Daemon::start();
    let dir = daemon.dir().to_str().unwrap().to_owned();
    let said = daemon.ctr("image import").args([&dir]).limit(AT_ONCE).fails();
    assert!(said.contains(&format!("cannot read {dir}: Is a directory")), "{said}");
    let said = daemon.ctr("image import -").stdin("no archive").limit(AT_ONCE).fails();
    assert!(said.contains("cannot read the archive"), "{said}");
}

/// Imports `archive` with `flags` and lists the names.
fn imported(archive: &[u8], flags: &[&str]) -> Vec<String> {
    let daemon = Daemon::start();
    daemon.ctr("image import --no-unpack").args(flags).args(["-"]).stdin(archive).ok();
    daemon.ctr("image ls -q").ok().lines().map(str::to_owned).collect()
}

#[test]
fn imported_images_are_named_as_gos_are() {
    needs!(root, program "busybox", built "containerd", built "ctr");
    let image = image::busybox();
    let digest = image.top().digest.clone();
    let tagged = image.annotated_archive(&json!({ "org.opencontainers.image.ref.name": "latest" }));
    let names = imported(&tagged, &[]);
    let date = names[0].strip_prefix("import-").and_then(|rest| rest.strip_suffix(":latest"));
    let form = |byte: u8| if byte.is_ascii_digit() { b'0' } else { byte };
    assert_eq!(date.unwrap().bytes().map(form).collect::<Vec<_>>(), b"0000-00-00", "{names:?}");

    let based = ["--base-name=example.com/base"];
    assert_eq!(imported(&tagged, &based), ["example.com/base:latest"]);
    let digests = imported(&tagged, &["--base-name=example.com/base", "--digests"]);
    assert!(digests.contains(&format!("example.com/base@{digest}")), "{digests:?}");
    assert!(digests.contains(&"example.com/base:latest".to_owned()), "{digests:?}");
    let skipped =
        imported(&tagged, &["--base-name=example.com/base", "--digests", "--skip-digest-for-named"]);
    assert!(!skipped.contains(&format!("example.com/base@{digest}")), "{skipped:?}");
    assert!(skipped.contains(&"example.com/base:latest".to_owned()), "{skipped:?}");

    let whole = image.archive("docker.io/library/busybox:v1");
    assert_eq!(imported(&whole, &[]), ["docker.io/library/busybox:v1"]);
    assert_eq!(imported(&whole, &["--index-name=all:v1"]), ["all:v1", "docker.io/library/busybox:v1"]);
    let daemon = Daemon::start();
    let said = daemon.ctr("image import --base-name example.com/base -").stdin(whole).fails();
    assert!(said.contains("no image name found"), "{said}");
}

#[test]
fn layers_may_go_once_they_are_unpacked_and_are_compressed_on_demand() {
    needs!(root, overlayfs, program "busybox", built "containerd", built "ctr");
    let made = Build::new().layer(Layer::plain(busybox_tar())).cmd(&["true"]).build();
    let (name, plain) = ("docker.io/library/saved:v1", made.blobs[0].digest.clone());
    let archive = made.docker_archive("saved:v1");
    let daemon = Daemon::start();
    daemon.ctr("image import --compress-blobs -").stdin(archive.clone()).ok();
    let listed = daemon.ctr("content ls").ok();
    assert!(listed.contains(&format!("containerd.io/uncompressed={plain}")), "{listed}");
    daemon.ctr(&format!("run --rm {name} compressed true")).ok();

    let daemon = Daemon::start();
    let said = daemon.ctr("image import --discard-unpacked-layers --no-unpack -").stdin("").fails();
    assert!(said.contains("--discard-unpacked-layers") && said.contains("--no-unpack"), "{said}");
    daemon.ctr("image import --discard-unpacked-layers -").stdin(archive).ok();
    daemon.ctr("content prune references").ok();
    let left = daemon.ctr("content ls -q").ok();
    assert!(!left.contains(&plain), "the layer is gone: {left}");
    daemon.ctr(&format!("run --rm {name} discarded true")).ok();
}

#[test]
fn metadata_alone_has_no_layers() {
    needs!(root, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let registry = Registry::start();
    let made = Image::index(vec![image::busybox(), Build::new().architecture("s390x").cmd(&["x"]).build()]);
    let reference = registry.push("a/x", "v1", &made);
    let daemon = keeping();
    daemon.ctr("content fetch --plain-http --metadata-only").args([&reference]).ok();
    let here = daemon.ctr("content ls -q").ok();
    assert!(!here.contains(&made.blobs[0].digest), "a layer was fetched: {here}");
    let documents = made.manifests.iter().chain(&made.blobs[1..]);
    for document in documents {
        assert!(here.contains(&document.digest), "{} {} is missing", document.media_type, document.digest);
    }
}

#[test]
fn the_flags_of_a_transfer_have_effect() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let (registry, daemon) = (Registry::start(), Daemon::start());
    let reference = registry.push("a/x", "v1", &image::busybox());
    let plugins = daemon.ctr("plugins ls -d type==io.containerd.transfer.v1").ok();
    assert!(plugins.contains("tuning"), "{plugins}");
    daemon
        .ctr("image pull --plain-http --local --sync-fs --max-concurrent-downloads 1")
        .args([&reference])
        .ok();

    let mut layer = Layer::gzip(busybox_tar());
    layer.blob.media_type = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".into();
    let kept = Build::new().layer(layer).build();
    let name = format!("{}/a/kept:v1", registry.host());
    daemon.ctr("image import --no-unpack -").stdin(kept.archive(&name)).ok();
    // The registry takes no manifest whose layer it lacks.
    let said = daemon.ctr("image push --plain-http").args([&name]).fails();
    assert!(said.contains("lob unknown") || said.contains("BLOB_UNKNOWN"), "{said}");
    daemon
        .ctr("image push --plain-http --allow-non-distributable-blobs --max-concurrent-uploaded-layers 1")
        .args([&name])
        .ok();
}

#[test]
fn a_namespaces_snapshotter_is_used_for_pulls_too() {
    needs!(root, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let (registry, daemon) = (Registry::start(), Daemon::start());
    let reference = registry.push("a/x", "v1", &image::busybox());
    let namespace = daemon.namespace().to_owned();
    daemon.ctr("namespaces create").args([&namespace, "containerd.io/defaults/snapshotter=native"]).ok();
    daemon.ctr("image pull --plain-http").args([&reference]).ok();
    assert_eq!(daemon.ctr("snapshots --snapshotter native ls").ok().lines().count(), 2);
    assert_eq!(daemon.ctr("snapshots --snapshotter overlayfs ls").ok().lines().count(), 1);
}

#[test]
fn a_label_without_a_value_is_true_and_an_empty_one_goes() {
    needs!(root, program "busybox", built "containerd", built "ctr");
    let daemon = Daemon::start();
    daemon
        .ctr("image import --no-unpack --label kept -")
        .stdin(image::busybox().archive("a.example/x:v1"))
        .ok();
    assert_eq!(daemon.ctr("image label a.example/x:v1 more").ok(), "kept=true,more=true\n");
    assert_eq!(daemon.ctr("image label a.example/x:v1 kept=").ok(), "more=true\n");
    let said = daemon.ctr("container create --annotation q a.example/x:v1 one true").fails();
    assert!(said.contains("invalid key=value format annotation: q"), "{said}");
}
