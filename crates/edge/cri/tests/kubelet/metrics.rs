//! Metrics as a kubelet reads them that has no cadvisor of its own.

use std::collections::BTreeMap;

use api::runtime::v1;
use testkit::needs;

use crate::client::{Kubelet, call};

#[test]
fn a_container_is_measured_with_the_labels_that_are_described() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("metrics");
    let pod = kubelet.run_pod(&config).unwrap();
    let mut wanted = kubelet.container("one", "exec 5</etc/passwd; exec sleep 1000");
    wanted.linux.get_or_insert_default().resources =
        Some(v1::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() });
    let id = kubelet.start(&pod, &config, wanted);
    testkit::wait::eventually(std::time::Duration::from_secs(10), "sleep runs", || {
        kubelet.exec(&id, "pidof sleep", 10).is_ok_and(|done| done.exit_code == 0).then_some(())
    });
    let described = call!(kubelet, list_metric_descriptors, v1::ListMetricDescriptorsRequest {}).unwrap();
    let keys: BTreeMap<_, _> =
        described.descriptors.iter().map(|one| (one.name.as_str(), one.label_keys.len())).collect();
    let told = call!(kubelet, list_pod_sandbox_metrics, v1::ListPodSandboxMetricsRequest {}).unwrap();
    let [of_pod] = told.pod_metrics.as_slice() else { panic!("{told:?}") };
    let [of_container] = of_pod.container_metrics.as_slice() else { panic!("{of_pod:?}") };
    assert_eq!((&of_pod.pod_sandbox_id, &of_container.container_id), (&pod, &id));
    for metric in of_pod.metrics.iter().chain(&of_container.metrics) {
        assert_eq!(keys.get(metric.name.as_str()), Some(&metric.label_values.len()), "{}", metric.name);
    }
    let value = |name: &str| {
        let found = of_container.metrics.iter().find(|metric| metric.name == name);
        let metric = found.unwrap_or_else(|| panic!("no {name}: {of_container:?}"));
        assert_eq!(metric.label_values[..4], ["metrics", "cases", "one", id.as_str()]);
        metric.value.unwrap().value
    };
    // Its input and outputs, and the one that it opened.
    assert_eq!((value("container_file_descriptors"), value("container_sockets")), (4, 0));
    assert_eq!(value("container_spec_memory_limit_bytes"), 64 << 20);
    assert!(value("container_fs_limit_bytes") > value("container_memory_usage_bytes"));
    assert!(value("container_fs_inodes_free") > 0 && value("container_processes") == 1);
    kubelet.remove_pod(&pod);
    kubelet.check_clean();
}
