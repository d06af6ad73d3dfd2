//! Registries that misbehave: a clear error in bounded time, nothing half done, and the next pull works.

use std::time::Duration;

use testkit::daemon::Daemon;
use testkit::http::Response;
use testkit::image::{self, Blob, Build, Image, Layer};
use testkit::needs;
use testkit::peer::{Fault, Peer};
use testkit::tar::Archive;

/// A pull that must fail within this time whatever the registry does.
const LIMIT: Duration = Duration::from_secs(150);

/// One layer of bytes that do not pack, so that a cut falls inside it.
fn big() -> Image {
    let mut word = 88_172_645_463_325_252_u64;
    let data: Vec<u8> = (0..3_000_000)
        .map(|_| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word as u8
        })
        .collect();
    Build::new().layer(Layer::gzip(Archive::new().file("data", 0o644, &data).finish())).build()
}

/// Pulls while `fault` holds for requests of `method` with `part` in their path; returns what ctr said.
fn fails(method: &str, part: &str, fault: Fault) -> String {
    let (peer, daemon) = (Peer::start(), Daemon::start());
    let reference = peer.serve("thing", "v1", big());
    peer.fail(method, part, fault.clone());
    if method == "GET" && part == "/manifests/" {
        // A resolver may ask by HEAD first.
        peer.fail("HEAD", part, fault);
    }
    let said = daemon.ctr("image pull --plain-http").args([&reference]).limit(LIMIT).fails();
    assert_eq!(daemon.ctr("image ls -q").ok(), "", "a failed pull is no image");
    daemon.ctr("version").ok();
    said
}

#[track_caller]
fn says(said: &str, words: &[&str]) {
    let lower = said.to_lowercase();
    assert!(words.iter().any(|word| lower.contains(&word.to_lowercase())), "none of {words:?} in: {said}");
}

#[test]
fn a_blob_that_stops_in_the_middle_is_resumed_where_it_stopped() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    let (peer, daemon) = (Peer::start(), Daemon::start());
    let image = big();
    let layer = image.blobs[0].digest.clone();
    let reference = peer.serve("thing", "v1", image);
    peer.fail("GET", &layer, Fault::CutAfter(1_000_000)).times(1);
    daemon.ctr("image pull --plain-http").args([&reference]).limit(LIMIT).ok();
    let ranges: Vec<_> =
        peer.requests().into_iter().filter_map(|request| request.headers.get("range").cloned()).collect();
    assert!(
        ranges.iter().any(|range| !range.starts_with("bytes=0-")),
        "not from the start again: {ranges:?}"
    );
}

#[test]
fn a_blob_that_stops_for_good_is_an_error() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    fails("GET", "/blobs/", Fault::CutAfter(0));
}

#[test]
fn a_registry_that_never_answers_meets_a_deadline() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    says(&fails("GET", "/manifests/", Fault::Silence), &["deadline", "timeout", "timed out", "no answer"]);
}

#[test]
fn a_blob_that_stalls_meets_a_deadline() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    says(
        &fails("GET", "/blobs/", Fault::StallAfter(0)),
        &["deadline", "timeout", "timed out", "no further byte"],
    );
}

#[test]
fn wrong_bytes_name_the_digest() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    says(&fails("GET", "/blobs/", Fault::Corrupt), &["digest"]);
}

#[test]
fn a_refusal_keeps_its_status() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    for (status, words) in [
        (401, &["401", "unauthorized", "authorization"][..]),
        (403, &["403", "forbidden", "denied"]),
        (404, &["404", "not found"]),
        (429, &["429", "too many"]),
        (500, &["500", "internal server error"]),
        (503, &["503", "unavailable"]),
    ] {
        says(&fails("GET", "/manifests/", Fault::status(status)), words);
    }
}

#[test]
fn a_moment_of_overload_is_waited_out() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    let (peer, daemon) = (Peer::start(), Daemon::start());
    let reference = peer.serve("thing", "v1", big());
    let busy = Fault::Answer(Response::new(429, "").header("retry-after", "1"));
    peer.fail("GET", "/blobs/", busy).times(1);
    daemon.ctr("image pull --plain-http").args([&reference]).limit(LIMIT).ok();
}

#[test]
fn what_is_no_http_is_an_error() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    fails("GET", "/manifests/", Fault::Garbage(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()));
}

#[test]
fn documents_that_make_no_sense_are_refused() {
    needs!(root, overlayfs, built "containerd", built "ctr");
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let config = Blob::new("application/vnd.oci.image.config.v1+json", b"{}".to_vec());
    let manifest = |text: String| Image {
        blobs: vec![config.clone()],
        manifests: vec![Blob::new(manifest_type, text.into_bytes())],
    };
    let descriptor = config.descriptor();
    let cases = [
        ("no JSON", manifest("{\"schemaVersion\": 2,".into())),
        ("another type", manifest("[1, 2, 3]".into())),
        ("no config", manifest("{\"schemaVersion\":2,\"layers\":[]}".into())),
        (
            "a digest with a path",
            manifest(format!(
                "{{\"schemaVersion\":2,\"config\":{descriptor},\"layers\":[{{\"mediaType\":\"x\",\"digest\":\"sha256:../../../etc/passwd\",\"size\":1}}]}}"
            )),
        ),
        (
            "a negative size",
            manifest(format!(
                "{{\"schemaVersion\":2,\"config\":{descriptor},\"layers\":[{{\"mediaType\":\"x\",\"digest\":\"{}\",\"size\":-1}}]}}",
                config.digest
            )),
        ),
        ("layers that the config does not list", {
            let mut image = Build::new().layer(Layer::gzip(Archive::new().dir("a/", 0o755).finish())).build();
            let bytes = String::from_utf8(image.manifests[0].bytes.clone()).unwrap();
            let empty = Blob::new(
                &config.media_type,
                br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec(),
            );
            let old = image.blobs.last().unwrap().clone();
            let text = bytes.replace(&old.digest, &empty.digest).replace(
                &format!("\"size\":{}", old.bytes.len()),
                &format!("\"size\":{}", empty.bytes.len()),
            );
            image.blobs.push(empty);
            image.manifests[0] = Blob::new(manifest_type, text.into_bytes());
            image
        }),
    ];
    let (peer, daemon) = (Peer::start(), Daemon::start());
    for (number, (what, image)) in cases.into_iter().enumerate() {
        let reference = peer.serve(&format!("odd{number}"), "v1", image);
        let said = daemon.ctr("image pull --plain-http").args([&reference]).limit(LIMIT).run();
        assert!(said.code != 0, "{what} was taken: {said}");
        assert!(!said.stderr.contains("panic"), "{what}: {said}");
    }
    assert_eq!(daemon.ctr("image ls -q").ok(), "");
}

#[test]
fn a_pull_that_failed_leaves_room_for_the_next() {
    needs!(root, overlayfs, program "busybox", built "containerd", built "ctr");
    let (peer, daemon) = (Peer::start(), Daemon::start());
    let reference = peer.serve("thing", "v1", image::busybox());
    peer.fail("GET", "/blobs/", Fault::Corrupt).times(20);
    daemon.ctr("image pull --plain-http").args([&reference]).limit(LIMIT).fails();
    let calm = Peer::start();
    let reference = calm.serve("thing", "v1", image::busybox());
    daemon.ctr("image pull --plain-http").args([&reference]).ok();
    assert_eq!(daemon.ctr("run --rm").args([&reference, "one", "echo", "well"]).ok(), "well\n");
    let bad = daemon.ctr("content ls -q").ok();
    assert_eq!(bad.lines().count(), 3, "layer, config and manifest: {bad}");
}
