//! Honest pulls.

use std::sync::Arc;

use model::Lane;
use model::image::Image;
use spec::{Kind, label};
use testkit::image::{Build, Image as Made, Layer, busybox};
use testkit::needs;
use testkit::peer::Peer;
use testkit::registry::{self, Registry};
use testkit::tar::Archive;

use crate::place::Place;

/// Four layers: a deletion, an opaque directory, something deleted and made again, and a file over a directory.
fn layered() -> Made {
    let bottom = Archive::new()
        .dir("a/", 0o755)
        .file("a/gone", 0o644, b"1")
        .file("a/kept", 0o644, b"1")
        .dir("b/", 0o755)
        .file("b/hidden", 0o644, b"1")
        .file("again", 0o644, b"1");
    let second = Archive::new().whiteout("a/gone").dir("b/", 0o755).opaque("b").file("b/new", 0o644, b"2");
    let third = Archive::new().whiteout("again").file("three", 0o644, b"3");
    let top = Archive::new().file("again", 0o644, b"4").whiteout("three");
    Build::new()
        .layer(Layer::gzip(bottom.finish()))
        .layer(Layer::zstd(second.finish()))
        .layer(Layer::plain(third.finish()))
        .layer(Layer::gzip(top.finish_bare()))
        .build()
}

fn check_layered(place: &Place, snapshotter: &str, pulled: &image::pull::Pulled) {
    let chain_id = pulled.unpacked[0].chain_id.as_ref().unwrap();
    let tree = place.tree(snapshotter, chain_id);
    let rows: Vec<_> = tree.iter().map(|(name, text)| format!("{name}={text}")).collect();
    assert_eq!(rows, ["a/=", "a/kept=1", "again=4", "b/=", "b/new=2"], "{snapshotter}");
}

#[test]
fn a_real_registrys_image_is_pulled_and_unpacked() {
    needs!(root, overlayfs, program "docker-registry");
    let registry = Registry::start();
    let reference = registry.push("library/layered", "v1", &layered());
    for snapshotter in ["overlayfs", "native"] {
        let place = Place::new();
        let pulled = place.run(place.order(&reference, snapshotter)).unwrap();
        check_layered(&place, snapshotter, &pulled);
        let image: Image = place.cx(|cx| place.services.images.get(cx, &reference)).unwrap();
        assert_eq!(image.target, pulled.target);
        place.assert_clean();
        assert!(place.ingests().is_empty());
    }
}

#[test]
fn content_is_labelled_so_that_nothing_of_the_image_is_collected() {
    needs!(root, overlayfs);
    let (place, peer) = (Place::new(), Peer::start());
    let made = layered();
    let reference = peer.serve("lib/x", "v1", made.clone());
    let pulled = place.pull(&reference).unwrap();
    let labels = |digest: &str| {
        let digest = digest.parse().unwrap();
        place.cx(|cx| place.services.content.info(cx, &digest)).unwrap().labels
    };
    let manifest = labels(pulled.target.digest.as_str());
    assert_eq!(manifest.keys().filter(|key| key.starts_with("containerd.io/gc.ref.content.l.")).count(), 4);
    assert!(manifest.contains_key("containerd.io/gc.ref.content.config"));
    let source = format!("{}{}", label::DISTRIBUTION_SOURCE, peer.host());
    assert_eq!(manifest.get(&source).map(String::as_str), Some("lib/x"));
    let config = labels(&made.blobs[4].digest);
    let chain_id = pulled.unpacked[0].chain_id.clone().unwrap();
    let key = format!("{}overlayfs", label::GC_REF_SNAPSHOT);
    assert_eq!(config.get(&key).map(String::as_str), Some(chain_id.as_str()));
    for blob in &made.blobs[..4] {
        assert!(labels(&blob.digest).contains_key(label::UNCOMPRESSED));
    }
    place.store.collect().unwrap();
    assert_eq!(place.snapshots().len(), 4);
    let (reference, again) = (reference.clone(), place.pull(&reference).unwrap());
    assert_eq!(again.target, pulled.target, "{reference}");
    place.cx(|cx| place.services.images.delete(cx, &reference, &Default::default())).unwrap();
    place.store.collect().unwrap();
    assert!(place.snapshots().is_empty(), "what nothing names is collected");
}

#[test]
fn a_second_pull_fetches_nothing() {
    needs!(root, overlayfs);
    let (place, peer) = (Place::new(), Peer::start());
    let reference = peer.serve("x", "v1", busybox());
    place.pull(&reference).unwrap();
    let before = peer.requests().len();
    let (again, events) = place.told(place.order(&reference, "overlayfs"));
    again.unwrap();
    let methods: Vec<_> = peer.requests()[before..].iter().map(|request| request.method.clone()).collect();
    assert_eq!(methods, ["HEAD"]);
    let existing = events.iter().filter(|event| event.event == "already exists").count();
    assert_eq!(existing, 3, "{events:#?}");
}

