//! Bad peers: a clear error or a pull that goes on, and nothing half made.

use spec::{Kind, media};
use testkit::http::Response;
use testkit::image::{Blob, Build, Image, Layer, busybox};
use testkit::needs;
use testkit::peer::{Fault, Peer};
use testkit::tar::Archive;

use crate::place::Place;

/// A peer with busybox, its reference, and the digest of its layer.
fn peer() -> (Place, Peer, String, String) {
    let (place, peer, image) = (Place::new(), Peer::start(), busybox());
    let layer = image.blobs[0].digest.clone();
    let reference = peer.serve("x", "v1", image);
    (place, peer, reference, layer)
}

/// A pull under `faults` must end well.
#[track_caller]
fn recovers(method: &str, part: &str, faults: Vec<(Fault, usize)>) -> (Place, Peer) {
    let (place, peer, reference, layer) = peer();
    let part = part.replace("LAYER", &layer);
    for (fault, times) in faults {
        peer.fail(method, &part, fault).times(times);
    }
    let pulled = place.pull(&reference).unwrap();
    let chain_id = pulled.unpacked[0].chain_id.as_ref().unwrap();
    assert_eq!(place.tree("overlayfs", chain_id)["etc/release-of"], "busybox\n");
    place.assert_clean();
    (place, peer)
}

/// A pull under `fault` must fail with `kind` and a text that holds `text`, leaving nothing half made.
#[track_caller]
fn fails(method: &str, part: &str, fault: Fault, kind: Kind, text: &str) -> Place {
    let (place, peer, reference, layer) = peer();
    peer.fail(method, &part.replace("LAYER", &layer), fault);
    let error = place.pull(&reference).unwrap_err();
    assert!(error.text().contains(text), "{error}");
    assert_eq!(error.kind(), kind, "{error}");
    place.assert_clean();
    assert!(place.snapshots().is_empty());
    assert!(place.cx(|cx| place.services.images.get(cx, &reference)).is_err(), "no name for half an image");
    place
}

#[test]
fn a_cut_blob_goes_on_where_it_ended() {
    needs!(root, overlayfs);
    let (_place, peer) = recovers("GET", "LAYER", vec![(Fault::CutAfter(100_000), 3)]);
    let ranges: Vec<_> =
        peer.requests().iter().filter_map(|request| request.headers.get("range").cloned()).collect();
    assert_eq!(ranges, ["bytes=100000-", "bytes=200000-", "bytes=300000-"]);
}

#[test]
fn a_stalled_blob_goes_on_where_it_stopped() {
    needs!(root, overlayfs);
    recovers("GET", "LAYER", vec![(Fault::StallAfter(200_000), 1)]);
}

#[test]
fn wrong_bytes_are_fetched_again() {
    needs!(root, overlayfs);
    recovers("GET", "LAYER", vec![(Fault::Corrupt, 1)]);
    recovers("GET", "/manifests/sha256", vec![(Fault::Corrupt, 1)]);
}

#[test]
fn a_busy_registry_is_asked_again() {
    needs!(root, overlayfs);
    let busy = Fault::Answer(Response::new(429, "").header("retry-after", "0"));
    recovers("GET", "LAYER", vec![(busy.clone(), 2)]);
    recovers("HEAD", "/manifests/", vec![(busy, 2)]);
    recovers("GET", "LAYER", vec![(Fault::status(503), 2)]);
    recovers("GET", "/manifests/", vec![(Fault::status(500), 2)]);
    recovers("GET", "LAYER", vec![(Fault::Garbage(b"\x16\x03nonsense\n".to_vec()), 2)]);
}

#[test]
fn a_broken_answer_of_a_port_that_may_speak_tls_settles_nothing() {
    needs!(root, overlayfs);
    let garbage = || Fault::Garbage(b"\x15\x03\x01nonsense\n".to_vec());
    for part in ["/manifests/", "/blobs/"] {
        let (place, peer, reference, _) = peer();
        peer.fail("HEAD", part, garbage()).times(1);
        peer.fail("GET", part, garbage()).times(1);
        let mut order = place.order(&reference, "overlayfs");
        order.registry.default_scheme = None;
        place.run(order).unwrap();
    }
}

