//! Shims that are frozen or dead: their own pods wait, are told as lost or go; everybody else's never notice.

use std::time::{Duration, Instant};

use api::runtime::v1;
use rustix::process::{Pid, Signal, kill_process};
use testkit::needs;

use crate::client::{Kubelet, call};

/// As long as the kubelet waits for any answer: who takes longer hangs.
const HANG: Duration = Duration::from_secs(120);

/// A pod with one container that runs.
struct Running {
    config: v1::PodSandboxConfig,
    pod: String,
    container: String,
}

fn run(kubelet: &Kubelet, name: &str) -> Running {
    let config = kubelet.pod(name);
    let pod = kubelet.run_pod(&config).unwrap();
    let container = kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
    Running { config, pod, container }
}

/// The shim of a pod.
pub fn shim(kubelet: &Kubelet, pod: &str) -> Pid {
    let is_its = |line: &&String| line.contains("containerd-shim") && line.contains(pod);
    let processes = kubelet.daemon.traces().processes;
    let line = processes.iter().find(is_its).unwrap_or_else(|| panic!("{pod}: {processes:?}"));
    Pid::from_raw(line.split(' ').next().unwrap().parse().unwrap()).unwrap()
}

fn pod_state(kubelet: &Kubelet, pod: &str) -> v1::PodSandboxState {
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: false };
    call!(kubelet, pod_sandbox_status, request).unwrap().status.unwrap().state()
}

/// Every verb that a kubelet uses on a pod that runs.
fn works(kubelet: &Kubelet, running: &Running, attempt: u32) {
    let Running { config, pod, container } = running;
    assert_eq!(pod_state(kubelet, pod), v1::PodSandboxState::SandboxReady);
    let pods = call!(kubelet, list_pod_sandbox, v1::ListPodSandboxRequest::default()).unwrap().items;
    assert!(pods.iter().any(|one| one.id == *pod));
    let all = call!(kubelet, list_containers, v1::ListContainersRequest::default()).unwrap().containers;
    assert!(all.iter().any(|one| one.id == *container));
    assert_eq!(kubelet.status(container).state(), v1::ContainerState::ContainerRunning);
    assert_eq!(kubelet.exec(container, "echo here", 30).unwrap().stdout, b"here\n");
    let request = v1::ContainerStatsRequest { container_id: container.clone() };
    assert!(call!(kubelet, container_stats, request).unwrap().stats.unwrap().memory.is_some());
    let all = call!(kubelet, list_container_stats, v1::ListContainerStatsRequest::default()).unwrap().stats;
    let ours = all.iter().find(|one| one.attributes.as_ref().is_some_and(|of| of.id == *container));
    assert!(ours.is_some_and(|one| one.memory.is_some()), "{all:?}");
    let all =
        call!(kubelet, list_pod_sandbox_stats, v1::ListPodSandboxStatsRequest::default()).unwrap().stats;
    assert!(all.iter().any(|one| one.attributes.as_ref().is_some_and(|of| of.id == *pod)), "{all:?}");
    let mut another = kubelet.container("another", "exec sleep 1000");
    another.metadata.get_or_insert_default().attempt = attempt;
    let another = kubelet.start(pod, config, another);
    call!(kubelet, stop_container, v1::StopContainerRequest { container_id: another.clone(), timeout: 0 })
        .unwrap();
    call!(kubelet, remove_container, v1::RemoveContainerRequest { container_id: another }).unwrap();
}

/// Repeats a verb as the kubelet does, until it succeeds.
pub fn converges<T>(what: &str, mut verb: impl FnMut() -> Result<T, tonic::Status>) -> T {
    let mut errors = Vec::new();
    for _ in 0..4 {
        match verb() {
            Ok(answer) => return answer,
            Err(error) => errors.push(error),
        }
    }
    panic!("{what}: {errors:?}")
}

