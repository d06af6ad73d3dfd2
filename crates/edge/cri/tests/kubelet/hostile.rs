//! Images whose configuration is made to hurt: refused, or harmless, and gone without a trace.

use std::fs;

use api::runtime::v1;
use serde_json::{Value, json};
use testkit::image::{Build, Layer, busybox_tar};
use testkit::needs;
use testkit::tar::Archive;

use crate::client::{Kubelet, call};

#[test]
fn a_hostile_image_is_refused_or_harmless_and_leaves_nothing() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("hostile");
    let pod = kubelet.run_pod(&config).unwrap();
    let labels: serde_json::Map<String, Value> =
        (0..500).map(|n| (format!("label-{n}"), Value::from("x".repeat(4000)))).collect();
    let cases = [
        ("user", "User", json!("4294967296"), true),
        ("name", "User", json!("nobody\nroot"), true),
        ("env", "Env", json!(["HOME=/x\n/root", "=", "A"]), false),
        ("labels", "Labels", Value::Object(labels), false),
        ("volume", "Volumes", json!({"../../../../../tmp/berth-escape": {}}), false),
        ("signal", "StopSignal", json!("SIGBOGUS; rm -rf /"), false),
    ];
    for (name, key, value, refused) in cases {
        let image = Build::new().layer(Layer::plain(busybox_tar())).set(key, value).build();
        let reference = format!("docker.io/hostile/{name}:v1");
        let archive = kubelet.daemon.dir().join("hostile.tar");
        std::fs::write(&archive, image.archive(&reference)).unwrap();
        kubelet.daemon.ctr("-n k8s.io image import").args([&archive]).ok();
        let mut wanted = kubelet.container(name, "exec sleep 1000");
        wanted.image = Some(v1::ImageSpec { image: reference, ..v1::ImageSpec::default() });
        match kubelet.create(&pod, &config, wanted) {
            Err(error) => assert!(!error.message().is_empty(), "{name}"),
            Ok(_) if refused => panic!("{name} was not refused"),
            Ok(id) => {
                let start = v1::StartContainerRequest { container_id: id.clone() };
                let _either_way = call!(kubelet, start_container, start);
                let stop = v1::StopContainerRequest { container_id: id.clone(), timeout: 0 };
                call!(kubelet, stop_container, stop).unwrap();
                call!(kubelet, remove_container, v1::RemoveContainerRequest { container_id: id }).unwrap();
            }
        }
    }
    assert!(!std::path::Path::new("/tmp/berth-escape").exists());
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

/// Has the daemon know `image` and answers a container of it.
fn of_image(kubelet: &Kubelet, name: &str, image: Build, script: &str) -> v1::ContainerConfig {
    let reference = format!("docker.io/hostile/{name}:v1");
    let archive = kubelet.daemon.dir().join("hostile.tar");
    fs::write(&archive, image.build().archive(&reference)).unwrap();
    kubelet.daemon.ctr("-n k8s.io image import").args([&archive]).ok();
    let mut wanted = kubelet.container(name, script);
    wanted.image = Some(v1::ImageSpec { image: reference, ..v1::ImageSpec::default() });
    wanted
}

fn busybox_with(layer: Archive) -> Build {
    Build::new().layer(Layer::plain(busybox_tar())).layer(Layer::plain(layer.finish()))
}

fn remove(kubelet: &Kubelet, id: String) {
    call!(kubelet, remove_container, v1::RemoveContainerRequest { container_id: id }).unwrap();
}