#[test]
fn what_never_ends_well_is_an_error() {
    needs!(root, overlayfs);
    fails("GET", "LAYER", Fault::Corrupt, Kind::FailedPrecondition, "digest");
    fails("GET", "LAYER", Fault::CutAfter(0), Kind::Unavailable, "failed");
    fails("GET", "LAYER", Fault::status(503), Kind::Unavailable, "503");
    fails("GET", "LAYER", Fault::status(429), Kind::ResourceExhausted, "429");
    fails("GET", "LAYER", Fault::status(404), Kind::NotFound, "could not fetch content descriptor sha256:");
    fails(
        "GET",
        "LAYER",
        Fault::status(403),
        Kind::PermissionDenied,
        "server message: scripted: scripted 403",
    );
    fails("HEAD", "/manifests/", Fault::status(404), Kind::NotFound, "x:v1: not found");
    fails("HEAD", "/manifests/", Fault::status(401), Kind::Unauthenticated, "pull access denied");
}

#[test]
fn a_peer_that_never_answers_is_an_error_after_the_deadline() {
    needs!(root, overlayfs);
    fails("HEAD", "/manifests/", Fault::Silence, Kind::DeadlineExceeded, "no answer within 2s");
    fails("GET", "LAYER", Fault::Silence, Kind::DeadlineExceeded, "no answer within 2s");
}

#[test]
fn a_failed_pull_leaves_its_bytes_to_the_next() {
    needs!(root, overlayfs);
    let (place, peer, reference, layer) = peer();
    peer.fail("GET", &layer, Fault::status(404)).times(1);
    peer.fail("GET", &layer, Fault::CutAfter(150_000)).times(1);
    place.pull(&reference).unwrap_err();
    place.store.collect().unwrap();
    assert_eq!(place.ingests(), [(format!("layer-{layer}"), 150_000)]);
    peer.fail("GET", &layer, Fault::CutAfter(1_000_000)).times(1);
    let pulled = place.pull(&reference).unwrap();
    let last = peer.requests();
    let ranges: Vec<_> = last.iter().filter_map(|request| request.headers.get("range")).collect();
    assert_eq!(ranges[ranges.len() - 1], "bytes=1150000-");
    assert!(pulled.unpacked[0].chain_id.is_some());
    place.cx(|cx| place.services.images.delete(cx, &reference, &Default::default())).unwrap();
    place.store.collect().unwrap();
    let left = place.cx(|cx| place.services.content.list(cx, &model::Filters::default())).unwrap();
    assert!(left.is_empty(), "nothing waits for another try any more");
}

