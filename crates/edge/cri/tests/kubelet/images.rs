//! The image service over the socket: what is recorded, listed, measured and removed.

use std::time::Duration;

use api::runtime::v1;
use serde_json::Value;
use testkit::image::{Build, Image, Layer};
use testkit::peer::Peer;
use testkit::{needs, wait};

use crate::client::{IMAGE, Kubelet, call, call_images};

/// What the kubelet calls an image.
pub fn named(image: &str) -> Option<v1::ImageSpec> {
    Some(v1::ImageSpec { image: image.into(), ..v1::ImageSpec::default() })
}

/// A pull of `image` as anybody.
pub fn pull_of(image: &str) -> v1::PullImageRequest {
    v1::PullImageRequest { image: named(image), ..v1::PullImageRequest::default() }
}

/// What is told of one image.
pub fn status_of(kubelet: &Kubelet, image: &str) -> Option<v1::Image> {
    let request = v1::ImageStatusRequest { image: named(image), verbose: false };
    call_images!(kubelet, image_status, request).unwrap().image
}

fn list(kubelet: &Kubelet, filter: &str) -> Vec<String> {
    let filter = (!filter.is_empty()).then(|| v1::ImageFilter { image: named(filter) });
    let images = call_images!(kubelet, list_images, v1::ListImagesRequest { filter }).unwrap().images;
    images.into_iter().map(|image| image.id).collect()
}

/// The names in the store that hold `part`, sorted.
fn records(kubelet: &Kubelet, part: &str) -> Vec<String> {
    let names = kubelet.daemon.ctr("-n k8s.io image ls -q").ok();
    let mut names: Vec<String> =
        names.lines().filter(|name| name.contains(part)).map(str::to_owned).collect();
    names.sort();
    names
}

fn small(marker: &str) -> Image {
    let tar = testkit::tar::Archive::new().file("marker", 0o644, marker.as_bytes()).finish();
    Build::new().layer(Layer::gzip(tar)).set("User", Value::from("app:extra")).build()
}

/// The id of an image: the digest of its config, which is its last blob.
pub fn id_of(image: &Image) -> String {
    image.blobs.last().unwrap().digest.clone()
}

#[test]
fn a_pulled_image_has_three_records_and_is_found_by_every_name() {
    needs!(root, overlayfs, built "containerd");
    let (kubelet, peer) = (Kubelet::new(), Peer::start());
    let image = small("records");
    let (id, digest) = (id_of(&image), image.top().digest.clone());
    let size: usize = image.blobs.iter().chain(&image.manifests).map(|blob| blob.bytes.len()).sum();
    let tag = peer.serve("lib/app", "v1", image);
    let by_digest = format!("{}/lib/app@{digest}", peer.host());
    assert_eq!(call_images!(kubelet, pull_image, pull_of(&tag)).unwrap().image_ref, id);
    assert_eq!(records(&kubelet, &peer.host()), [tag.clone(), by_digest.clone()]);
    assert_eq!(records(&kubelet, &id).len(), 1);
    let labels = kubelet.daemon.ctr("-n k8s.io image ls").ok();
    let line = labels.lines().find(|line| line.starts_with(&tag)).unwrap();
    assert!(line.contains("io.cri-containerd.image=managed"), "{line}");
    let expected = v1::Image {
        id: id.clone(),
        repo_tags: vec![tag.clone()],
        repo_digests: vec![by_digest.clone()],
        size: u64::try_from(size).unwrap(),
        username: "app".into(),
        ..v1::Image::default()
    };
    let hex = id.strip_prefix("sha256:").unwrap();
    for name in [&tag, &by_digest, &id, hex, &hex[..12]] {
        assert_eq!(status_of(&kubelet, name).as_ref(), Some(&expected), "{name}");
        assert_eq!(list(&kubelet, name), std::slice::from_ref(&id), "{name}");
    }
    // Busybox is there too.
    assert_eq!(list(&kubelet, "").len(), 2);
    for name in ["registry.example/absent:v1", &"f".repeat(64), &format!("sha256:{}", "f".repeat(64))] {
        assert_eq!(status_of(&kubelet, name), None, "{name}");
        assert_eq!(list(&kubelet, name), [""; 0], "{name}");
    }
    let stream = call_images!(kubelet, stream_images, v1::StreamImagesRequest::default()).unwrap();
    let streamed: Vec<String> =
        kubelet.all(stream).into_iter().flat_map(|message| message.images).map(|image| image.id).collect();
    assert_eq!(streamed, list(&kubelet, ""));
}

#[test]
fn a_verbose_status_has_the_images_own_configuration() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let request = v1::ImageStatusRequest { image: named(IMAGE), verbose: true };
    let info = call_images!(kubelet, image_status, request).unwrap().info;
    assert_eq!(info.keys().collect::<Vec<_>>(), ["info"]);
    let info: Value = serde_json::from_str(&info["info"]).unwrap();
    assert_eq!(info["imageSpec"]["config"]["Cmd"], serde_json::json!(["sh"]));
    assert_eq!(info["imageSpec"]["os"], "linux");
    // Of one layer the chain is the layer.
    assert_eq!(info["chainID"], info["imageSpec"]["rootfs"]["diff_ids"][0]);
}

