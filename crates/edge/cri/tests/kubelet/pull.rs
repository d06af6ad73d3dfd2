//! Pulls over the socket: who we are at which registry, where images come from, and how often.

use api::runtime::v1;
use testkit::http::Response;
use testkit::image::{Build, Image, Layer};
use testkit::needs;
use testkit::peer::{Fault, Peer};
use testkit::registry::{PASSWORD, Registry, USER, mirror};
use tonic::Code;

use crate::client::{Kubelet, call, call_images};
use crate::images::{id_of, named, pull_of, status_of};

fn image(marker: &str) -> Image {
    let tar = testkit::tar::Archive::new().file("marker", 0o644, marker.as_bytes()).finish();
    Build::new().layer(Layer::gzip(tar)).build()
}

fn login(user: &str, password: &str) -> v1::AuthConfig {
    v1::AuthConfig { username: user.into(), password: password.into(), ..v1::AuthConfig::default() }
}

fn pull(kubelet: &Kubelet, image: &str, auth: Option<v1::AuthConfig>) -> Result<String, tonic::Status> {
    let request = v1::PullImageRequest { auth, ..pull_of(image) };
    Ok(call_images!(kubelet, pull_image, request)?.image_ref)
}

#[test]
fn a_registry_with_a_password_wants_the_kubelets_or_the_configurations() {
    needs!(root, overlayfs, built "containerd", program "docker-registry");
    let registry = Registry::with_password();
    let (kubelet, host) = (Kubelet::new(), registry.host());
    let reference = registry.push("secret", "v1", &image("secret"));
    for wrong in [
        None,
        Some(login(USER, "wrong")),
        Some(v1::AuthConfig { server_address: "other.example".into(), ..login(USER, PASSWORD) }),
    ] {
        let error = pull(&kubelet, &reference, wrong.clone()).unwrap_err();
        assert!(error.message().starts_with("failed to pull and unpack image"), "{wrong:?}: {error}");
        assert_eq!(error.code(), Code::Unauthenticated, "{wrong:?}: {error}");
        assert!(!error.message().contains(PASSWORD), "{error}");
        assert_eq!(status_of(&kubelet, &reference), None);
    }
    let encoded = v1::AuthConfig { auth: "YmVydGg6aGFyYm91cg==".into(), ..v1::AuthConfig::default() };
    let addressed = v1::AuthConfig { server_address: format!("http://{host}"), ..login(USER, PASSWORD) };
    for right in [login(USER, PASSWORD), encoded, addressed] {
        pull(&kubelet, &reference, Some(right)).unwrap();
        call_images!(kubelet, remove_image, v1::RemoveImageRequest { image: named(&reference) }).unwrap();
    }
    let configured = Kubelet::with(&format!(
        "[plugins.'io.containerd.grpc.v1.cri'.registry.configs.'{host}'.auth]\n\
         username = '{USER}'\npassword = '{PASSWORD}'\n"
    ));
    pull(&configured, &reference, None).unwrap();
    for kubelet in [&kubelet, &configured] {
        assert!(!kubelet.daemon.log().contains(PASSWORD), "a password is in no log");
    }
}

#[test]
fn a_token_is_fetched_with_the_kubelets_credentials() {
    needs!(root, overlayfs, built "containerd");
    let (kubelet, peer) = (Kubelet::new(), Peer::start());
    let reference = peer.serve("app", "v1", image("token"));
    peer.want_token();
    pull(&kubelet, &reference, Some(login("u", "p"))).unwrap();
    let asked = peer.requests().into_iter().filter(|request| request.path.starts_with("/token"));
    let told: Vec<_> = asked.map(|request| request.headers.get("authorization").cloned()).collect();
    assert!(!told.is_empty() && told.iter().all(|told| told.as_deref() == Some("Basic dTpw")), "{told:?}");
}

