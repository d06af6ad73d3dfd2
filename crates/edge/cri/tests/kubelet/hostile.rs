//! Images whose configuration is made to hurt: refused, or harmless, and gone without a trace.

use api::runtime::v1;
use serde_json::{Value, json};
use testkit::image::{Build, Layer, busybox_tar};
use testkit::needs;

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
