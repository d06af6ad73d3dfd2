//! Pulls from real registries: every packing, platforms, credentials, mirrors; and pushes back.

use testkit::command::Run;
use testkit::daemon::Daemon;
use testkit::image::{Blob, Build, Image, Layer};
use testkit::needs;
use testkit::registry::{PASSWORD, Registry, USER};
use testkit::tar::Archive;
use testkit::{image, peer};

/// Three layers in three packings, the middle one without tar end blocks.
fn packings() -> Image {
    Build::new()
        .layer(Layer::gzip(image::busybox_tar()))
        .layer(Layer::zstd(Archive::new().dir("a/", 0o755).file("a/zstd", 0o644, b"z\n").finish_bare()))
        .layer(Layer::plain(
            Archive::new().dir("a/", 0o755).file("a/plain", 0o600, b"p\n").whiteout("etc/group").finish(),
        ))
        .cmd(&["sh", "-c", "cat /a/zstd /a/plain; ls /etc"])
        .build()
}

#[test]
fn every_packing_unpacks_in_order() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let (registry, daemon) = (Registry::start(), Daemon::start());
    let reference = daemon.pull(&registry, &packings());
    let out = daemon.ctr("run --rm").args([&reference, "one"]).ok();
    assert_eq!(out, "z\np\npasswd\nrelease-of\n");
}

#[test]
fn the_native_snapshotter_gives_the_same_tree() {
    needs!(root, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let (registry, daemon) = (Registry::start(), Daemon::start());
    let reference = registry.push("n", "v1", &packings());
    daemon.ctr("image pull --plain-http --snapshotter native").args([&reference]).ok();
    let out = daemon.ctr("run --rm --snapshotter native").args([&reference, "one"]).ok();
    assert_eq!(out, "z\np\npasswd\nrelease-of\n");
}

#[test]
fn dockers_media_types_are_taken() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let (registry, daemon) = (Registry::start(), Daemon::start());
    let image =
        Build::new().layer(Layer::gzip(image::busybox_tar())).cmd(&["echo", "docker"]).docker().build();
    let reference = daemon.pull(&registry, &image);
    assert_eq!(daemon.ctr("run --rm").args([&reference, "one"]).ok(), "docker\n");
}

#[test]
fn a_platform_is_chosen_from_an_index() {
    needs!(root, overlayfs, program "docker-registry", built "containerd", built "ctr");
    let (registry, daemon) = (Registry::start(), Daemon::start());
    let tree = |name: &str| Layer::gzip(Archive::new().file(name, 0o644, b"x").finish());
    let image = Image::index(vec![
        Build::new().layer(tree("here")).build(),
        Build::new().layer(tree("there")).architecture("s390x").build(),
    ]);
    let reference = registry.push("multi", "v1", &image);
    daemon.ctr("image pull --plain-http --platform linux/s390x").args([&reference]).ok();
    let blobs = daemon.ctr("content ls -q").ok();
    let layers: Vec<bool> = image
        .blobs
        .iter()
        .filter(|blob| blob.media_type.contains("layer"))
        .map(|blob| blobs.contains(&blob.digest))
        .collect();
    assert_eq!(layers, [false, true], "only the asked platform's layer came");
    let missing = daemon.ctr("image pull --plain-http --platform linux/riscv64").args([&reference]).fails();
    assert!(missing.contains("riscv64") || missing.contains("no match"), "{missing}");
}

#[test]
fn a_password_opens_the_registry_and_a_wrong_one_does_not() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let (registry, daemon) = (Registry::with_password(), Daemon::start());
    let reference = registry.push("locked", "v1", &image::busybox());
    let anonymous = daemon.ctr("image pull --plain-http").args([&reference]).fails();
    assert!(anonymous.contains("authorization failed"), "{anonymous}");
    let user = format!("{USER}:wrong");
    daemon.ctr("image pull --plain-http --user").args([&user, &reference]).fails();
    let user = format!("{USER}:{PASSWORD}");
    daemon.ctr("image pull --plain-http --user").args([&user, &reference]).ok();
    assert!(!daemon.log().contains(PASSWORD), "no log holds the password");
    // And back, under another name.
    let copy = format!("{}/copy:v2", registry.host());
    daemon.ctr("image push --plain-http --user").args([&user, &copy, &reference]).ok();
    daemon.ctr("image rm --sync").args([&reference]).ok();
    daemon.ctr("image pull --plain-http --user").args([&user, &copy]).ok();
}