#[test]
fn mirrors_of_both_forms_serve_what_their_host_does_not() {
    needs!(root, overlayfs, built "containerd");
    let peer = Peer::start();
    peer.serve("lib/app", "v1", image("mirrored"));
    let certs = testkit::place::temp();
    let dir = mirror("registry.example", &format!("http://{}", peer.host()), certs.path());
    let by_path =
        format!("[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '{}'\n", dir.display());
    let table = |host: &str, endpoints: String| {
        format!("[plugins.'io.containerd.grpc.v1.cri'.registry.mirrors.'{host}']\nendpoint = [{endpoints}]\n")
    };
    let (dead, alive) = ("'http://127.0.0.1:1'", format!("'http://{}'", peer.host()));
    for config in [
        by_path,
        table("registry.example", alive.clone()),
        table("*", alive.clone()),
        table("registry.example", format!("{dead}, {alive}")),
    ] {
        let (kubelet, before) = (Kubelet::with(&config), peer.count("GET", "/blobs/"));
        pull(&kubelet, "registry.example/lib/app:v1", None)
            .unwrap_or_else(|error| panic!("{config}: {error}"));
        let status = status_of(&kubelet, "registry.example/lib/app:v1").unwrap();
        assert_eq!(status.repo_tags, ["registry.example/lib/app:v1"], "{config}");
        assert!(status.repo_digests[0].starts_with("registry.example/lib/app@sha256:"), "{config}");
        assert_eq!(peer.count("GET", "/blobs/") - before, 2, "{config}");
    }
}

#[test]
fn a_mirror_that_fails_is_followed_by_the_next_of_its_file() {
    needs!(root, overlayfs, built "containerd");
    let (broken, whole) = (Peer::start(), Peer::start());
    whole.serve("lib/app", "v1", image("second mirror"));
    let certs = testkit::place::temp();
    let dir = certs.path().join("registry.example");
    std::fs::create_dir(&dir).unwrap();
    let host = |peer: &Peer| format!("[host.'http://{}']\ncapabilities = ['pull', 'resolve']\n", peer.host());
    let file = format!("server = 'http://127.0.0.1:1'\n{}{}", host(&broken), host(&whole));
    std::fs::write(dir.join("hosts.toml"), file).unwrap();
    let kubelet = Kubelet::with(&format!(
        "[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '{}'\n",
        certs.path().display()
    ));
    for fault in [Fault::status(404), Fault::Garbage(b"no HTTP".to_vec()), Fault::status(403)] {
        broken.mend();
        for method in ["HEAD", "GET"] {
            broken.fail(method, "/", fault.clone());
        }
        let (asked, served) = (broken.requests().len(), whole.count("GET", "/blobs/"));
        pull(&kubelet, "registry.example/lib/app:v1", None)
            .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert!(broken.requests().len() > asked, "{fault:?}: it is the first to be asked");
        assert_eq!(whole.count("GET", "/blobs/") - served, 2, "{fault:?}");
        let image = named("registry.example/lib/app:v1");
        call_images!(kubelet, remove_image, v1::RemoveImageRequest { image }).unwrap();
    }
}

#[test]
fn no_more_blobs_are_fetched_at_once_than_is_configured() {
    needs!(root, overlayfs, built "containerd");
    const LAYERS: usize = 6;
    for (config, expected) in
        [("", 3), ("max_concurrent_downloads = 1\n", 1), ("max_concurrent_downloads = 5\n", 5)]
    {
        let kubelet = Kubelet::with(&format!(
            "[plugins.'io.containerd.cri.v1.images']\nimage_pull_progress_timeout = '2s'\n{config}"
        ));
        let (peer, mut build) = (Peer::start(), Build::new());
        for number in 0..LAYERS {
            let name = format!("file-{expected}-{number}");
            let tar = testkit::tar::Archive::new().file(&name, 0o644, name.as_bytes()).finish();
            build = build.layer(Layer::plain(tar));
        }
        let image = build.build();
        let layers: Vec<String> = image.blobs[..LAYERS].iter().map(|blob| blob.digest.clone()).collect();
        let reference = peer.serve("many", "v1", image);
        // Those that are asked for keep their place until the pull is given up.
        for layer in &layers {
            peer.fail("GET", layer, Fault::Silence);
        }
        let error = pull(&kubelet, &reference, None).unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
        let asked: usize = layers.iter().map(|layer| peer.count("GET", layer)).sum();
        assert_eq!(asked, expected, "{config:?}");
    }
}