#[test]
fn a_frozen_and_a_dead_shim_concern_nobody_else_and_their_pods_can_be_removed() {
    needs!(root, overlayfs, built "containerd");
    let mut kubelet = Kubelet::new();
    let [frozen, dead, fine] = ["frozen", "dead", "fine"].map(|name| run(&kubelet, name));
    let (stopped, killed) = (shim(&kubelet, &frozen.pod), shim(&kubelet, &dead.pod));
    kubelet.daemon.kill();
    kill_process(stopped, Signal::STOP).unwrap();
    kill_process(killed, Signal::KILL).unwrap();
    kubelet.daemon.restart();
    works(&kubelet, &fine, 0);
    // The dead shim's: told as they are, and their processes are gone.
    let status = kubelet.ended(&dead.container);
    assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
    testkit::wait::eventually(HANG, "the end of the pod whose shim died", || {
        (pod_state(&kubelet, &dead.pod) == v1::PodSandboxState::SandboxNotready).then_some(())
    });
    // The frozen one's: unknown, which is neither running nor lost.
    assert_eq!(kubelet.status(&frozen.container).state(), v1::ContainerState::ContainerUnknown);
    assert_eq!(pod_state(&kubelet, &frozen.pod), v1::PodSandboxState::SandboxNotready);
    assert!(kubelet.exec(&frozen.container, "true", 1).is_err());
    // While its stop is under way, the others' verbs end before it.
    let socket = kubelet.daemon.socket();
    let stop = v1::StopPodSandboxRequest { pod_sandbox_id: frozen.pod.clone() };
    let stopping = {
        let stop = stop.clone();
        std::thread::spawn(move || stop_pod(&socket, stop))
    };
    works(&kubelet, &fine, 1);
    assert!(!stopping.is_finished(), "a frozen shim's pod was stopped faster than another's verbs");
    if stopping.join().unwrap().is_err() {
        converges("StopPodSandbox", || call!(kubelet, stop_pod_sandbox, stop.clone()));
    }
    assert_eq!(shim(&kubelet, &frozen.pod), stopped, "a stop alone does not end the shim");
    assert_eq!(kubelet.ended(&frozen.container).exit_code, 137);
    let remove = v1::RemovePodSandboxRequest { pod_sandbox_id: frozen.pod.clone() };
    converges("RemovePodSandbox", || call!(kubelet, remove_pod_sandbox, remove.clone()));
    let left = kubelet.daemon.traces().processes;
    assert!(
        !left.iter().any(|line| line.contains(&frozen.pod)),
        "the frozen shim goes with its pod: {left:?}"
    );
    works(&kubelet, &fine, 2);
    // Each end was told once.
    let stops = stops(&kubelet, &fine);
    for (id, what) in [(&dead.container, "dead"), (&dead.pod, "dead pod"), (&frozen.container, "frozen")] {
        assert_eq!(stops.iter().filter(|one| *one == id).count(), 1, "{what}: {stops:?}");
    }
    kubelet.remove_pod(&dead.pod);
    kubelet.remove_pod(&fine.pod);
    kubelet.check_clean();
}

#[test]
fn a_frozen_shim_of_a_container_that_has_ended_delays_no_start() {
    needs!(root, overlayfs, built "containerd");
    let mut kubelet = Kubelet::new();
    let [frozen, fine] = ["frozen", "fine"].map(|name| run(&kubelet, name));
    kill_process(shim(&kubelet, &frozen.pod), Signal::STOP).unwrap();
    let stop = v1::StopContainerRequest { container_id: frozen.container.clone(), timeout: 0 };
    converges("StopContainer", || call!(kubelet, stop_container, stop.clone()));
    assert_eq!(kubelet.ended(&frozen.container).exit_code, 137);
    kubelet.daemon.kill();
    kubelet.daemon.restart();
    // Well before its shim is given up, which takes ten seconds.
    testkit::wait::eventually(Duration::from_secs(5), "the start", || {
        call!(kubelet, list_containers, v1::ListContainersRequest::default()).ok()
    });
    works(&kubelet, &fine, 0);
    assert_eq!(kubelet.status(&frozen.container).state(), v1::ContainerState::ContainerExited);
    let remove = v1::RemovePodSandboxRequest { pod_sandbox_id: frozen.pod.clone() };
    converges("RemovePodSandbox", || call!(kubelet, remove_pod_sandbox, remove.clone()));
    kubelet.remove_pod(&fine.pod);
    kubelet.check_clean();
}

