//! NRI plugins on the daemon's socket: what they hear, what they change, and that they hold up nobody.

use std::time::{Duration, Instant};

use api::Message as _;
use api::nri::pkg::api::v1alpha1 as pb;
use api::runtime::v1;
use testkit::{needs, wait};

use crate::client::{Kubelet, call};
use crate::nri_plugin::{Answer, Plugin};

#[allow(clippy::unnecessary_wraps, reason = "the form of an answer")]
fn fine(_: &str, _: &[u8]) -> Answer {
    Some(Ok(Vec::new()))
}

/// Answers the making of a container with `adjust`, and all else with nothing special.
fn adjusting(adjust: pb::ContainerAdjustment) -> impl FnMut(&str, &[u8]) -> Answer + Send + 'static {
    move |method, payload| match method {
        "CreateContainer" => {
            let reply = pb::CreateContainerResponse { adjust: Some(adjust.clone()), ..Default::default() };
            Some(Ok(reply.encode_to_vec()))
        }
        _ => fine(method, payload),
    }
}

fn env(key: &str, value: &str) -> pb::ContainerAdjustment {
    let env = vec![pb::KeyValue { key: key.into(), value: value.into() }];
    pb::ContainerAdjustment { env, ..pb::ContainerAdjustment::default() }
}

fn memory(limit: i64) -> pb::LinuxResources {
    let memory =
        pb::LinuxMemory { limit: Some(pb::OptionalInt64 { value: limit }), ..pb::LinuxMemory::default() };
    pb::LinuxResources { memory: Some(memory), ..pb::LinuxResources::default() }
}

fn stop_and_remove(kubelet: &Kubelet, id: &str) {
    let id = id.to_owned();
    call!(kubelet, stop_container, v1::StopContainerRequest { container_id: id.clone(), timeout: 0 })
        .unwrap();
    call!(kubelet, remove_container, v1::RemoveContainerRequest { container_id: id }).unwrap();
}

#[test]
fn a_plugin_hears_a_life_and_adjusts_it() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let shared = kubelet.daemon.dir().join("shared");
    std::fs::create_dir_all(&shared).unwrap();
    std::fs::write(shared.join("file"), "from the plugin").unwrap();
    let mount = pb::Mount {
        destination: "/nri".into(),
        r#type: "bind".into(),
        source: shared.display().to_string(),
        options: ["rbind", "ro", "rprivate"].map(str::to_owned).to_vec(),
    };
    let linux = pb::LinuxContainerAdjustment { resources: Some(memory(64 << 20)), ..Default::default() };
    let adjust = pb::ContainerAdjustment { mounts: vec![mount], linux: Some(linux), ..env("NRI", "yes") };
    let plugin = Plugin::connect(&kubelet, "10", "a", adjusting(adjust));
    let config = kubelet.pod("adjusted");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    let seen = kubelet.exec(&id, "echo $NRI; cat /nri/file", 10).unwrap();
    assert_eq!(String::from_utf8(seen.stdout).unwrap(), "yes\nfrom the plugin");
    let info = kubelet.daemon.ctr("-n k8s.io container info").args([&id]).ok();
    assert!(info.contains("67108864"), "{info}");
    let told = kubelet.status(&id).resources.unwrap().linux.unwrap();
    assert_eq!(told.memory_limit_in_bytes, 64 << 20, "as it is and not as it was asked for");
    let linux = v1::LinuxContainerResources { cpu_shares: 512, ..v1::LinuxContainerResources::default() };
    let update = v1::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(linux),
        ..v1::UpdateContainerResourcesRequest::default()
    };
    call!(kubelet, update_container_resources, update).unwrap();
    stop_and_remove(&kubelet, &id);
    kubelet.remove_pod(&pod);
    let heard = [
        "Configure",
        "Synchronize",
        "RunPodSandbox",
        "CreateContainer",
        "PostCreateContainer",
        "StartContainer",
        "PostStartContainer",
        "UpdateContainer",
        "PostUpdateContainer",
        "StopContainer",
        "RemoveContainer",
        "StopPodSandbox",
        "RemovePodSandbox",
    ];
    assert_eq!(plugin.methods(), heard);
    let made: pb::CreateContainerRequest = plugin.request("CreateContainer");
    let (of, container) = (made.pod.unwrap(), made.container.unwrap());
    assert_eq!((of.id, of.name.as_str(), of.namespace.as_str()), (pod.clone(), "adjusted", "cases"));
    assert!(of.pid > 0);
    assert_eq!((&container.id, &container.pod_sandbox_id, container.name.as_str()), (&id, &pod, "one"));
    assert_eq!(container.args, ["/bin/sh", "-c", "exec sleep 1000"]);
    let update: pb::UpdateContainerRequest = plugin.request("UpdateContainer");
    assert_eq!(update.linux_resources.unwrap().cpu.unwrap().shares.unwrap().value, 512);
    let ended: pb::StopContainerRequest = plugin.request("StopContainer");
    let ended = ended.container.unwrap();
    assert_eq!((ended.state(), ended.exit_code), (pb::ContainerState::ContainerStopped, 137));
    kubelet.check_clean();
}