#[test]
fn file_systems_are_flushed_after_an_unpack_where_that_is_asked_for() {
    needs!(root, overlayfs, program "strace", built "containerd");
    use std::os::unix::fs::PermissionsExt as _;
    let peer = Peer::start();
    let reference = peer.serve("flushed", "v1", image("flushed"));
    for (config, expected) in [("", false), ("image_pull_with_sync_fs = true\n", true)] {
        let config = format!("[plugins.'io.containerd.cri.v1.images']\n{config}");
        // It traces as a grandchild of its own: the daemon is the process that is waited for and killed.
        let kubelet = Kubelet::with_setup(&config, |setup| {
            let program = setup.dir().join("traced");
            let (daemon, seen) = (testkit::place::built("containerd"), setup.dir().join("seen"));
            let script = format!(
                "#!/bin/sh\nexec strace -D -f --seccomp-bpf -e trace=syncfs -o {} {} \"$@\"\n",
                seen.display(),
                daemon.display()
            );
            std::fs::write(&program, script).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            setup.program(program)
        });
        pull(&kubelet, &reference, None).unwrap();
        let seen = std::fs::read_to_string(kubelet.daemon.dir().join("seen")).unwrap();
        assert_eq!(seen.contains("syncfs("), expected, "{seen}");
    }
}

#[test]
fn a_mirror_of_the_older_tables_is_told_the_credentials_of_its_own() {
    needs!(root, overlayfs, built "containerd");
    let peer = Peer::start();
    peer.serve("lib/app", "v1", image("mirror with login"));
    peer.want_token();
    let host = peer.host();
    let kubelet = Kubelet::with(&format!(
        "[plugins.'io.containerd.grpc.v1.cri'.registry.mirrors.'registry.example']\nendpoint = ['http://{host}']\n\
         [plugins.'io.containerd.grpc.v1.cri'.registry.configs.'{host}'.auth]\nusername = 'u'\npassword = 'p'\n"
    ));
    pull(&kubelet, "registry.example/lib/app:v1", None).unwrap();
    let asked = peer.requests().into_iter().find(|request| request.path.starts_with("/token")).unwrap();
    assert_eq!(asked.headers.get("authorization").map(String::as_str), Some("Basic dTpw"));
}

#[test]
fn where_an_image_comes_from_is_explained_host_by_host() {
    needs!(root, overlayfs, built "containerd");
    let (mirror, own) = (Peer::start(), Peer::start());
    let served = image("explained");
    let digest = served.top().digest.clone();
    mirror.serve("lib/app", "v1", served);
    let (mirrored, host) = (mirror.host(), own.host());
    let kubelet = Kubelet::with(&format!(
        "[plugins.'io.containerd.grpc.v1.cri'.registry.mirrors.'{host}']\n\
         endpoint = ['http://127.0.0.1:1', 'http://{mirrored}']\n\
         [plugins.'io.containerd.grpc.v1.cri'.registry.configs.'{mirrored}'.auth]\n\
         username = 'u'\npassword = 'hidden'\n"
    ));
    let file = kubelet.daemon.dir().join("config.toml").display().to_string();
    let explain = |more: &[&str]| {
        let image = format!("{host}/lib/app:v1");
        let args = ["-c", &file, "registry", "explain", image.as_str()];
        let run = testkit::command::Run::new(testkit::place::built("containerd")).args(args).args(more);
        run.ok()
    };
    let head = |number: u8, at: &str, more: &str| format!("{number}. http://{at}/v2\n   may      {more}");
    let text = explain(&[]);
    for part in [
        format!("image    {host}/lib/app:v1\nfrom     the tables registry.mirrors and configs\n"),
        head(
            1,
            "127.0.0.1:1",
            &format!(
                "resolve, pull, referrers\n   mirrors  {host}\n   login    nobody in particular\n   answer   failed to do request"
            ),
        ),
        head(
            2,
            &mirrored,
            &format!(
                "resolve, pull, referrers\n   mirrors  {host}\n   login    \"u\", of the configuration\n   answer   {digest}"
            ),
        ),
        head(3, &host, "resolve, pull, referrers\n   login    nobody in particular\n   answer   "),
    ] {
        assert!(text.contains(&part), "{part:?} is not in\n{text}");
    }
    assert!(text.trim_end().ends_with("not found"), "{text}");
    assert!(!text.contains("hidden"), "{text}");
    let asked = own.requests().len();
    assert!(!explain(&["--offline"]).contains("answer"));
    assert_eq!(own.requests().len(), asked);
}

