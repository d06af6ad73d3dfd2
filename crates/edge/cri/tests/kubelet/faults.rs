//! A fault at each step in turn: what fails takes itself back, and what a dead daemon left goes with the next one.

use api::runtime::v1;
use testkit::needs;

use crate::client::{IMAGE, Kubelet, call};
use crate::node::Node;

/// The steps of a pod's making, in their order.
const POD: [&str; 9] = [
    "pod files",
    "pod root",
    "pod netns path",
    "pod netns",
    "pod attached",
    "pod records",
    "pod created",
    "pod started",
    "pod ready",
];

/// The steps of a container's making, in their order.
const CONTAINER: [&str; 5] = [
    "container directories",
    "container snapshot",
    "container adjusted",
    "container status",
    "container record",
];

/// The steps of a container's start, in their order.
const START: [&str; 3] = ["start streams", "start created", "start started"];

fn start(kubelet: &Kubelet, id: &str) -> Result<v1::StartContainerResponse, tonic::Status> {
    call!(kubelet, start_container, v1::StartContainerRequest { container_id: id.into() })
}

fn remove_pods(kubelet: &Kubelet) {
    let pods = call!(kubelet, list_pod_sandbox, v1::ListPodSandboxRequest::default()).unwrap().items;
    for pod in pods {
        kubelet.remove_pod(&pod.id);
    }
}

fn remove_containers(kubelet: &Kubelet) {
    let all = call!(kubelet, list_containers, v1::ListContainersRequest::default()).unwrap().containers;
    for one in all {
        call!(kubelet, remove_container, v1::RemoveContainerRequest { container_id: one.id }).unwrap();
    }
}

#[test]
fn a_pod_whose_making_fails_at_any_step_leaves_nothing() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let node = Node::new("");
    let config = node.networked("steps");
    let pod = node.run_pod(&config).unwrap();
    node.remove_pod(&pod);
    let before = node.left();
    for step in POD {
        node.fault("fail", step);
        let error = node.run_pod(&config).unwrap_err();
        assert!(error.message().contains(&format!("a test's fault after {step:?}")), "{error}");
        node.settles_at(&before, step);
    }
    node.no_fault();
    let pod = node.run_pod(&config).unwrap();
    node.remove_pod(&pod);
    node.settles_at(&before, "the end");
}

#[test]
fn a_pod_of_an_image_whose_making_fails_leaves_neither_lease_nor_snapshot() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let image = format!("[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = '{IMAGE}'");
    let mut node = Node::new(&image);
    let config = node.networked("image");
    node.fault("fail", "pod snapshot");
    node.run_pod(&config).unwrap_err();
    let before = node.left();
    for step in ["pod lease", "pod snapshot"] {
        node.fault("fail", step);
        let error = node.run_pod(&config).unwrap_err();
        assert!(error.message().contains(step), "{error}");
        node.settles_at(&before, step);
        node.fault("die", step);
        node.run_pod(&config).unwrap_err();
        node.no_fault();
        node.daemon.restart();
        remove_pods(&node);
        node.settles_at(&before, step);
    }
}

#[test]
fn a_container_that_fails_at_any_step_leaves_nothing_but_the_pod() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let node = Node::new("");
    let config = node.networked("steps");
    let pod = node.run_pod(&config).unwrap();
    let ours = || {
        let mut one = node.container("one", "exec sleep 1000");
        one.linux = None;
        one
    };
    // Once through, so that the image is unpacked.
    node.create(&pod, &config, ours()).unwrap();
    remove_containers(&node);
    let before = node.left();
    for step in CONTAINER {
        node.fault("fail", step);
        let error = node.create(&pod, &config, ours()).unwrap_err();
        assert!(error.message().contains(step), "{error}");
        node.settles_at(&before, step);
    }
    for step in START {
        node.fault("fail", step);
        let id = node.create(&pod, &config, ours()).unwrap();
        let error = start(&node, &id).unwrap_err();
        assert!(error.message().contains(step), "{error}");
        let status = node.status(&id);
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"), "{step}");
        remove_containers(&node);
        node.settles_at(&before, step);
    }
    node.no_fault();
    node.start(&pod, &config, ours());
    node.remove_pod(&pod);
    node.check_clean();
}