#[test]
fn malformed_documents_are_named() {
    needs!(root, overlayfs);
    let bad = |media_type: &str, text: &str| {
        let (place, peer) = (Place::new(), Peer::start());
        let image = Image { blobs: vec![], manifests: vec![Blob::new(media_type, text.into())] };
        let reference = peer.serve("x", "v1", image);
        let error = place.pull(&reference).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
        place.assert_clean();
        error.to_string()
    };
    assert!(bad(media::MANIFEST, "{").contains("malformed"));
    assert!(bad(media::INDEX, "[1]").contains("malformed"));
    assert!(bad(media::MANIFEST, r#"{"schemaVersion":2}"#).contains("missing field `config`"));
    let both = r#"{"schemaVersion":2,"manifests":[]}"#;
    assert!(bad(media::MANIFEST, both).contains("expected manifest but found index"));
    assert!(bad(media::DOCKER_MANIFEST_V1, "{}").contains("schema 1"));
    let negative = r#"{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":-5}]}"#;
    assert!(bad(media::INDEX, negative).contains("malformed"));
    let entry = |number: u32| {
        let digest = testkit::image::sha256(&number.to_be_bytes());
        serde_json::json!({ "mediaType": media::MANIFEST, "digest": digest, "size": 8 << 20 })
    };
    let many = serde_json::json!({ "schemaVersion": 2, "manifests": (0..40).map(entry).collect::<Vec<_>>() });
    assert!(bad(media::INDEX, &many.to_string()).contains("bytes of documents"), "before any is fetched");
    let path =
        r#"{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:../../../etc","size":5}]}"#;
    assert!(bad(media::INDEX, path).contains("malformed"));
}

#[test]
fn a_layer_that_is_not_what_its_config_says_is_refused() {
    needs!(root, overlayfs);
    let (place, peer) = (Place::new(), Peer::start());
    let mut layer = Layer::gzip(Archive::new().file("a", 0o644, b"a").finish());
    layer.diff_id = testkit::image::sha256(b"something else");
    let reference = peer.serve("x", "v1", Build::new().layer(layer).build());
    let error = place.pull(&reference).unwrap_err();
    assert!(error.text().starts_with("wrong diff id"), "{error}");
    place.assert_clean();
    assert!(place.snapshots().is_empty());
    let mut lying = busybox();
    let mut config: serde_json::Value = serde_json::from_slice(&lying.blobs[1].bytes).unwrap();
    config["rootfs"]["diff_ids"] = serde_json::json!([]);
    lying.blobs[1] = Blob::new(&lying.blobs[1].media_type, config.to_string().into_bytes());
    let mut manifest: serde_json::Value = serde_json::from_slice(&lying.manifests[0].bytes).unwrap();
    manifest["config"] = lying.blobs[1].descriptor();
    lying.manifests[0] = Blob::new(&lying.manifests[0].media_type, manifest.to_string().into_bytes());
    let reference = peer.serve("y", "v1", lying);
    let error = place.pull(&reference).unwrap_err();
    assert!(error.text().contains("number of layers and diffIDs don't match: 1 != 0"), "{error}");
}

#[test]
fn a_blob_of_another_length_than_its_descriptor_says_is_refused() {
    needs!(root, overlayfs);
    let (place, peer) = (Place::new(), Peer::start());
    for (name, delta) in [("longer", -10_i64), ("shorter", 10)] {
        let mut image = busybox();
        let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifests[0].bytes).unwrap();
        let size = manifest["layers"][0]["size"].as_i64().unwrap() + delta;
        manifest["layers"][0]["size"] = size.into();
        image.manifests[0] = Blob::new(&image.manifests[0].media_type, manifest.to_string().into_bytes());
        let reference = peer.serve(name, "v1", image);
        let error = place.pull(&reference).unwrap_err();
        let wanted = if delta < 0 { "longer than" } else { "unexpected EOF after" };
        assert!(error.text().contains(wanted), "{name}: {error}");
        place.assert_clean();
    }
}

#[test]
fn a_bad_layer_among_good_ones_leaves_no_snapshot_half_made() {
    needs!(root, overlayfs);
    let (place, peer) = (Place::new(), Peer::start());
    let good = |name: &str| Layer::gzip(Archive::new().file(name, 0o644, b"x").finish());
    let garbage = vec![0x42; 2000];
    let bad = Layer {
        diff_id: testkit::image::sha256(&garbage),
        blob: Blob::new("application/vnd.oci.image.layer.v1.tar", garbage),
    };
    let image = Build::new().layer(good("1")).layer(bad).layer(good("3")).build();
    let reference = peer.serve("x", "v1", image);
    for snapshotter in ["overlayfs", "native"] {
        let error = place.run(place.order(&reference, snapshotter)).unwrap_err();
        assert!(error.text().contains("failed to extract layer"), "{error}");
        place.assert_clean();
        assert!(place.snapshots().len() <= 1, "only what lies below the bad layer");
    }
}

#[test]
fn a_dead_daemons_transfer_keeps_its_content_and_loses_its_half_made_snapshots() {
    needs!(root, overlayfs);
    let (place, peer, reference, _) = peer();
    let none = std::collections::BTreeMap::new();
    let mark = [("io.berth.transfer".to_owned(), "true".to_owned())].into();
    let lease = place.cx(|cx| place.services.leases.create(cx, None, &mark)).unwrap();
    let dead = place.ctx.with_lease(lease.id.parse().unwrap());
    let driver = place.driver("overlayfs");
    dead.on_this_thread(|cx| driver.prepare(cx, "extract-1 sha256:x", "", &none)).unwrap();
    let mut order = place.order(&reference, "overlayfs");
    order.unpack.clear();
    place.block_on(image::pull::run(&dead, &place.services, order, None)).unwrap();
    place.cx(|cx| place.services.images.delete(cx, &reference, &Default::default())).unwrap();
    place.store.collect().unwrap();
    assert_eq!(place.snapshots().len(), 1, "the lease holds it");
    place.cx(|cx| image::remains::adopt(cx, &*place.services.leases)).unwrap();
    place.store.collect().unwrap();
    assert!(place.snapshots().is_empty());
    let before = peer.count("GET", "/blobs/");
    place.pull(&reference).unwrap();
    assert_eq!(peer.count("GET", "/blobs/"), before, "nothing is fetched again");
}

#[test]
fn a_missing_layer_ends_the_pull_while_others_still_come() {
    needs!(root, overlayfs);
    let (place, peer) = (Place::new(), Peer::start());
    let layer = |name: &str| Layer::gzip(Archive::new().file(name, 0o644, name.as_bytes()).finish());
    let image = Build::new().layer(layer("slow")).layer(layer("missing")).build();
    let (slow, missing) = (image.blobs[0].digest.clone(), image.blobs[1].digest.clone());
    let reference = peer.serve("x", "v1", image);
    peer.fail("GET", &slow, Fault::StallAfter(10));
    peer.fail("GET", &missing, Fault::status(404));
    let mut order = place.order(&reference, "overlayfs");
    order.registry.limits.idle = std::time::Duration::from_secs(600);
    let error = place.run(order).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    place.assert_clean();
    assert!(place.snapshots().is_empty());
}

/// A file system in memory of so many bytes, taken away at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let dir = testkit::place::temp();
        let option = format!("size={size}");
        let target = dir.path().display().to_string();
        let mount = testkit::place::program("mount").unwrap();
        testkit::command::Run::new(mount)
            .args(["-t", "tmpfs", "-o", option.as_str(), "bth", target.as_str()])
            .ok();
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let target = self.0.path().display().to_string();
        let umount = testkit::place::program("umount").unwrap();
        testkit::command::Run::new(umount).args([target.as_str()]).ok();
    }
}