#[test]
fn pulls_of_one_image_at_once_are_one_pull_and_other_credentials_are_another() {
    needs!(root, overlayfs, built "containerd");
    let (kubelet, peer) = (Kubelet::new(), Peer::start());
    let reference = peer.serve("app", "v1", image("joined"));
    // The first answer is late, so that all have asked before it comes.
    peer.fail("HEAD", "/manifests/v1", Fault::status(503)).times(2);
    peer.fail("GET", "/manifests/v1", Fault::status(503)).times(2);
    let requests = (0..8).map(|_| pull_of(&reference));
    let ids = pull_together(&kubelet, requests.collect());
    assert_eq!(ids.len(), 8);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let alone = peer.count("HEAD", "/manifests/v1") + peer.count("GET", "/manifests/v1");
    assert!(alone <= 6, "{alone} questions for the tag");
    assert_eq!(peer.count("GET", "/blobs/"), 2, "a config and a layer");
    let others = ["a", "b", "c"]
        .map(|user| v1::PullImageRequest { auth: Some(login(user, "p")), ..pull_of(&reference) });
    pull_together(&kubelet, others.into());
    let all = peer.count("HEAD", "/manifests/v1") + peer.count("GET", "/manifests/v1");
    assert!(all >= alone + 3, "{all} questions after {alone}");
}

/// The ids that pulls which begin together answer.
fn pull_together(kubelet: &Kubelet, requests: Vec<v1::PullImageRequest>) -> Vec<String> {
    let mut answered = Vec::new();
    call_images!(kubelet, list_images, v1::ListImagesRequest::default()).unwrap();
    kubelet
        .block_images(async |client| {
            let each = requests.into_iter().map(|request| {
                let mut client = client.clone();
                async move { client.pull_image(request).await }
            });
            for answer in futures_util::future::join_all(each).await {
                answered.push(answer?.into_inner().image_ref);
            }
            Ok(tonic::Response::new(()))
        })
        .unwrap();
    answered
}