#[test]
fn an_image_is_removed_by_any_name_with_all_names_and_again() {
    needs!(root, overlayfs, built "containerd");
    let (kubelet, peer) = (Kubelet::new(), Peer::start());
    let image = small("removed");
    let id = id_of(&image);
    let first = peer.serve("lib/app", "v1", image.clone());
    let second = peer.serve("lib/other", "v2", image);
    for name in [&first, &second] {
        assert_eq!(call_images!(kubelet, pull_image, pull_of(name)).unwrap().image_ref, id);
    }
    let both = status_of(&kubelet, &id).unwrap();
    assert_eq!((both.repo_tags.len(), both.repo_digests.len()), (2, 2));
    for _ in 0..2 {
        call_images!(kubelet, remove_image, v1::RemoveImageRequest { image: named(&first) }).unwrap();
        assert_eq!(status_of(&kubelet, &second), None);
    }
    assert_eq!(records(&kubelet, &peer.host()), [""; 0]);
    assert_eq!(records(&kubelet, &id), [""; 0]);
    assert!(!kubelet.daemon.ctr("-n k8s.io content ls -q").ok().contains(&id), "its blobs are gone");
    let request = v1::RemoveImageRequest { image: named("registry.example/never:here") };
    call_images!(kubelet, remove_image, request).unwrap();
}

#[test]
fn the_kubelet_never_removes_what_is_pinned() {
    needs!(root, overlayfs, built "containerd");
    let peer = Peer::start();
    let pause = peer.serve("pause", "3", small("pause"));
    let tool = peer.serve("tool", "v1", small("tool"));
    let app = peer.serve("app", "v1", small("app"));
    let kubelet = Kubelet::with(&format!(
        "[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = '{pause}'\ntool = '{tool}'\n"
    ));
    for (name, pinned) in [(&pause, true), (&tool, true), (&app, false)] {
        call_images!(kubelet, pull_image, pull_of(name)).unwrap();
        assert_eq!(status_of(&kubelet, name).unwrap().pinned, pinned, "{name}");
    }
    // What comes another way is pinned alike, from the first moment that it is shown.
    kubelet.daemon.ctr("-n k8s.io image rm --sync").args([&tool]).ok();
    let archive = kubelet.daemon.dir().join("tool.tar");
    std::fs::write(&archive, small("another tool").archive(&tool)).unwrap();
    kubelet.daemon.ctr("-n k8s.io image import").args([&archive]).ok();
    let shown = wait::eventually(Duration::from_secs(10), "the image", || status_of(&kubelet, &tool));
    assert!(shown.pinned, "{shown:?}");
    let list = kubelet.daemon.ctr("-n k8s.io image ls").ok();
    let record = list.lines().find(|line| line.starts_with(&tool)).unwrap();
    assert!(record.contains("io.cri-containerd.pinned=pinned"), "{record}");
}

#[test]
fn images_and_writable_layers_are_measured() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::with("[plugins.'io.containerd.cri.v1.images']\nstats_collect_period = 1\n");
    let config = kubelet.pod("measured");
    let pod = kubelet.run_pod(&config).unwrap();
    let script = "head -c 8388608 /dev/zero > /written; exec sleep 1000";
    let id = kubelet.start(&pod, &config, kubelet.container("one", script));
    let layer = wait::eventually(Duration::from_secs(20), "the writable layer", || {
        let request = v1::ContainerStatsRequest { container_id: id.clone() };
        let layer = call!(kubelet, container_stats, request).unwrap().stats.unwrap().writable_layer?;
        (layer.used_bytes.unwrap().value >= 8 << 20).then_some(layer)
    });
    assert!(layer.used_bytes.unwrap().value < 9 << 20, "{layer:?}");
    assert!(layer.inodes_used.unwrap().value >= 1, "{layer:?}");
    let info = call_images!(kubelet, image_fs_info, v1::ImageFsInfoRequest {}).unwrap();
    let usage = &info.image_filesystems[0];
    let root = kubelet.daemon.root().join("io.containerd.snapshotter.v1.overlayfs");
    assert_eq!(usage.fs_id.clone().unwrap().mountpoint, root.display().to_string());
    let unpacked = u64::try_from(testkit::image::busybox_tar().len()).unwrap();
    let used = usage.used_bytes.unwrap().value;
    assert!(
        used > (8 << 20) + unpacked / 2 && used < (32 << 20) + unpacked,
        "{used} with {unpacked} in the image"
    );
    assert!(usage.timestamp > 0 && usage.inodes_used.unwrap().value > 10);
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}