#[test]
fn a_full_disk_is_said_and_given_back() {
    needs!(root, overlayfs);
    let (disk, peer) = (SmallDisk::new("24m"), Peer::start());
    let noise: Vec<u8> =
        (0..40_000_000_u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
    let layer = Layer::plain(Archive::new().file("noise", 0o644, &noise).finish());
    let reference = peer.serve("x", "v1", Build::new().layer(layer).build());
    let small = peer.serve("y", "v1", busybox());
    let place = Place::on(disk.0.path());
    let error = place.pull(&reference).unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted, "{error}");
    assert!(error.text().contains("No space left on device"), "{error}");
    place.assert_clean();
    place.store.collect().unwrap();
    assert!(place.ingests().is_empty(), "a full disk is no place to keep half a blob");
    place.pull(&small).unwrap();
}

#[test]
fn refused_range_of_a_resumed_blob_starts_again_from_the_beginning() {
    needs!(root, overlayfs);
    for status in [416, 400, 501] {
        let refusal = Fault::Answer(Response::new(status, ""));
        let (_place, peer) = recovers("GET", "LAYER", vec![(refusal, 1), (Fault::CutAfter(100_000), 1)]);
        let requests = peer.requests();
        let blobs = requests.iter().filter(|request| request.path.contains("/blobs/sha256"));
        let ranges: Vec<_> = blobs.map(|request| request.headers.contains_key("range")).collect();
        assert_eq!(ranges.iter().filter(|ranged| **ranged).count(), 1, "{status}: {ranges:?}");
    }
}

#[test]
fn partial_answer_without_its_place_is_taken_at_its_word() {
    needs!(root, overlayfs);
    let image = busybox();
    let rest = Fault::Answer(Response::new(206, &image.blobs[0].bytes[100_000..]));
    recovers("GET", "LAYER", vec![(rest, 1), (Fault::CutAfter(100_000), 1)]);
}