#[test]
fn frozen_shims_delay_no_list_of_figures_by_more_than_one_of_them_does() {
    needs!(root, overlayfs, built "containerd");
    // In lots of ten that wait two seconds each they would take six.
    const FROZEN: usize = 21;
    let kubelet = Kubelet::new();
    let frozen: Vec<Running> = (0..FROZEN).map(|number| run(&kubelet, &format!("frozen-{number}"))).collect();
    let fine = run(&kubelet, "fine");
    let shims: Vec<Pid> = frozen.iter().map(|one| shim(&kubelet, &one.pod)).collect();
    let signal = |signal: Signal| shims.iter().for_each(|pid| kill_process(*pid, signal).unwrap());
    let containers =
        || call!(kubelet, list_container_stats, v1::ListContainerStatsRequest::default()).unwrap().stats;
    let pods =
        || call!(kubelet, list_pod_sandbox_stats, v1::ListPodSandboxStatsRequest::default()).unwrap().stats;
    let metrics =
        || call!(kubelet, list_pod_sandbox_metrics, v1::ListPodSandboxMetricsRequest {}).unwrap().pod_metrics;
    // Of whose containers there are figures, and how many are told of.
    let with_figures = |stats: &[v1::ContainerStats]| -> Vec<String> {
        let figures = stats.iter().filter(|one| one.memory.is_some() && one.cpu.is_some());
        figures.map(|one| one.attributes.as_ref().unwrap().id.clone()).collect()
    };
    assert_eq!(with_figures(&containers()).len(), FROZEN + 1);
    signal(Signal::STOP);
    for limit in [Duration::from_secs(4), Duration::from_secs(1)] {
        let begun = Instant::now();
        let stats = containers();
        assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
        assert_eq!(stats.len(), FROZEN + 1, "each is told of");
        assert_eq!(with_figures(&stats), std::slice::from_ref(&fine.container));
    }
    // What one list found out, the others know.
    let begun = Instant::now();
    let stats = pods();
    assert_eq!(stats.len(), FROZEN + 1);
    let inner = stats.into_iter().flat_map(|pod| pod.linux.unwrap().containers).collect::<Vec<_>>();
    assert_eq!(with_figures(&inner), std::slice::from_ref(&fine.container));
    let told: Vec<_> = metrics().into_iter().flat_map(|pod| pod.container_metrics).collect();
    assert_eq!(told.iter().map(|one| &one.container_id).collect::<Vec<_>>(), [&fine.container]);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    signal(Signal::CONT);
    testkit::wait::eventually(Duration::from_secs(20), "everybody's figures", || {
        (with_figures(&containers()).len() == FROZEN + 1).then_some(())
    });
    for one in frozen.iter().chain([&fine]) {
        kubelet.remove_pod(&one.pod);
    }
    kubelet.check_clean();
}

/// Stops a pod over a connection of its own.
fn stop_pod(socket: &std::path::Path, request: v1::StopPodSandboxRequest) -> Result<(), tonic::Status> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let channel = grpc::channel::connect(socket).await.expect("connect to the daemon");
        let mut client = crate::client::Runtime::new(channel);
        let answer = tokio::time::timeout(HANG, client.stop_pod_sandbox(request)).await;
        answer.expect("StopPodSandbox hangs").map(drop)
    })
}

/// Whose ends were told, up to that of a container that is stopped now.
fn stops(kubelet: &Kubelet, fine: &Running) -> Vec<String> {
    let mut events = call!(kubelet, get_container_events, v1::GetEventsRequest {}).unwrap();
    let stop = v1::StopContainerRequest { container_id: fine.container.clone(), timeout: 0 };
    call!(kubelet, stop_container, stop).unwrap();
    let mut told = Vec::new();
    kubelet.run(async {
        while told.last() != Some(&fine.container) {
            let event = tokio::time::timeout(HANG, events.message()).await.expect("an event");
            let event = event.unwrap().expect("the stream goes on");
            if event.container_event_type() == v1::ContainerEventType::ContainerStoppedEvent {
                told.push(event.container_id);
            }
        }
    });
    told
}

#[test]
fn exec_sync_with_a_frozen_shim_ends_at_its_limit_and_the_late_command_is_killed() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let running = run(&kubelet, "late");
    let frozen = shim(&kubelet, &running.pod);
    kill_process(frozen, Signal::STOP).unwrap();
    let error = kubelet.exec(&running.container, "touch /begun; exec sleep 7010", 1).unwrap_err();
    kill_process(frozen, Signal::CONT).unwrap();
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded, "{error}");
    assert!(error.message().contains("timeout 1s exceeded"), "{error}");
    testkit::wait::eventually(HANG, "the late command's end", || {
        let list = kubelet.exec(&running.container, "ls /begun; ps -o args", 30).unwrap().stdout;
        let list = String::from_utf8(list).unwrap();
        (list.contains("/begun") && !list.contains("sleep 7010")).then_some(())
    });
    kubelet.remove_pod(&running.pod);
    kubelet.check_clean();
}
