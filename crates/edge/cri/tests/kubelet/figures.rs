//! Statistics and metrics whose figures can be checked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::runtime::v1;
use testkit::{needs, wait};
use tonic::Code;

use crate::client::{Kubelet, call};
use crate::node::Node;

/// How long a figure may take to show.
const PATIENCE: Duration = Duration::from_secs(30);

fn number(value: Option<v1::UInt64Value>) -> u64 {
    value.unwrap().value
}

fn stats(kubelet: &Kubelet, id: &str) -> v1::ContainerStats {
    let request = v1::ContainerStatsRequest { container_id: id.into() };
    call!(kubelet, container_stats, request).unwrap().stats.unwrap()
}

fn pod_stats(kubelet: &Kubelet, id: &str) -> v1::PodSandboxStats {
    let request = v1::PodSandboxStatsRequest { pod_sandbox_id: id.into() };
    call!(kubelet, pod_sandbox_stats, request).unwrap().stats.unwrap()
}

/// A pod with a cgroup of its own, as the kubelet makes them.
fn own_cgroup(kubelet: &Kubelet, config: &mut v1::PodSandboxConfig) {
    let parent = format!("/{}/pod", kubelet.daemon.namespace());
    config.linux.get_or_insert_default().cgroup_parent = parent;
}

#[test]
fn a_busy_container_uses_the_cpu_and_an_idle_one_does_not() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("cpu");
    let pod = kubelet.run_pod(&config).unwrap();
    let busy = kubelet.start(&pod, &config, kubelet.container("busy", "while :; do :; done"));
    let idle = kubelet.start(&pod, &config, kubelet.container("idle", "exec sleep 1000"));
    let used = |id: &str| stats(&kubelet, id).cpu.unwrap();
    let first = used(&busy);
    assert!(first.usage_nano_cores.is_some(), "{first:?}");
    let later = wait::eventually(PATIENCE, "half a second of work", || {
        let later = used(&busy);
        let grown = number(later.usage_core_nano_seconds) - number(first.usage_core_nano_seconds);
        (grown > 500_000_000).then_some(later)
    });
    assert!(later.timestamp > first.timestamp);
    assert!(number(later.usage_nano_cores) > 50_000_000, "{later:?}");
    assert!(number(used(&idle).usage_core_nano_seconds) < 500_000_000);
    let filter = v1::ContainerStatsFilter { id: busy.clone(), ..v1::ContainerStatsFilter::default() };
    let listed = call!(kubelet, list_container_stats, v1::ListContainerStatsRequest { filter: Some(filter) })
        .unwrap()
        .stats;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].attributes.as_ref().unwrap().id, busy);
    // One that has ended, and one that never ran, use nothing that could be told.
    let stop = v1::StopContainerRequest { container_id: busy.clone(), timeout: 0 };
    call!(kubelet, stop_container, stop).unwrap();
    let made = kubelet.create(&pod, &config, kubelet.container("made", "true")).unwrap();
    for id in [&busy, &made] {
        let error = call!(kubelet, container_stats, v1::ContainerStatsRequest { container_id: id.clone() });
        let error = error.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Unknown, "unexpected metrics response: []"));
    }
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_known_allocation_is_in_the_memory_figures() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("memory");
    let pod = kubelet.run_pod(&config).unwrap();
    let script = "x=$(head -c 33554432 /dev/zero | tr '\\0' x); echo done; sleep 1000; echo $x";
    let mut container = kubelet.container("one", script);
    container.linux.as_mut().unwrap().resources = Some(v1::LinuxContainerResources {
        memory_limit_in_bytes: 256 << 20,
        ..v1::LinuxContainerResources::default()
    });
    let id = kubelet.start(&pod, &config, container);
    let memory = wait::eventually(PATIENCE, "the allocation", || {
        let memory = stats(&kubelet, &id).memory.unwrap();
        (number(memory.rss_bytes) > 32 << 20).then_some(memory)
    });
    assert!(number(memory.usage_bytes) >= number(memory.rss_bytes), "{memory:?}");
    assert!(number(memory.working_set_bytes) <= number(memory.usage_bytes), "{memory:?}");
    assert_eq!(number(memory.available_bytes), (256 << 20) - number(memory.working_set_bytes));
    assert!(number(memory.page_faults) > 8192, "{memory:?}");
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}