#[test]
fn a_pull_that_cannot_be_says_why_and_leaves_no_image() {
    needs!(root, overlayfs, built "containerd");
    let (kubelet, peer) = (Kubelet::new(), Peer::start());
    for (name, code) in [
        ("", Code::InvalidArgument),
        ("UPPER", Code::InvalidArgument),
        (&"a".repeat(64), Code::InvalidArgument),
        (&format!("{}/absent:v1", peer.host()), Code::NotFound),
    ] {
        assert_eq!(pull(&kubelet, name, None).unwrap_err().code(), code, "{name}");
    }
    let reference = peer.serve("denied", "v1", image("denied"));
    let denied = Response::new(403, r#"{"errors":[{"code":"DENIED","message":"not for you"}]}"#)
        .header("content-type", "application/json");
    peer.fail("HEAD", "/manifests/", Fault::Answer(denied.clone()));
    peer.fail("GET", "/manifests/", Fault::Answer(denied));
    let error = pull(&kubelet, &reference, None).unwrap_err();
    assert!(error.message().contains("403"), "{error}");
    let corrupt = peer.serve("corrupt", "v1", image("corrupt"));
    peer.fail("HEAD", "/manifests/", Fault::status(200)).times(0);
    assert!(status_of(&kubelet, &corrupt).is_none());
}

#[test]
fn a_snapshotter_is_told_of_which_image_a_layer_is_where_it_wants_to_know() {
    needs!(root, overlayfs, built "containerd");
    let peer = Peer::start();
    let told = image("told");
    let (manifest, layer) = (told.top().digest.clone(), told.blobs[0].digest.clone());
    let reference = peer.serve("told", "v1", told);
    let key = |last: &str| format!("containerd.io/snapshot/cri.{last}");
    for (disabled, expected) in [(true, None), (false, Some(()))] {
        let kubelet = Kubelet::with(&format!(
            "[plugins.'io.containerd.cri.v1.images']\ndisable_snapshot_annotations = {disabled}\n"
        ));
        pull(&kubelet, &reference, None).unwrap();
        let request = v1::ImageStatusRequest { image: named(&reference), verbose: true };
        let info = call_images!(kubelet, image_status, request).unwrap().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        let chain = info["chainID"].as_str().unwrap();
        let snapshot = kubelet.daemon.ctr("-n k8s.io snapshots info").args([chain]).ok();
        let snapshot: serde_json::Value = serde_json::from_str(&snapshot).unwrap();
        for (last, value) in [
            ("image-ref", &reference),
            ("manifest-digest", &manifest),
            ("layer-digest", &layer),
            ("image-layers", &layer),
        ] {
            let label = snapshot["Labels"].get(key(last)).and_then(serde_json::Value::as_str);
            assert_eq!(label, expected.map(|()| value.as_str()), "{last}: {snapshot}");
        }
    }
}

#[test]
fn an_image_is_unpacked_by_the_snapshotter_of_its_handler() {
    needs!(root, overlayfs, built "containerd");
    let peer = Peer::start();
    let kubelet = Kubelet::with(
        "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.plain]\n\
         runtime_type = 'io.containerd.runc.v2'\nsnapshotter = 'native'\n",
    );
    let reference = peer.serve("app", "v1", image("by handler"));
    let spec = v1::ImageSpec {
        image: reference.clone(),
        runtime_handler: "plain".into(),
        ..v1::ImageSpec::default()
    };
    let request = v1::PullImageRequest { image: Some(spec), ..v1::PullImageRequest::default() };
    call_images!(kubelet, pull_image, request).unwrap();
    let snapshots = |driver: &str| {
        kubelet.daemon.ctr(&format!("-n k8s.io snapshots --snapshotter {driver} ls")).ok().lines().count() - 1
    };
    // Busybox was imported with the usual one.
    assert_eq!((snapshots("overlayfs"), snapshots("native")), (1, 1));
}

#[test]
fn an_image_is_of_the_platform_of_its_handler() {
    needs!(root, overlayfs, built "containerd");
    let peer = Peer::start();
    let tar = testkit::tar::Archive::new().file("marker", 0o644, b"foreign").finish();
    let foreign = Build::new().architecture("s390x").layer(Layer::gzip(tar)).cmd(&["/marker"]).build();
    let own = Build::new().layer(Layer::gzip(testkit::image::busybox_tar())).cmd(&["/bin/sh"]).build();
    let (foreign_id, own_id) = (id_of(&foreign), id_of(&own));
    let own_layer = own.blobs[0].digest.clone();
    let reference = peer.serve("many", "v1", Image::index(vec![own, foreign]));
    let mut kubelet = Kubelet::with(
        "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.foreign]\n\
         runtime_type = 'io.containerd.runc.v2'\n\
         [plugins.'io.containerd.cri.v1.images'.runtime_platforms.foreign]\nplatform = 'linux/s390x'\n",
    );
    let pull_for = |kubelet: &Kubelet, handler: &str| {
        let spec = v1::ImageSpec {
            image: reference.clone(),
            runtime_handler: handler.into(),
            ..v1::ImageSpec::default()
        };
        let request = v1::PullImageRequest { image: Some(spec), ..v1::PullImageRequest::default() };
        call_images!(kubelet, pull_image, request).unwrap().image_ref
    };
    let id = |kubelet: &Kubelet, name: &str| status_of(kubelet, name).map(|image| image.id);
    assert_eq!(pull_for(&kubelet, "foreign"), foreign_id);
    assert_eq!(peer.count("GET", &own_layer), 0, "the host's is not fetched");
    assert_eq!(id(&kubelet, &reference).as_ref(), Some(&foreign_id), "there is no other");
    assert_eq!(pull_for(&kubelet, ""), own_id);
    for when in ["at once", "after a restart"] {
        for (name, expected) in [(&reference, &own_id), (&own_id, &own_id), (&foreign_id, &foreign_id)] {
            assert_eq!(id(&kubelet, name).as_ref(), Some(expected), "{name} {when}");
        }
        kubelet.daemon.restart();
    }
    for (handler, expected) in [("foreign", &foreign_id), ("", &own_id)] {
        let config = kubelet.pod(&format!("of-{handler}"));
        let request =
            v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.into() };
        let pod = call!(kubelet, run_pod_sandbox, request).unwrap().pod_sandbox_id;
        let mut container = kubelet.container("one", "");
        container.image = named(&reference);
        let container = kubelet.create(&pod, &config, container).unwrap();
        assert_eq!(kubelet.status(&container).image_id, *expected, "{handler}");
        kubelet.remove_pod(&pod);
    }
    kubelet.check_clean();
}