#[test]
fn a_bearer_token_is_fetched_when_asked_for() {
    needs!(root, overlayfs, program "busybox", built "containerd", built "ctr");
    let (peer, daemon) = (peer::Peer::start(), Daemon::start());
    let reference = peer.serve("tokens", "v1", image::busybox());
    peer.want_token();
    daemon.ctr("image pull --plain-http").args([&reference]).ok();
    let token = peer.requests().into_iter().find(|request| request.path.starts_with("/token")).unwrap();
    assert!(
        token.path.contains("scope=repository%3Atokens%3Apull")
            || token.path.contains("repository:tokens:pull"),
        "{}",
        token.path
    );
}

#[test]
fn mirrors_are_tried_in_order_and_the_next_one_serves() {
    needs!(root, overlayfs, program "busybox", built "containerd", built "ctr");
    let (first, second, daemon) = (peer::Peer::start(), peer::Peer::start(), Daemon::start());
    second.serve("library/thing", "v1", image::busybox());
    let certs = daemon.dir().join("certs.d");
    std::fs::create_dir_all(certs.join("docker.io")).unwrap();
    let text = format!(
        "server = \"http://127.0.0.1:1\"\n[host.\"http://{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n\
         [host.\"http://{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
        first.host(),
        second.host()
    );
    std::fs::write(certs.join("docker.io/hosts.toml"), text).unwrap();
    let pull =
        daemon.ctr("image pull --hosts-dir").args([certs.to_str().unwrap(), "docker.io/library/thing:v1"]);
    pull.ok();
    assert!(!first.requests().is_empty(), "the first mirror was asked first");
    let request = &second.requests()[0];
    assert!(
        request.path.contains("ns=docker.io"),
        "a mirror learns whose name was asked for: {}",
        request.path
    );
}

#[test]
fn content_can_be_fetched_read_and_written_by_hand() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let (registry, daemon) = (Registry::start(), Daemon::start());
    let image = image::busybox();
    let reference = registry.push("bits", "v1", &image);
    daemon.ctr("content fetch --plain-http").args([&reference]).ok();
    let config = image.blobs.last().unwrap();
    assert_eq!(daemon.ctr("content get").args([&config.digest]).ok().as_bytes(), config.bytes);
    let daemon = crate::stage::keeping();
    let blob = Blob::new("text/plain", b"by hand".to_vec());
    let digest = format!("--expected-digest={}", blob.digest);
    let wrong = daemon.ctr("content ingest").args([&digest, "other-key"]).stdin("something else").fails();
    assert!(wrong.contains("sha256:"), "{wrong}");
    daemon
        .ctr("content ingest")
        .args([&digest, "--expected-size=7", "my-key"])
        .stdin(blob.bytes.clone())
        .ok();
    assert_eq!(daemon.ctr("content get").args([&blob.digest]).ok(), "by hand");
    assert_eq!(daemon.ctr("content rm").args([&blob.digest]).ok(), format!("{}\n", blob.digest));
    daemon.ctr("content get").args([&blob.digest]).fails();
}

#[test]
fn an_archive_made_elsewhere_imports() {
    needs!(root, overlayfs, program "busybox", built "containerd", built "ctr");
    let daemon = Daemon::start();
    daemon.import("example.com/packings:v1", &packings());
    assert_eq!(daemon.ctr("image ls -q").ok(), "example.com/packings:v1\n");
    assert_eq!(daemon.ctr("run --rm example.com/packings:v1 one").ok(), "z\np\npasswd\nrelease-of\n");
}

#[test]
fn an_exported_image_imports_elsewhere() {
    needs!(root, overlayfs, program "docker-registry", program "busybox", built "containerd", built "ctr");
    let (registry, from, to) = (Registry::start(), Daemon::start(), Daemon::start());
    let reference = from.pull(&registry, &packings());
    let archive = from.dir().join("image.tar");
    from.ctr("image export").args([archive.to_str().unwrap(), &reference]).ok();
    Run::new("tar").args(["-tf".as_ref(), archive.as_path()]).ok();
    to.ctr("image import").args([&archive]).ok();
    let names = to.ctr("image ls -q").ok();
    let name = names.lines().next().expect("an image came in").to_owned();
    assert_eq!(to.ctr("run --rm").args([&name, "one"]).ok(), "z\np\npasswd\nrelease-of\n");
}