/// Damages or removes the stored bytes of `digest`.
fn damage(place: &Place, digest: &str, how: &str) {
    let path = place.dir.path().join("root/io.containerd.content.v1.content/blobs");
    let path = path.join(digest.replace(':', "/"));
    let mut bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    match how {
        "flip" => bytes[20] ^= 4,
        "cut" => bytes.truncate(bytes.len() / 2),
        "empty" => bytes.clear(),
        _ => return,
    }
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn a_pull_repairs_damaged_and_missing_blobs() {
    needs!(root, overlayfs);
    let (place, peer) = (Place::new(), Peer::start());
    let image = layered();
    let layers: Vec<String> = image.blobs.iter().map(|blob| blob.digest.clone()).collect();
    let reference = peer.serve("x", "v1", image);
    for snapshotter in ["overlayfs", "native"] {
        let pulled = place.run(place.order(&reference, snapshotter)).unwrap();
        let chain = pulled.unpacked[0].chain_id.clone().unwrap();
        let tree = place.tree(snapshotter, &chain);
        let digests = layers.iter().map(String::as_str).chain([pulled.target.digest.as_str()]);
        for (at, digest) in digests.enumerate() {
            let how = ["flip", "cut", "missing", "empty"][at % 4];
            for how in [how, "flip"] {
                // The snapshots go, so that the layers are needed again.
                let driver = place.driver(snapshotter);
                place.cx(|cx| {
                    loop {
                        let all = driver.list(cx, &model::Filters::default()).unwrap();
                        if all.is_empty() {
                            break;
                        }
                        // Those that others stand on go in a later round.
                        all.iter().for_each(|info| drop(driver.remove(cx, &info.name)));
                    }
                });
                damage(&place, digest, how);
                let again = place.run(place.order(&reference, snapshotter)).unwrap();
                assert_eq!(again.target, pulled.target);
                assert_eq!(place.tree(snapshotter, &chain), tree, "{how} {digest}");
                place.assert_clean();
            }
        }
        assert!(place.store.check().unwrap().iter().all(|problem| !problem.is_loss()));
    }
}

#[test]
fn progress_tells_the_tree_and_ends_each_node() {
    needs!(root, overlayfs);
    let (place, peer) = (Place::new(), Peer::start());
    let reference = peer.serve("x", "v1", Made::index(vec![busybox()]));
    let (done, events) = place.told(place.order(&reference, "overlayfs"));
    done.unwrap();
    let words: Vec<_> = events.iter().filter(|e| e.name.is_empty()).map(|e| e.event.clone()).collect();
    assert_eq!(
        words,
        [
            format!("Resolving from OCI Registry ({reference})"),
            format!("Pulling from OCI Registry ({reference})"),
            format!("Completed pull from OCI Registry ({reference})"),
        ]
    );
    for (prefix, last, parent) in [
        ("index-", "complete", reference.as_str()),
        ("manifest-", "complete", "index-"),
        ("config-", "complete", "manifest-"),
        ("layer-", "extracted", "manifest-"),
    ] {
        let of_node: Vec<_> = events.iter().filter(|event| event.name.starts_with(prefix)).collect();
        assert_eq!(of_node[0].event, "waiting", "{prefix}");
        assert!(of_node[0].parents[0].starts_with(parent), "{prefix}: {:?}", of_node[0].parents);
        let end = of_node[of_node.len() - 1];
        assert_eq!((end.event.as_str(), end.progress), (last, end.total), "{prefix}");
    }
    assert!(events.iter().any(|event| event.event == "saved" && event.name == reference));
}

#[test]
fn of_an_index_only_the_chosen_platform_is_fetched() {
    needs!(root, overlayfs);
    let (place, peer) = (Place::new(), Peer::start());
    let other = Build::new()
        .architecture("s390x")
        .layer(Layer::gzip(Archive::new().file("other", 0o644, b"o").finish()))
        .build();
    let other_layer = other.blobs[0].digest.clone();
    let reference = peer.serve("x", "v1", Made::index(vec![other, busybox()]));
    place.pull(&reference).unwrap();
    assert_eq!(peer.count("GET", &other_layer), 0);
    let mut order = place.order(&reference, "overlayfs");
    order.platforms = vec!["linux/riscv64".parse().unwrap()];
    let error = place.run(order).unwrap_err();
    assert_eq!(
        (error.kind(), error.text()),
        (Kind::NotFound, "no match for platform in manifest: not found")
    );
    let mut order = place.order(&reference, "overlayfs");
    order.platforms.clear();
    assert_eq!(place.run(order).unwrap().unpacked.len(), 1);
    assert_eq!(peer.count("GET", &other_layer), 1);
    place.assert_clean();
}

#[test]
fn a_mirror_of_hosts_toml_is_asked_in_the_registrys_place() {
    needs!(root, overlayfs, program "docker-registry");
    let (place, registry) = (Place::new(), Registry::start());
    registry.push("library/nginx", "alpine", &busybox());
    let mut order = place.order("docker.io/library/nginx:alpine", "overlayfs");
    order.registry.default_scheme = None;
    let root = registry.mirror_of("docker.io", place.dir.path());
    order.registry.hosts_dir = Some(root.display().to_string());
    place.run(order).unwrap();
    let image = place.cx(|cx| place.services.images.get(cx, "docker.io/library/nginx:alpine")).unwrap();
    let labels = place.cx(|cx| place.services.content.info(cx, &image.target.digest)).unwrap().labels;
    assert_eq!(labels["containerd.io/distribution.source.docker.io"], "library/nginx");
}

#[test]
fn a_mirror_is_told_whom_it_mirrors_and_the_next_one_serves_what_it_lacks() {
    needs!(root, overlayfs);
    let (place, empty, full) = (Place::new(), Peer::start(), Peer::start());
    full.serve("library/x", "v1", busybox());
    let text = format!("[host.\"http://{}\"]\n[host.\"http://{}\"]\n", empty.host(), full.host());
    let root = registry::mirror("r.example", "http://unused", place.dir.path());
    std::fs::write(root.join("r.example/hosts.toml"), text).unwrap();
    let mut order = place.order("r.example/library/x:v1", "overlayfs");
    order.registry.hosts_dir = Some(root.display().to_string());
    place.run(order).unwrap();
    assert!(empty.requests().iter().all(|request| request.path.ends_with("?ns=r.example")));
    assert!(!empty.requests().is_empty());
}

#[test]
fn the_same_image_can_be_pulled_many_times_at_once() {
    needs!(root, overlayfs);
    let (place, peer) = (Place::new(), Peer::start());
    let reference = peer.serve("x", "v1", layered());
    let place = Arc::new(place);
    place.block_on(async {
        let pulls = (0..6).map(|at| {
            let order = place.order(&reference, if at % 2 == 0 { "overlayfs" } else { "native" });
            image::pull::run(&place.ctx, &place.services, order, None)
        });
        for pulled in futures_util::future::join_all(pulls).await {
            pulled.unwrap();
        }
    });
    assert_eq!(place.snapshots().len(), 4, "both drivers name their four snapshots alike");
    let blobs = peer.count("GET", "/blobs/");
    assert_eq!(blobs, 5, "each blob is fetched once");
    place.assert_clean();
}

#[test]
fn a_large_blob_is_shared_by_several_connections() {
    needs!(root, overlayfs);
    let (place, peer) = (Place::new(), Peer::start());
    let noise: Vec<u8> =
        (0..3_000_000_u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
    let layer = Layer::plain(Archive::new().file("noise", 0o644, &noise).finish());
    let reference = peer.serve("x", "v1", Build::new().layer(layer).build());
    let mut order = place.order(&reference, "overlayfs");
    order.registry.limits.piece = 256 << 10;
    order.registry.limits.split_from = 1 << 20;
    order.registry.limits.split_always = true;
    let pulled = place.run(order).unwrap();
    let chain_id = pulled.unpacked[0].chain_id.as_ref().unwrap();
    assert!(place.tree("overlayfs", chain_id).contains_key("noise"));
    let ranged = peer.requests().iter().filter(|request| request.headers.contains_key("range")).count();
    assert_eq!(ranged, 12);
}

#[test]
fn a_caller_that_leaves_leaves_nothing() {
    needs!(root, overlayfs);
    let (place, peer) = (Place::new(), Peer::start());
    let reference = peer.serve("x", "v1", busybox());
    peer.fail("GET", "/blobs/", testkit::peer::Fault::StallAfter(100_000));
    let mut order = place.order(&reference, "overlayfs");
    order.registry.limits.idle = std::time::Duration::from_secs(600);
    place.block_on(async {
        let pull = image::pull::run(&place.ctx, &place.services, order, None);
        let stalled = place.ctx.blocking(Lane::Wait, move |_| {
            peer.waits_for("GET", "/blobs/");
            Ok(peer)
        });
        tokio::select! {
            _ = pull => panic!("the peer never answers"),
            _ = stalled => {}
        }
    });
    testkit::wait::eventually(std::time::Duration::from_secs(20), "the transfer has undone its work", || {
        (place.leases() == 0 && place.snapshots().is_empty()).then_some(())
    });
}
