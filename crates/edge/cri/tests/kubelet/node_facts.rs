//! What the daemon says of itself and of its node, and what it is told of them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use api::runtime::v1;
use serde_json::Value;
use testkit::{needs, wait};
use tonic::Code;

use crate::client::{Kubelet, call};
use crate::node::Node;

fn verbose(kubelet: &Kubelet) -> v1::StatusResponse {
    call!(kubelet, status, v1::StatusRequest { verbose: true }).unwrap()
}

#[test]
fn the_version_is_the_daemons() {
    needs!(root, built "containerd");
    let kubelet = Kubelet::new();
    let version = call!(kubelet, version, v1::VersionRequest { version: "v1".into() }).unwrap();
    let told = kubelet.daemon.ctr("version").ok();
    let server = told.split("Server:").nth(1).unwrap();
    let own = server.lines().find_map(|line| line.trim().strip_prefix("Version:")).unwrap().trim();
    let expected = v1::VersionResponse {
        version: "0.1.0".into(),
        runtime_name: "containerd".into(),
        runtime_version: own.into(),
        runtime_api_version: "v1".into(),
    };
    assert_eq!(version, expected);
}

#[test]
fn the_kubelet_is_told_the_cgroup_driver_that_pods_are_made_with() {
    needs!(root, built "containerd");
    let options = |value: bool| {
        format!(
            "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]\nSystemdCgroup = {value}\n"
        )
    };
    for (config, driver) in [
        (String::new(), v1::CgroupDriver::Cgroupfs),
        (options(false), v1::CgroupDriver::Cgroupfs),
        (options(true), v1::CgroupDriver::Systemd),
    ] {
        let kubelet = Kubelet::with(&config);
        let told = call!(kubelet, runtime_config, v1::RuntimeConfigRequest {}).unwrap();
        assert_eq!(told.linux.unwrap().cgroup_driver(), driver, "{config}");
    }
}

#[test]
fn a_verbose_status_has_the_configuration_as_json_and_how_networks_were_loaded() {
    needs!(root, built "containerd");
    let kubelet = Kubelet::with(
        "[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'registry.example/pause:3.10'\n\
         [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]\nSystemdCgroup = true\n",
    );
    let dir = kubelet.daemon.dir().display().to_string();
    let info = verbose(&kubelet).info;
    let config: Value = serde_json::from_str(&info["config"]).unwrap();
    for (pointer, expected) in [
        ("/sandboxImage", "registry.example/pause:3.10"),
        ("/containerd/defaultRuntimeName", "runc"),
        ("/containerd/runtimes/runc/runtimeType", "io.containerd.runc.v2"),
        ("/cni/confDir", &format!("{dir}/net.d")),
        ("/stateDir", &format!("{dir}/state/io.containerd.grpc.v1.cri")),
    ] {
        assert_eq!(config.pointer(pointer).and_then(Value::as_str), Some(expected), "{pointer}");
    }
    assert_eq!(config.pointer("/containerd/runtimes/runc/options/SystemdCgroup"), Some(&Value::Bool(true)));
    let networks: Value = serde_json::from_str(&info["cniconfig"]).unwrap();
    assert_eq!(networks["PluginConfDir"], format!("{dir}/net.d"));
    let missing = format!(
        "cni config load failed: no network config found in {dir}/net.d: cni plugin not initialized: \
         failed to load cni config"
    );
    assert_eq!((&info["lastCNILoadStatus"], &info["lastCNILoadStatus.default"]), (&missing, &missing));
    let plain = call!(kubelet, status, v1::StatusRequest { verbose: false }).unwrap();
    assert!(plain.info.is_empty());
    let features = plain.features.unwrap();
    assert!(features.supplemental_groups_policy && features.user_namespaces_host_network);
}

#[test]
fn a_handler_claims_what_its_runtime_says() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::with(
        "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.kata]\n\
         runtime_type = 'io.containerd.absent.v2'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.plain]\n\
         runtime_type = 'io.containerd.runc.v2'\nsnapshotter = 'native'\n",
    );
    let handlers = call!(kubelet, status, v1::StatusRequest::default()).unwrap().runtime_handlers;
    let names: Vec<&str> = handlers.iter().map(|handler| handler.name.as_str()).collect();
    assert_eq!(names, ["", "kata", "plain", "runc"]);
    let [default, kata, plain, runc] = handlers.as_slice() else { panic!("{handlers:?}") };
    assert_eq!(default.features, runc.features);
    assert_eq!(kata.features, None);
    assert!(runc.features.unwrap().recursive_read_only_mounts);
    // Only overlayfs shifts users.
    assert!(!plain.features.unwrap().user_namespaces);
    assert!(plain.features.unwrap().recursive_read_only_mounts);
}