#[test]
fn plugins_have_their_turns_by_index_and_do_not_undo_each_other() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let second = Plugin::connect(&kubelet, "20", "b", adjusting(env("A", "b")));
    let first = Plugin::connect(&kubelet, "10", "a", adjusting(env("A", "a")));
    let config = kubelet.pod("conflict");
    let pod = kubelet.run_pod(&config).unwrap();
    let error = kubelet.create(&pod, &config, kubelet.container("one", "true")).unwrap_err();
    assert!(error.message().contains("plugins \"20-b\" and \"10-a\" both tried to set Env A"), "{error}");
    // The second saw what the first wanted, and both heard that nothing came of it.
    let seen: pb::CreateContainerRequest = second.request("CreateContainer");
    assert!(seen.container.unwrap().env.contains(&"A=a".to_owned()));
    for plugin in [&first, &second] {
        let methods = plugin.methods();
        assert_eq!(methods[methods.len() - 2..], ["StopContainer", "RemoveContainer"]);
    }
    drop(second);
    // The name is free, and one plugin alone may.
    testkit::wait::eventually(Duration::from_secs(20), "the second plugin's end", || {
        kubelet.create(&pod, &config, kubelet.container("one", "true")).ok()
    });
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_plugin_that_hangs_is_dropped_and_the_request_goes_on() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let hanging = |method: &str, payload: &[u8]| match method {
        "CreateContainer" => None,
        _ => fine(method, payload),
    };
    let plugin = Plugin::connect(&kubelet, "10", "hangs", hanging);
    let config = kubelet.pod("hang");
    let pod = kubelet.run_pod(&config).unwrap();
    let begun = Instant::now();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exit 3"));
    let took = begun.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(15)).contains(&took), "{took:?}");
    assert_eq!(kubelet.ended(&id).exit_code, 3);
    plugin.dropped();
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_pods_new_resources_are_refused_before_they_hold_and_not_after() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("resized");
    let pod = kubelet.run_pod(&config).unwrap();
    let refusing = |wanted: &'static str| {
        move |method: &str, payload: &[u8]| match method == wanted {
            true => Some(Err(spec::Error::internal("not with me"))),
            false => fine(method, payload),
        }
    };
    let request = v1::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod.clone(),
        resources: Some(v1::LinuxContainerResources {
            cpu_shares: 7,
            ..v1::LinuxContainerResources::default()
        }),
        overhead: None,
    };
    let shares = || {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: true };
        let info = call!(kubelet, pod_sandbox_status, request).unwrap().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        info["resources"]["linux"]["cpu_shares"].as_i64()
    };
    let before = Plugin::connect(&kubelet, "10", "before", refusing("UpdatePodSandbox"));
    let error = call!(kubelet, update_pod_sandbox_resources, request.clone()).unwrap_err();
    assert!(error.message().contains("not with me"), "{error}");
    assert_eq!(shares(), None);
    drop(before);
    let _after = Plugin::connect(&kubelet, "20", "after", refusing("PostUpdatePodSandbox"));
    wait::eventually(Duration::from_secs(10), "the first plugin to be gone", || {
        call!(kubelet, update_pod_sandbox_resources, request.clone()).ok()
    });
    assert_eq!(shares(), Some(7));
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn the_built_in_validator_refuses_what_it_is_told_to() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::with(
        "[plugins.'io.containerd.nri.v1.nri'.default_validator]\nenable = true\nreject_oci_hook_adjustment = true\n",
    );
    let hook = pb::Hook { path: "/bin/true".into(), ..pb::Hook::default() };
    let hooks = pb::Hooks { create_runtime: vec![hook], ..pb::Hooks::default() };
    let adjust = pb::ContainerAdjustment { hooks: Some(hooks), ..pb::ContainerAdjustment::default() };
    let _plugin = Plugin::connect(&kubelet, "10", "hooks", adjusting(adjust));
    let config = kubelet.pod("validated");
    let pod = kubelet.run_pod(&config).unwrap();
    let error = kubelet.create(&pod, &config, kubelet.container("one", "true")).unwrap_err();
    assert!(
        error.message().contains("plugin \"10-hooks\" attempted restricted OCI hook injection"),
        "{error}"
    );
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_plugin_that_comes_late_is_told_what_lives_and_changes_it_unasked() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("late");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("lives", "exec sleep 1000"));
    let ended = kubelet.start(&pod, &config, kubelet.container("ended", "true"));
    kubelet.ended(&ended);
    let plugin = Plugin::connect(&kubelet, "10", "a", fine);
    let told: pb::SynchronizeRequest = plugin.request("Synchronize");
    assert_eq!(told.pods.iter().map(|one| &one.id).collect::<Vec<_>>(), [&pod]);
    assert_eq!(told.containers.iter().map(|one| &one.id).collect::<Vec<_>>(), [&id]);
    let update = |id: &str| pb::ContainerUpdate {
        container_id: id.into(),
        linux: Some(pb::LinuxContainerUpdate { resources: Some(memory(48 << 20)) }),
        ignore_failure: false,
    };
    let gone = "f".repeat(64);
    let request = pb::UpdateContainersRequest {
        update: vec![update(&id), update(&ended), update(&gone)],
        evict: vec![],
    };
    let reply = plugin.call("UpdateContainers", &request);
    let failed = pb::UpdateContainersResponse::decode(reply.as_slice()).unwrap().failed;
    assert_eq!(failed.iter().map(|one| &one.container_id).collect::<Vec<_>>(), [&ended]);
    let limits = kubelet.status(&id).resources.unwrap().linux.unwrap();
    assert_eq!(limits.memory_limit_in_bytes, 48 << 20);
    let eviction = pb::ContainerEviction { container_id: id.clone(), reason: "a case".into() };
    plugin.call("UpdateContainers", &pb::UpdateContainersRequest { update: vec![], evict: vec![eviction] });
    assert_eq!(kubelet.ended(&id).exit_code, 137);
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}
