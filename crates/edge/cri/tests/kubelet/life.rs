//! Pods and containers from their making to their removal.

use std::time::Duration;

use api::runtime::v1;
use testkit::needs;
use tonic::Code;

use crate::client::{Kubelet, call};

#[test]
fn a_pod_and_its_container_live_and_go_without_a_trace() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("life");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "echo started; exec sleep 1000"));
    assert_eq!(kubelet.status(&id).state(), v1::ContainerState::ContainerRunning);
    let done = kubelet.exec(&id, "echo out; echo err >&2; exit 3", 10).unwrap();
    assert_eq!(
        (done.stdout.as_slice(), done.stderr.as_slice(), done.exit_code),
        (&b"out\n"[..], &b"err\n"[..], 3)
    );
    let list = call!(kubelet, list_containers, v1::ListContainersRequest::default()).unwrap().containers;
    assert_eq!(list.iter().map(|one| (&one.id, &one.pod_sandbox_id)).collect::<Vec<_>>(), [(&id, &pod)]);
    let stop = v1::StopContainerRequest { container_id: id.clone(), timeout: 0 };
    call!(kubelet, stop_container, stop.clone()).unwrap();
    let status = kubelet.status(&id);
    assert_eq!(
        (status.state(), status.exit_code, status.reason.as_str()),
        (v1::ContainerState::ContainerExited, 137, "Error")
    );
    call!(kubelet, stop_container, stop).unwrap();
    for _ in 0..2 {
        call!(kubelet, remove_container, v1::RemoveContainerRequest { container_id: id.clone() }).unwrap();
    }
    kubelet.remove_pod(&pod);
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn removing_a_pod_removes_what_runs_in_it() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("force");
    let pod = kubelet.run_pod(&config).unwrap();
    kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    kubelet.create(&pod, &config, kubelet.container("two", "true")).unwrap();
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn what_is_mounted_in_a_pods_directory_is_not_removed_with_it() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let pod = kubelet.run_pod(&kubelet.pod("mounted")).unwrap();
    let foreign = kubelet.daemon.dir().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("kept"), "x").unwrap();
    let inside = kubelet.daemon.dir().join("root/io.containerd.grpc.v1.cri/sandboxes").join(&pod).join("in");
    std::fs::create_dir(&inside).unwrap();
    rustix::mount::mount_bind(&foreign, &inside).unwrap();
    let stop = v1::StopPodSandboxRequest { pod_sandbox_id: pod.clone() };
    call!(kubelet, stop_pod_sandbox, stop).unwrap();
    let remove = v1::RemovePodSandboxRequest { pod_sandbox_id: pod.clone() };
    let refused = call!(kubelet, remove_pod_sandbox, remove);
    rustix::mount::unmount(&inside, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(foreign.join("kept").exists());
    assert!(refused.unwrap_err().message().contains("failed to remove sandbox files"));
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn ends_have_reasons() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("reasons");
    let pod = kubelet.run_pod(&config).unwrap();
    let fine = kubelet.start(&pod, &config, kubelet.container("fine", "true"));
    let status = kubelet.ended(&fine);
    assert_eq!((status.exit_code, status.reason.as_str()), (0, "Completed"));
    let failed = kubelet.start(&pod, &config, kubelet.container("failed", "exit 7"));
    let status = kubelet.ended(&failed);
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    let mut missing = kubelet.container("missing", "");
    missing.command = vec!["/no/such/program".into()];
    let missing = kubelet.create(&pod, &config, missing).unwrap();
    let start = v1::StartContainerRequest { container_id: missing.clone() };
    call!(kubelet, start_container, start).unwrap_err();
    let status = kubelet.status(&missing);
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_stop_given_up_during_its_grace_kills_nothing() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("given-up");
    let pod = kubelet.run_pod(&config).unwrap();
    let deaf = "trap '' TERM; i=0; while [ $i -lt 40 ]; do sleep 0.1; i=$((i+1)); done; exit 7";
    let id = kubelet.start(&pod, &config, kubelet.container("one", deaf));
    let stop = v1::StopContainerRequest { container_id: id.clone(), timeout: 1 };
    let mut impatient = tonic::Request::new(stop);
    impatient.set_timeout(Duration::from_millis(200));
    let given_up = kubelet.block(async |mut client| client.stop_container(impatient).await);
    given_up.unwrap_err();
    assert_eq!(kubelet.ended(&id).exit_code, 7, "it ran to its own end");
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn names_are_taken_once_and_given_back() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("names");
    let pod = kubelet.run_pod(&config).unwrap();
    let error = kubelet.run_pod(&config).unwrap_err();
    assert!(error.message().contains("is reserved for"), "{error}");
    kubelet.create(&pod, &config, kubelet.container("one", "true")).unwrap();
    let error = kubelet.create(&pod, &config, kubelet.container("one", "true")).unwrap_err();
    assert!(error.message().contains("is reserved for"), "{error}");
    kubelet.remove_pod(&pod);
    let again = kubelet.run_pod(&config).unwrap();
    kubelet.remove_pod(&again);
    kubelet.check_clean();
}