#[test]
fn a_runtime_that_does_not_say_what_it_can_do_keeps_nobody_waiting() {
    needs!(root, overlayfs, built "containerd");
    let dir = testkit::place::temp();
    let shim = dir.path().join("containerd-shim-silent-v1");
    std::fs::write(&shim, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&shim, std::fs::Permissions::from_mode(0o755)).unwrap();
    let kubelet = Kubelet::with(&format!(
        "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.silent]\n\
         runtime_type = 'io.containerd.silent.v1'\nruntime_path = '{}'\n",
        shim.display()
    ));
    let began = Instant::now();
    let handlers = call!(kubelet, status, v1::StatusRequest::default()).unwrap().runtime_handlers;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let told: Vec<_> = handlers.iter().map(|one| (one.name.as_str(), one.features.is_some())).collect();
    assert_eq!(told, [("", true), ("runc", true), ("silent", false)]);
    let config = kubelet.pod("quick");
    let pod = kubelet.run_pod(&config).unwrap();
    kubelet.create(&pod, &config, kubelet.container("one", "true")).unwrap();
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    kubelet.remove_pod(&pod);
}

#[test]
fn the_nodes_range_of_addresses_becomes_its_network_where_a_template_says_how_and_only_once() {
    needs!(root, built "containerd");
    let dir = testkit::place::temp();
    let template = dir.path().join("template");
    let text = r#"{"cniVersion":"1.0.0","name":"made","plugins":[{"type":"bridge","ipam":{"type":"host-local",
        "ranges":[[{"subnet":"{{.PodCIDR}}"}]]}}]}"#;
    std::fs::write(&template, text).unwrap();
    let kubelet = Kubelet::with(&format!("conf_template = '{}'\n", template.display()));
    let made = kubelet.daemon.dir().join("net.d/10-containerd-net.conflist");
    let tell = |cidr: &str| {
        let network = Some(v1::NetworkConfig { pod_cidr: cidr.into() });
        let request = v1::UpdateRuntimeConfigRequest {
            runtime_config: Some(v1::RuntimeConfig { network_config: network }),
        };
        call!(kubelet, update_runtime_config, request).map(drop)
    };
    tell("").unwrap();
    assert!(!made.exists());
    assert_eq!(tell("no range").unwrap_err().code(), Code::InvalidArgument);
    tell("10.9.0.0/24").unwrap();
    assert!(std::fs::read_to_string(&made).unwrap().contains("10.9.0.0/24"));
    let ready = |status: &v1::StatusResponse| {
        let conditions = &status.status.as_ref().unwrap().conditions;
        conditions.iter().any(|condition| condition.r#type == "NetworkReady" && condition.status)
    };
    let status = verbose(&kubelet);
    assert!(ready(&status), "{status:?}");
    assert_eq!(status.info["lastCNILoadStatus"], "OK");
    tell("10.10.0.0/24").unwrap();
    assert!(std::fs::read_to_string(&made).unwrap().contains("10.9.0.0/24"), "a network that works stays");
}