#[test]
fn a_user_that_is_out_of_range_or_nobody_never_becomes_root() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("users");
    let pod = kubelet.run_pod(&config).unwrap();
    let refused = [
        "-1",
        "+0x0",
        "4294967296",
        "2147483648",
        "18446744073709551616",
        "0:4294967296",
        "root:-1",
        "root:root:root",
        " ",
        "app ",
        "../root",
        "no-such",
        "no-such:0",
        "app:no-such",
    ];
    for (number, user) in refused.into_iter().enumerate() {
        let image = Build::new().layer(Layer::plain(busybox_tar())).set("User", json!(user));
        let wanted = of_image(&kubelet, &format!("refused{number}"), image, "true");
        let error = kubelet.create(&pod, &config, wanted).expect_err(user);
        assert!(!error.message().is_empty(), "{user}");
    }
    for (name, user, expected) in [
        ("named", "app", "1000:1000\n"),
        ("number", "1234", "1234:0\n"),
        ("both", "app:extra", "1000:2000\n"),
        ("no-group", "app:", "1000:0\n"),
    ] {
        let image = Build::new().layer(Layer::plain(busybox_tar())).set("User", json!(user));
        let wanted = of_image(&kubelet, name, image, "exec sleep 1000");
        let id = kubelet.start(&pod, &config, wanted);
        let seen = kubelet.exec(&id, "echo $(id -u):$(id -g)", 30).unwrap().stdout;
        assert_eq!(String::from_utf8(seen).unwrap(), expected, "{user}");
    }
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn files_of_users_that_are_links_fifos_devices_or_endless_lead_nowhere() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("files");
    let pod = kubelet.run_pod(&config).unwrap();
    // On the host this user is there; in the images it is not.
    let host = kubelet.daemon.dir().join("passwd");
    fs::write(&host, "host:x:4242:4242::/:/bin/sh\n").unwrap();
    let climbs = format!("../../../../../../..{}", host.display());
    let many = format!("{}host:x:4242:4242::/:/bin/sh\n", "user:x:1:1::/:/bin/sh\n".repeat(400_000));
    let refused = [
        ("absolute", Archive::new().symlink("etc/passwd", &host.display().to_string())),
        ("climbs", Archive::new().symlink("etc/passwd", &climbs)),
        ("magic", Archive::new().symlink("etc/passwd", &format!("/proc/self/root{}", host.display()))),
        ("loop", Archive::new().symlink("etc/passwd", "passwd")),
        ("directory", Archive::new().whiteout("etc/passwd").dir("etc/passwd/", 0o755)),
        ("fifo", Archive::new().fifo("etc/passwd", 0o644)),
        ("device", Archive::new().char_device("etc/passwd", 0o666, 1, 5)),
        ("huge", Archive::new().file("etc/passwd", 0o644, many.as_bytes())),
        (
            "garbage",
            Archive::new().file("etc/passwd", 0o644, b"\xff\xfe:::\0\nhost\nhost:x\nhost:x:-1:0\nhost:x::\n"),
        ),
    ];
    for (name, layer) in refused {
        let wanted = of_image(&kubelet, name, busybox_with(layer).set("User", json!("host")), "true");
        let error = kubelet.create(&pod, &config, wanted).expect_err(name);
        assert!(!error.message().is_empty(), "{name}");
    }
    // A line that never seems to end is a line; the next one counts.
    let long = format!("{}:x:1:1::/:/bin/sh\nhost:x:4243:4243::/:/bin/sh\n", "a".repeat(1 << 20));
    let layer = Archive::new().file("etc/passwd", 0o644, long.as_bytes());
    let image = busybox_with(layer).set("User", json!("host"));
    let id = kubelet.start(&pod, &config, of_image(&kubelet, "long", image, "exec sleep 1000"));
    assert_eq!(kubelet.exec(&id, "id -u", 30).unwrap().stdout, b"4243\n");
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn volumes_of_an_image_stay_in_it_and_a_stop_signal_that_is_none_stops() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("volumes");
    let pod = kubelet.run_pod(&config).unwrap();
    let secret = kubelet.daemon.dir().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("host"), "host").unwrap();
    let climbs = format!("../../../../../..{}", secret.display());
    for (name, layer, place) in [
        ("absolute", Archive::new().symlink("data", &secret.display().to_string()), "/data"),
        ("climbing", Archive::new().symlink("data", &climbs), "/data"),
        ("parent", Archive::new().symlink("up", secret.parent().unwrap().to_str().unwrap()), "/up/secret"),
        ("relative", Archive::new().dir("data/", 0o755), "data"),
    ] {
        // Where the links point inside the image there is a directory, too: an empty one.
        let inside = secret.strip_prefix("/").unwrap().display().to_string();
        let parent = inside.rsplit_once('/').unwrap().0;
        let layer = layer.dir(&format!("{parent}/"), 0o755).dir(&format!("{inside}/"), 0o755);
        let image = busybox_with(layer).set("Volumes", json!({ place: {} }));
        let place = format!("/{}", place.trim_start_matches('/'));
        let wanted = of_image(&kubelet, name, image, "exec sleep 1000");
        let id = kubelet.start(&pod, &config, wanted);
        let seen = kubelet.exec(&id, &format!("ls {place}/ && touch {place}/from-{name} && ls {place}/"), 30);
        let seen = seen.unwrap();
        let told = String::from_utf8_lossy(&seen.stdout).into_owned();
        assert_eq!(told, format!("from-{name}\n"), "{name}: {}", String::from_utf8_lossy(&seen.stderr));
        remove(&kubelet, id);
    }
    let left: Vec<_> = fs::read_dir(&secret).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["host"]);
    for place in ["/", "", "/a/../..", "..", "/a\0b"] {
        let name = format!("refused{}", place.len());
        let image = Build::new().layer(Layer::plain(busybox_tar())).set("Volumes", json!({ place: {} }));
        kubelet.create(&pod, &config, of_image(&kubelet, &name, image, "true")).expect_err(place);
    }
    for (number, signal) in
        ["SIGBOGUS; rm -rf /", "0", "-9", "65", "4294967305", "RTMIN+4294967295"].iter().enumerate()
    {
        let image = Build::new().layer(Layer::plain(busybox_tar())).set("StopSignal", json!(signal));
        let script = "trap 'exit 5' TERM; while :; do sleep 0.05; done";
        let wanted = of_image(&kubelet, &format!("signal{number}"), image, script);
        let id = kubelet.start(&pod, &config, wanted);
        // Once its shell has begun to work, it has its trap.
        kubelet.exec(&id, "while ! ps -o args | grep -q '^sleep 0.05'; do :; done", 30).unwrap();
        let stop = v1::StopContainerRequest { container_id: id.clone(), timeout: 60 };
        call!(kubelet, stop_container, stop).unwrap_or_else(|error| panic!("{signal}: {error}"));
        assert_eq!(kubelet.status(&id).exit_code, 5, "{signal}: the usual signal serves instead");
        remove(&kubelet, id);
    }
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}