#[test]
fn a_pods_figures_are_those_of_its_cgroup_with_what_has_ended() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let mut config = kubelet.pod("whole");
    own_cgroup(&kubelet, &mut config);
    let pod = kubelet.run_pod(&config).unwrap();
    let loops = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
    let worker = kubelet.start(&pod, &config, kubelet.container("worker", loops));
    kubelet.ended(&worker);
    let idle = kubelet.start(&pod, &config, kubelet.container("idle", "sleep 1000 & exec sleep 1000"));
    let linux = wait::eventually(PATIENCE, "both of its processes", || {
        let linux = pod_stats(&kubelet, &pod).linux.unwrap();
        (number(linux.process.unwrap().process_count) == 2).then_some(linux)
    });
    let spent = number(linux.cpu.unwrap().usage_core_nano_seconds);
    let [one] = linux.containers.as_slice() else { panic!("{:?}", linux.containers) };
    assert_eq!(one.attributes.as_ref().unwrap().id, idle);
    let running = number(one.cpu.as_ref().unwrap().usage_core_nano_seconds);
    assert!(spent > running + 50_000_000, "{spent} in all, {running} of it by what runs");
    // The two are read one after the other while the processes' memory grows.
    wait::eventually(PATIENCE, "the pod's memory includes its container's", || {
        let linux = pod_stats(&kubelet, &pod).linux.unwrap();
        let inside = linux.containers[0].memory.as_ref().unwrap().usage_bytes;
        (number(linux.memory.unwrap().usage_bytes) >= number(inside)).then_some(())
    });
    assert_eq!(linux.network, None, "its network is the host's");
    // A container that goes takes no figure with it.
    call!(kubelet, remove_container, v1::RemoveContainerRequest { container_id: worker }).unwrap();
    assert!(number(pod_stats(&kubelet, &pod).linux.unwrap().cpu.unwrap().usage_core_nano_seconds) >= spent);
    let stop = v1::StopPodSandboxRequest { pod_sandbox_id: pod.clone() };
    call!(kubelet, stop_pod_sandbox, stop).unwrap();
    let request = v1::PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
    assert_eq!(call!(kubelet, pod_sandbox_stats, request).unwrap_err().code(), Code::Unavailable);
    kubelet.remove_pod(&pod);
    let parent = std::path::Path::new("/sys/fs/cgroup");
    for hierarchy in std::fs::read_dir(parent).unwrap().flatten() {
        // The kubelet would have made it and would remove it.
        let _absent = std::fs::remove_dir(hierarchy.path().join(kubelet.daemon.namespace()).join("pod"));
    }
    kubelet.check_clean();
}

#[test]
fn what_goes_over_each_interface_of_a_pod_is_counted() {
    needs!(root, overlayfs, built "containerd", built "berth-cni");
    let node = Node::new("");
    let config = node.networked("traffic");
    let pod = node.run_pod(&config).unwrap();
    let mut container = node.container("one", "ping -c 3 -i 0.1 -s 1000 10.77.0.1 || true; sleep 1000");
    container.linux.as_mut().unwrap().security_context = None;
    node.start(&pod, &config, container);
    let network = wait::eventually(PATIENCE, "three thousand bytes", || {
        let network = pod_stats(&node, &pod).linux.unwrap().network.unwrap();
        (number(network.default_interface.as_ref()?.tx_bytes) > 3000).then_some(network)
    });
    let default = network.default_interface.unwrap();
    assert_eq!((default.name.as_str(), number(default.rx_errors), number(default.tx_errors)), ("eth0", 0, 0));
    let names: Vec<&str> = network.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    assert_eq!(names, ["eth0"]);
    let metrics =
        call!(node, list_pod_sandbox_metrics, v1::ListPodSandboxMetricsRequest {}).unwrap().pod_metrics;
    let sent =
        metrics[0].metrics.iter().find(|metric| metric.name == "container_network_transmit_bytes_total");
    let sent = sent.unwrap();
    assert_eq!(sent.label_values.last().unwrap(), "eth0");
    assert!(number(sent.value) > 3000);
    node.remove_pod(&pod);
}

#[test]
fn every_metric_is_described_with_the_labels_that_it_has() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("metrics");
    let pod = kubelet.run_pod(&config).unwrap();
    let script = "x=$(head -c 16777216 /dev/zero | tr '\\0' x); echo done; sleep 1000; echo $x";
    let mut container = kubelet.container("one", script);
    container.linux.as_mut().unwrap().resources = Some(v1::LinuxContainerResources {
        memory_limit_in_bytes: 128 << 20,
        cpu_shares: 512,
        ..v1::LinuxContainerResources::default()
    });
    let id = kubelet.start(&pod, &config, container);
    let described =
        call!(kubelet, list_metric_descriptors, v1::ListMetricDescriptorsRequest {}).unwrap().descriptors;
    let names: BTreeSet<&str> = described.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names.len(), described.len(), "each once");
    let keys: BTreeMap<&str, &[String]> =
        described.iter().map(|one| (one.name.as_str(), one.label_keys.as_slice())).collect();
    let told = wait::eventually(PATIENCE, "the allocation", || {
        let pods = call!(kubelet, list_pod_sandbox_metrics, v1::ListPodSandboxMetricsRequest {})
            .unwrap()
            .pod_metrics;
        let [pod] = pods.try_into().unwrap();
        let [container]: [v1::ContainerMetrics; 1] = pod.container_metrics.clone().try_into().ok()?;
        let rss = container.metrics.iter().find(|metric| metric.name == "container_memory_rss")?;
        (number(rss.value) > 16 << 20).then_some(pod)
    });
    assert_eq!(told.pod_sandbox_id, pod);
    let container = &told.container_metrics[0];
    assert_eq!(container.container_id, id);
    for metric in told.metrics.iter().chain(&container.metrics) {
        assert_eq!(keys[metric.name.as_str()].len(), metric.label_values.len(), "{}", metric.name);
    }
    let value = |name: &str| {
        let metric = container.metrics.iter().find(|metric| metric.name == name);
        number(metric.unwrap_or_else(|| panic!("{name}")).value)
    };
    assert_eq!(value("container_spec_memory_limit_bytes"), 128 << 20);
    assert_eq!(value("container_spec_cpu_shares"), 512);
    assert!(value("container_processes") >= 1);
    let labels = &container.metrics[0].label_values;
    assert_eq!(labels[..4], ["metrics".to_owned(), "cases".into(), "one".into(), id.clone()]);
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}
