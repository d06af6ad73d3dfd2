//! What happens to containers, as a listener that comes late hears it.

use api::runtime::v1;
use testkit::needs;

use crate::client::{Kubelet, call};

#[test]
fn a_late_listener_hears_what_nobody_heard_with_how_the_pod_stands() {
    needs!(root, overlayfs, built "containerd");
    let kubelet = Kubelet::new();
    let config = kubelet.pod("events");
    let pod = kubelet.run_pod(&config).unwrap();
    let id = kubelet.start(&pod, &config, kubelet.container("one", "exit 7"));
    kubelet.ended(&id);
    let mut events = call!(kubelet, get_container_events, v1::GetEventsRequest {}).unwrap();
    let wanted = |event: &v1::ContainerEventResponse| {
        event.container_id == id
            && event.container_event_type() == v1::ContainerEventType::ContainerStoppedEvent
    };
    let mut seen = Vec::new();
    let stopped = kubelet.run(async {
        while let Some(event) = events.message().await.unwrap() {
            seen.push((event.container_id.clone(), event.container_event_type()));
            if wanted(&event) {
                return event;
            }
        }
        panic!("the stream ended: {seen:?}")
    });
    use v1::ContainerEventType::{ContainerCreatedEvent as Created, ContainerStartedEvent as Started};
    let expected = [(&pod, Created), (&pod, Started), (&id, Created), (&id, Started)];
    assert_eq!(seen[..4].iter().map(|(id, kind)| (id, *kind)).collect::<Vec<_>>(), expected);
    assert_eq!(stopped.pod_sandbox_status.unwrap().id, pod);
    let codes: Vec<_> = stopped.containers_statuses.iter().map(|one| (&one.id, one.exit_code)).collect();
    assert_eq!(codes, [(&id, 7)]);
    kubelet.remove_pod(&pod);
    // The kubelet makes nothing of an event that does not say how the pod stands.
    let gone = kubelet.run(async {
        while let Some(event) = events.message().await.unwrap() {
            let kind = event.container_event_type();
            if event.container_id == pod && kind == v1::ContainerEventType::ContainerDeletedEvent {
                return event;
            }
        }
        panic!("the stream ended")
    });
    let status = gone.pod_sandbox_status.unwrap();
    assert_eq!((&status.id, status.state()), (&pod, v1::PodSandboxState::SandboxNotready));
    drop(events);
    kubelet.check_clean();
}