#[test]
fn a_container_that_could_not_be_unmade_goes_with_its_pod() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let node = Node::new("");
    let config = node.networked("unmade");
    let pod = node.run_pod(&config).unwrap();
    node.create(&pod, &config, node.container("one", "true")).unwrap();
    node.remove_pod(&pod);
    let before = node.left();
    let pod = node.run_pod(&config).unwrap();
    let with_pod = node.left();
    node.fault("fail", "container status\nfail container snapshot undone");
    let error = node.create(&pod, &config, node.container("one", "true")).unwrap_err();
    assert!(error.message().contains("(and undoing failed: remove the container's directories"), "{error}");
    assert_ne!(node.left(), with_pod);
    let all = call!(node, list_containers, v1::ListContainersRequest::default()).unwrap().containers;
    assert!(all.is_empty(), "{all:?}");
    node.no_fault();
    // Its name is free.
    node.create(&pod, &config, node.container("one", "true")).unwrap();
    node.remove_pod(&pod);
    node.settles_at(&before, "the pod's end");
    node.check_clean();
}

#[test]
fn a_daemon_that_dies_at_any_step_of_a_pod_leaves_nothing_to_the_next() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let mut node = Node::new("");
    let config = node.networked("dies");
    let pod = node.run_pod(&config).unwrap();
    node.remove_pod(&pod);
    let before = node.left();
    for step in POD {
        node.fault("die", step);
        node.run_pod(&config).unwrap_err();
        node.no_fault();
        node.daemon.restart();
        remove_pods(&node);
        let again = node.run_pod(&config).unwrap_or_else(|error| panic!("{step}: {error}"));
        node.remove_pod(&again);
        node.settles_at(&before, step);
    }
}

#[test]
fn a_container_whose_daemon_died_before_it_ran_is_started_by_the_next() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let mut node = Node::new("");
    let config = node.networked("again");
    let pod = node.run_pod(&config).unwrap();
    for step in ["start streams", "start created"] {
        let mut ours = node.container("one", "read line; exit 6");
        (ours.linux, ours.stdin) = (None, true);
        let id = node.create(&pod, &config, ours).unwrap();
        node.fault("die", step);
        start(&node, &id).unwrap_err();
        node.no_fault();
        node.daemon.restart();
        assert_eq!(node.status(&id).state(), v1::ContainerState::ContainerCreated, "{step}");
        start(&node, &id).unwrap_or_else(|error| panic!("{step}: {error}"));
        assert_eq!(node.status(&id).state(), v1::ContainerState::ContainerRunning, "{step}");
        remove_containers(&node);
    }
    node.remove_pod(&pod);
    node.check_clean();
}

#[test]
fn what_a_dead_daemon_left_of_a_container_without_a_record_goes_while_its_pod_lives() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let mut node = Node::new("");
    let config = node.networked("dies");
    let pod = node.run_pod(&config).unwrap();
    let mut ours = node.container("one", "exec sleep 1000");
    ours.linux = None;
    // Once through, so that the image is unpacked; one that lives stays as it is.
    let mut lives = ours.clone();
    lives.metadata.get_or_insert_default().name = "lives".into();
    let lives = node.start(&pod, &config, lives);
    let before = node.left();
    for step in &CONTAINER[..4] {
        node.fault("die", step);
        node.create(&pod, &config, ours.clone()).unwrap_err();
        node.no_fault();
        node.daemon.restart();
        node.settles_at(&before, step);
        assert_eq!(node.exec(&lives, "echo here", 30).unwrap().stdout, b"here\n");
    }
    node.remove_pod(&pod);
    node.check_clean();
}

#[test]
fn a_daemon_that_dies_at_any_step_of_a_container_leaves_nothing_to_the_next() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let mut node = Node::new("");
    let config = node.networked("dies");
    let empty = node.left();
    let pod = node.run_pod(&config).unwrap();
    let mut ours = node.container("one", "exec sleep 1000");
    ours.linux = None;
    let unpacked = node.create(&pod, &config, ours.clone()).unwrap();
    call!(node, remove_container, v1::RemoveContainerRequest { container_id: unpacked }).unwrap();
    for step in CONTAINER.iter().chain(&START) {
        node.fault("die", step);
        let died = match node.create(&pod, &config, ours.clone()) {
            Ok(id) => start(&node, &id).is_err(),
            Err(_) => true,
        };
        assert!(died, "{step}");
        node.no_fault();
        node.daemon.restart();
        remove_containers(&node);
        let id = node.start(&pod, &config, ours.clone());
        assert_eq!(node.status(&id).state(), v1::ContainerState::ContainerRunning, "{step}");
        remove_containers(&node);
    }
    node.remove_pod(&pod);
    // The image's layers stay unpacked: they are the image's.
    node.check_clean();
    assert!(node.left().same_but_for_snapshots(&empty), "{:?}, before: {empty:?}", node.left());
}
