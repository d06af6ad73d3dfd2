//! Archives in and out, ours and those of other tools.

use std::io::{Cursor, Write};
use std::sync::{Arc, Mutex};

use image::archive::export::{self, Export};
use image::archive::import::{self, Import, Imported};
use image::names::{Extra, Names};
use model::diff::Apply;
use spec::{Kind, Platform, Result};
use testkit::command::Run;
use testkit::image::{Build, Image, Layer, busybox, sha256};
use testkit::needs;
use testkit::peer::Peer;
use testkit::tar::Archive;

use crate::place::Place;

/// Imports `bytes` under the names that it carries.
fn import(place: &Place, bytes: &[u8], snapshotter: Option<&str>) -> Result<Imported> {
    let any = Extra { name: "import".into(), is_prefix: true, allow_overwrite: true, ..Extra::default() };
    let order = Import {
        names: Names { extra: vec![any], ..Names::default() },
        platforms: Vec::new(),
        unpack: snapshotter
            .map(|name| image::Unpack {
                platform: Platform::host(),
                snapshotter: name.into(),
                driver: place.driver(name),
                told_of: None,
            })
            .into_iter()
            .collect(),
        apply: Apply::default(),
        discard_layers: false,
        compress: false,
    };
    let stream = Box::new(Cursor::new(bytes.to_vec()));
    place.block_on(import::run(&place.ctx, &place.services, order, stream, None))
}

/// A stream that keeps what is written.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn export(place: &Place, names: &[&str]) -> Vec<u8> {
    let image = |name: &&str| place.cx(|cx| place.services.images.get(cx, name)).unwrap();
    let images = names.iter().map(|name| ((*name).to_owned(), image(name).target)).collect();
    let kept = Kept::default();
    let order = Export { images, ..Export::default() };
    place.block_on(export::run(&place.ctx, &place.services, order, Box::new(kept.clone()), None)).unwrap();
    std::mem::take(&mut *kept.0.lock().unwrap())
}

#[test]
fn an_oci_archive_is_imported_and_unpacked_whatever_is_around_it() {
    needs!(root, overlayfs);
    let plain = busybox().archive("docker.io/library/busy:v1");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    for bytes in [plain, gzip.finish().unwrap(), zstd] {
        let place = Place::new();
        let done = import(&place, &bytes, Some("overlayfs")).unwrap();
        assert_eq!(done.images[0].name, "docker.io/library/busy:v1");
        let tree = place.tree("overlayfs", done.unpacked[0].chain_id.as_ref().unwrap());
        assert_eq!(tree["etc/release-of"], "busybox\n");
        place.assert_clean();
        place.store.collect().unwrap();
        assert_eq!(place.snapshots().len(), 1, "what the name holds is not collected");
    }
}

#[test]
fn an_export_is_imported_with_the_same_names_and_digests() {
    needs!(root, overlayfs);
    let (place, peer) = (Place::new(), Peer::start());
    let reference =
        peer.serve("a/x", "v1", Image::index(vec![Build::new().architecture("s390x").build(), busybox()]));
    place.pull(&reference).unwrap();
    let bytes = export(&place, &[&reference]);
    assert_eq!(
        sha256(&bytes),
        sha256(&export(&place, &[&reference])),
        "the same images make the same archive"
    );
    let other = Place::new();
    let done = import(&other, &bytes, Some("native")).unwrap();
    assert_eq!(done.images[0].name, reference);
    let target = place.cx(|cx| place.services.images.get(cx, &reference)).unwrap().target;
    assert_eq!(done.images[0].target.digest, target.digest);
    assert!(done.unpacked[0].chain_id.is_some(), "the platform that the archive holds");
}

#[test]
fn another_tool_reads_our_archive_and_we_read_its() {
    needs!(root, overlayfs, program "skopeo");
    let (place, peer) = (Place::new(), Peer::start());
    let reference = peer.serve("a/x", "v1", busybox());
    place.pull(&reference).unwrap();
    let dir = place.dir.path();
    std::fs::write(dir.join("ours.tar"), export(&place, &[&reference])).unwrap();
    let path = |name: &str| dir.join(name).display().to_string();
    let skopeo = testkit::place::program("skopeo").unwrap();
    let policy = "--insecure-policy";
    let copy = |from: String, to: String| {
        Run::new(&skopeo).args([policy, "copy", from.as_str(), to.as_str()]).ok();
    };
    copy(format!("oci-archive:{}", path("ours.tar")), format!("docker-archive:{}:x:v2", path("docker.tar")));
    copy(format!("docker-archive:{}", path("ours.tar")), format!("oci-archive:{}:x:v3", path("oci.tar")));
    let other = Place::new();
    let docker = import(&other, &std::fs::read(path("docker.tar")).unwrap(), Some("overlayfs")).unwrap();
    assert_eq!(docker.images[0].name, "docker.io/library/x:v2");
    let tree = other.tree("overlayfs", docker.unpacked[0].chain_id.as_ref().unwrap());
    assert_eq!(tree["etc/release-of"], "busybox\n");
    let oci = import(&other, &std::fs::read(path("oci.tar")).unwrap(), None).unwrap();
    assert!(oci.images[0].name.ends_with("x:v3"), "{}", oci.images[0].name);
}

#[test]
fn what_is_no_image_archive_is_refused() {
    needs!(root, overlayfs);
    let refused = |bytes: Vec<u8>, text: &str| {
        let place = Place::new();
        let error = import(&place, &bytes, None).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
        assert!(error.text().contains(text), "{error}");
        place.assert_clean();
        assert!(place.ingests().is_empty());
    };
    refused(Vec::new(), "unrecognized image format");
    refused(vec![1; 4096], "invalid tar header");
    refused(Archive::new().file("x", 0o644, b"y").finish(), "unrecognized image format");
    let layout = || Archive::new().file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
    refused(layout().finish(), "missing index.json");
    refused(Archive::new().file("oci-layout", 0o644, b"{").finish(), "malformed oci-layout");
    let rows = br#"[{"Config":"../../etc/passwd","RepoTags":["x:y"],"Layers":[]}]"#;
    refused(
        Archive::new().file("manifest.json", 0o644, rows).finish(),
        "image config \"../../etc/passwd\" not found",
    );
    let mut cut = busybox().archive("x/y:z");
    cut.truncate(cut.len() / 2);
    refused(cut, "cannot read the archive");
}

#[test]
fn a_blob_that_is_not_what_its_name_says_is_refused() {
    needs!(root, overlayfs);
    let place = Place::new();
    let layer = Layer::plain(Archive::new().file("a", 0o644, b"a").finish());
    let mut image = Build::new().layer(layer).build();
    image.blobs[0].bytes[0] ^= 1;
    let error = import(&place, &image.archive("x.example/y:z"), None).unwrap_err();
    assert!(error.text().contains("failed to ingest \"blobs/sha256/"), "{error}");
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    place.assert_clean();
    assert!(place.ingests().is_empty());
}