#[test]
fn what_a_pod_is_told_of_its_resources_outlives_the_daemon_and_what_is_not_told_stays() {
    needs!(root, overlayfs, built "containerd");
    let mut kubelet = Kubelet::with(
        "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]\nNoNewKeyring = true\n",
    );
    let config = kubelet.pod("resized");
    let pod = kubelet.run_pod(&config).unwrap();
    let limits = |cpu_shares| {
        Some(v1::LinuxContainerResources { cpu_shares, ..v1::LinuxContainerResources::default() })
    };
    let request = |overhead, resources| v1::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod.clone(),
        overhead,
        resources,
    };
    let told = |kubelet: &Kubelet| {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: true };
        let info = call!(kubelet, pod_sandbox_status, request).unwrap().info;
        let info: Value = serde_json::from_str(&info["info"]).unwrap();
        assert_eq!(info["runtimeOptions"]["NoNewKeyring"], true, "{info}");
        let shares = |part: &str| info[part]["linux"]["cpu_shares"].as_i64();
        (shares("overhead"), shares("resources"))
    };
    assert_eq!(told(&kubelet), (None, None));
    call!(kubelet, update_pod_sandbox_resources, request(limits(11), limits(22))).unwrap();
    assert_eq!(told(&kubelet), (Some(11), Some(22)));
    call!(kubelet, update_pod_sandbox_resources, request(None, limits(33))).unwrap();
    assert_eq!(told(&kubelet), (Some(11), Some(33)));
    kubelet.daemon.kill();
    kubelet.daemon.restart();
    assert_eq!(told(&kubelet), (Some(11), Some(33)));
    let mut absent = request(None, None);
    absent.pod_sandbox_id = "absent".into();
    assert_eq!(call!(kubelet, update_pod_sandbox_resources, absent).unwrap_err().code(), Code::NotFound);
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn streams_are_served_at_a_name_too() {
    needs!(root, overlayfs, built "containerd");
    let kubelet =
        Kubelet::with("[plugins.'io.containerd.grpc.v1.cri']\nstream_server_address = 'localhost'\n");
    let config = kubelet.pod("named");
    let pod = kubelet.run_pod(&config).unwrap();
    let request = v1::PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![80] };
    let url = call!(kubelet, port_forward, request).unwrap().url;
    assert!(url.starts_with("http://127.0.0.1:") || url.starts_with("http://[::1]:"), "{url}");
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_checkpoint_is_refused_with_the_reason() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("checkpoint");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    let request = |id: &str| v1::CheckpointContainerRequest {
        container_id: id.into(),
        location: kubelet.daemon.dir().join("checkpoint.tar").display().to_string(),
        timeout: 5,
    };
    let error = call!(kubelet, checkpoint_container, request(&id)).unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    assert!(error.message().contains("checkpoint"), "{error}");
    assert_eq!(call!(kubelet, checkpoint_container, request("absent")).unwrap_err().code(), Code::NotFound);
    assert!(!Path::new(&request(&id).location).exists());
    assert_eq!(kubelet.status(&id).state(), v1::ContainerState::ContainerRunning);
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_handler_with_networks_of_its_own_attaches_its_pods_to_them() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let own = testkit::place::temp();
    let node = Node::new(&format!(
        "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.apart]\n\
         runtime_type = 'io.containerd.runc.v2'\ncni_conf_dir = '{}'\n",
        own.path().display()
    ));
    let before = node.left();
    let config = node.networked("apart");
    let run = |handler: &str| {
        let request =
            v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.into() };
        call!(node, run_pod_sandbox, request).map(|answer| answer.pod_sandbox_id)
    };
    let address = |pod: &str| {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: false };
        call!(node, pod_sandbox_status, request).unwrap().status.unwrap().network.unwrap().ip
    };
    let error = run("apart").unwrap_err();
    assert!(error.message().contains("cni plugin not initialized"), "{error}");
    let name = node.configure_own(own.path());
    wait::eventually(Duration::from_secs(20), "the handler's network", || {
        (verbose(&node).info["lastCNILoadStatus.apart"] == "OK").then_some(())
    });
    let pod = run("apart").unwrap();
    assert!(address(&pod).starts_with("10.78.0."), "{}", address(&pod));
    call!(node, stop_pod_sandbox, v1::StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).unwrap();
    assert_eq!(address(&pod), "", "given back");
    node.remove_pod(&pod);
    let pod = run("").unwrap();
    assert!(address(&pod).starts_with("10.77.0."), "{}", address(&pod));
    node.remove_pod(&pod);
    node.settles_at(&before, "the end");
    assert_eq!((node.addresses(&name), node.cached(&name)), (Vec::new(), Vec::new()));
}

#[test]
fn a_bandwidth_that_is_none_fails_the_pod_which_leaves_nothing() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let node = Node::new("");
    let before = node.left();
    for (text, told) in [
        ("nonsense", "quantities must match the regular expression"),
        ("999", "unreasonably small"),
        ("2P", "unreasonably large"),
    ] {
        let mut config = node.networked("limited");
        config.annotations.insert("kubernetes.io/ingress-bandwidth".into(), text.into());
        let error = node.run_pod(&config).unwrap_err();
        assert!(error.message().contains(told), "{text}: {error}");
        node.settles_at(&before, text);
    }
    let mut config = node.networked("limited");
    config.annotations.insert("kubernetes.io/ingress-bandwidth".into(), "1.5M".into());
    let pod = node.run_pod(&config).unwrap();
    node.remove_pod(&pod);
    node.settles_at(&before, "the end");
}