#[test]
fn what_is_not_there_is_not_found_or_already_gone() {
    needs!(root, built "containerd");
    let kubelet = Kubelet::new();
    let id = "0123456789abcdef".to_owned();
    let status = v1::ContainerStatusRequest { container_id: id.clone(), verbose: false };
    assert_eq!(call!(kubelet, container_status, status).unwrap_err().code(), Code::NotFound);
    let status = v1::PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: false };
    assert_eq!(call!(kubelet, pod_sandbox_status, status).unwrap_err().code(), Code::NotFound);
    call!(kubelet, stop_container, v1::StopContainerRequest { container_id: id.clone(), timeout: 1 })
        .unwrap();
    call!(kubelet, remove_container, v1::RemoveContainerRequest { container_id: id.clone() }).unwrap();
    kubelet.remove_pod(&id);
    let mut config = kubelet.pod("handler");
    let request = v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: "nope".into() };
    let error = call!(kubelet, run_pod_sandbox, request).unwrap_err();
    assert!(error.message().contains("no runtime for \"nope\" is configured"), "{error}");
    config.metadata = None;
    assert_eq!(kubelet.run_pod(&config).unwrap_err().code(), Code::InvalidArgument);
    kubelet.check_clean();
}

#[test]
fn a_container_that_cannot_be_made_leaves_nothing() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("undo");
    let pod = kubelet.run_pod(&config).unwrap();
    let mut wrong = kubelet.container("image", "true");
    wrong.image =
        Some(v1::ImageSpec { image: "docker.io/library/none:v1".into(), ..v1::ImageSpec::default() });
    assert_eq!(kubelet.create(&pod, &config, wrong).unwrap_err().code(), Code::NotFound);
    let mut wrong = kubelet.container("log", "true");
    wrong.log_path = "../../escape.log".into();
    assert_eq!(kubelet.create(&pod, &config, wrong).unwrap_err().code(), Code::InvalidArgument);
    let mut wrong = kubelet.container("env", "true");
    wrong.envs = vec![v1::KeyValue { key: "A=B".into(), ..v1::KeyValue::default() }];
    kubelet.create(&pod, &config, wrong).unwrap_err();
    let list = call!(kubelet, list_containers, v1::ListContainersRequest::default()).unwrap();
    assert!(list.containers.is_empty());
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn an_exec_that_takes_too_long_is_killed() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("timeout");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    let error = kubelet.exec(&id, "exec sleep 777", 1).unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    testkit::wait::eventually(Duration::from_secs(5), "the end of what was killed", || {
        let list = kubelet.exec(&id, "ps", 10).unwrap();
        (!String::from_utf8_lossy(&list.stdout).contains("sleep 777")).then_some(())
    });
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn limits_are_set_changed_and_told() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("limits");
    let pod = kubelet.run_pod(&config).unwrap();
    let mut wanted = kubelet.container("one", "exec sleep 1000");
    let limits = |bytes| v1::LinuxContainerResources { memory_limit_in_bytes: bytes, ..Default::default() };
    wanted.linux.get_or_insert_default().resources = Some(limits(64 << 20));
    let id = kubelet.start(&pod, &config, wanted);
    let read = |kubelet: &Kubelet| {
        kubelet
            .status(&id)
            .resources
            .and_then(|resources| resources.linux)
            .map(|linux| linux.memory_limit_in_bytes)
    };
    assert_eq!(read(&kubelet), Some(64 << 20));
    let request = v1::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(limits(128 << 20)),
        ..v1::UpdateContainerResourcesRequest::default()
    };
    call!(kubelet, update_container_resources, request).unwrap();
    assert_eq!(read(&kubelet), Some(128 << 20));
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}
