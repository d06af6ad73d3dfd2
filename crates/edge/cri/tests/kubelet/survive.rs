//! What a new daemon makes of what a dead one left.

use std::time::{Duration, Instant};

use api::runtime::v1;
use rustix::process::{Pid, Signal, kill_process};
use testkit::needs;

use crate::client::{Kubelet, call};

#[test]
fn pods_and_containers_are_taken_up_with_their_ends() {
    needs!(root, overlayfs, built "containerd");
    let mut kubelet = Kubelet::new();
    let config = kubelet.pod("again");
    let pod = kubelet.run_pod(&config).unwrap();
    let runs = kubelet.start(&pod, &config, kubelet.container("runs", "exec sleep 1000"));
    let ends = kubelet.start(
        &pod,
        &config,
        kubelet.container("ends", "while [ ! -e /go ]; do sleep 0.05; done; exit 9"),
    );
    let made = kubelet.create(&pod, &config, kubelet.container("made", "exec sleep 1000")).unwrap();
    kubelet.exec(&ends, "(sleep 0.2; touch /go) >/dev/null 2>&1 &", 0).unwrap();
    kubelet.daemon.kill();
    kubelet.daemon.restart();
    let pods = call!(kubelet, list_pod_sandbox, v1::ListPodSandboxRequest::default()).unwrap().items;
    assert_eq!(
        pods.iter().map(|one| (one.id.as_str(), one.state())).collect::<Vec<_>>(),
        [(pod.as_str(), v1::PodSandboxState::SandboxReady)]
    );
    assert_eq!(kubelet.status(&runs).state(), v1::ContainerState::ContainerRunning);
    assert_eq!(kubelet.exec(&runs, "echo still", 10).unwrap().stdout, b"still\n");
    assert_eq!(kubelet.ended(&ends).exit_code, 9);
    call!(kubelet, start_container, v1::StartContainerRequest { container_id: made.clone() }).unwrap();
    assert_eq!(kubelet.status(&made).state(), v1::ContainerState::ContainerRunning);
    let error = kubelet.run_pod(&config).unwrap_err();
    assert!(error.message().contains("is reserved for"), "{error}");
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_container_whose_shim_died_too_has_ended_once_with_unknown() {
    needs!(root, overlayfs, built "containerd");
    let mut kubelet = Kubelet::new();
    let config = kubelet.pod("lost");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    let processes = kubelet.daemon.traces().processes;
    kubelet.daemon.kill();
    for line in processes {
        let pid = line.split(' ').next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        let _ = kill_process(pid.unwrap(), Signal::KILL);
    }
    kubelet.daemon.restart();
    let status = kubelet.ended(&id);
    assert!([137, 255].contains(&status.exit_code), "{status:?}");
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_frozen_shim_delays_neither_the_start_nor_the_others() {
    needs!(root, overlayfs, built "containerd");
    let mut kubelet = Kubelet::new();
    let (frozen, other) = (kubelet.pod("frozen"), kubelet.pod("other"));
    let frozen_pod = kubelet.run_pod(&frozen).unwrap();
    let shim =
        kubelet.daemon.traces().processes.into_iter().find(|line| line.contains("containerd-shim")).unwrap();
    let shim = Pid::from_raw(shim.split(' ').next().unwrap().parse().unwrap()).unwrap();
    let other_pod = kubelet.run_pod(&other).unwrap();
    kill_process(shim, Signal::STOP).unwrap();
    kubelet.daemon.restart();
    let began = Instant::now();
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: other_pod.clone(), verbose: false };
    let status = call!(kubelet, pod_sandbox_status, request).unwrap().status.unwrap();
    assert_eq!(status.state(), v1::PodSandboxState::SandboxReady);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    kill_process(shim, Signal::CONT).unwrap();
    let ready = || {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: frozen_pod.clone(), verbose: false };
        let status = call!(kubelet, pod_sandbox_status, request).unwrap().status.unwrap();
        (status.state() == v1::PodSandboxState::SandboxReady).then_some(())
    };
    testkit::wait::eventually(Duration::from_secs(30), "the pod whose shim thawed", ready);
    kubelet.remove_pod(&frozen_pod);
    kubelet.remove_pod(&other_pod);
    kubelet.check_clean();
}

#[test]
fn a_container_that_the_kernel_kills_for_want_of_memory_says_so() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("oom");
    let pod = kubelet.run_pod(&config).unwrap();
    let mut greedy = kubelet.container("one", "exec tail /dev/zero");
    let limit = v1::LinuxContainerResources {
        memory_limit_in_bytes: 16 << 20,
        ..v1::LinuxContainerResources::default()
    };
    greedy.linux.get_or_insert_default().resources = Some(limit);
    let id = kubelet.start(&pod, &config, greedy);
    let status = kubelet.ended(&id);
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}
