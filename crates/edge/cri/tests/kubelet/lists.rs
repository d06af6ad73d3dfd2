//! The streamed lists: each tells what its list tells, in as many messages as it needs.

use api::runtime::v1;
use testkit::needs;

use crate::client::{Kubelet, call};

#[test]
fn a_streamed_list_tells_what_the_list_tells() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let mut pods = Vec::new();
    for name in ["first", "second"] {
        let config = kubelet.pod(name);
        let pod = kubelet.run_pod(&config).unwrap();
        kubelet.start(&pod, &config, kubelet.container("one", "exec sleep 1000"));
        pods.push(pod);
    }
    /// Ids by a list and by its stream.
    macro_rules! both {
        ($list:ident, $list_request:ident, $items:ident; $stream:ident, $stream_request:ident, $streamed:ident; $id:expr) => {{
            let listed = call!(kubelet, $list, v1::$list_request::default()).unwrap().$items;
            let listed: Vec<String> = listed.iter().map($id).collect();
            let stream = call!(kubelet, $stream, v1::$stream_request::default()).unwrap();
            let messages = kubelet.all(stream);
            assert_eq!(messages.len(), 1, stringify!($stream));
            let streamed: Vec<String> =
                messages.iter().flat_map(|message| &message.$streamed).map($id).collect();
            assert_eq!(streamed, listed, stringify!($stream));
            assert_eq!(listed.len(), 2, stringify!($stream));
        }};
    }
    both!(list_pod_sandbox, ListPodSandboxRequest, items;
        stream_pod_sandboxes, StreamPodSandboxesRequest, pod_sandboxes; |one| one.id.clone());
    both!(list_containers, ListContainersRequest, containers;
        stream_containers, StreamContainersRequest, containers; |one| one.id.clone());
    both!(list_container_stats, ListContainerStatsRequest, stats;
        stream_container_stats, StreamContainerStatsRequest, container_stats;
        |one| one.attributes.as_ref().unwrap().id.clone());
    both!(list_pod_sandbox_stats, ListPodSandboxStatsRequest, stats;
        stream_pod_sandbox_stats, StreamPodSandboxStatsRequest, pod_sandbox_stats;
        |one| one.attributes.as_ref().unwrap().id.clone());
    both!(list_pod_sandbox_metrics, ListPodSandboxMetricsRequest, pod_metrics;
        stream_pod_sandbox_metrics, StreamPodSandboxMetricsRequest, pod_sandbox_metrics;
        |one| one.pod_sandbox_id.clone());
    let filter = v1::PodSandboxFilter { id: pods[0].clone(), ..v1::PodSandboxFilter::default() };
    let stream =
        call!(kubelet, stream_pod_sandboxes, v1::StreamPodSandboxesRequest { filter: Some(filter) }).unwrap();
    let found: Vec<String> =
        kubelet.all(stream).into_iter().flat_map(|message| message.pod_sandboxes).map(|pod| pod.id).collect();
    assert_eq!(found, [pods[0].clone()]);
    pods.iter().for_each(|pod| kubelet.remove_pod(pod));
    let stream = call!(kubelet, stream_containers, v1::StreamContainersRequest::default()).unwrap();
    assert!(kubelet.all(stream).is_empty(), "nothing is no message");
    kubelet.check_clean();
}
