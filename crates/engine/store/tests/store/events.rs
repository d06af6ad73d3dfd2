//! What the store publishes, in order, once it is durable.

use std::time::Duration;

use api::containerd::events::{ContentCreate, SnapshotCommit};
use model::image::Delete;
use model::mask::Mask;
use spec::Labels;

use crate::bed::{Bed, image, labels, put, within};

#[tokio::test]
async fn every_change_is_told_once() {
    let bed = Bed::new();
    let mut heard = bed.events.subscribe();
    let native = bed.store.snapshotter("native").unwrap();
    within("one", |cx| {
        bed.store.namespaces().create(cx, "one", &Labels::new()).unwrap();
        let digest = put(&*bed.store.content(), cx, b"data", &Labels::new()).unwrap();
        let images = bed.store.images();
        images.create(cx, &image("app", &digest), None).unwrap();
        images.create(cx, &image("app", &digest), None).unwrap_err();
        images.update(cx, &image("app", &digest), &Mask::all(), None).unwrap();
        native.prepare(cx, "k", "", &Labels::new()).unwrap();
        native.commit(cx, "base", "k", &Default::default()).unwrap();
        images.delete(cx, "app", &Delete::default()).unwrap();
        bed.store.collect().unwrap();
        let mut expired = image("old", &digest);
        expired.labels = labels(&[("containerd.io/gc.expire", "2020-01-01T00:00:00Z")]);
        images.create(cx, &expired, None).unwrap();
        bed.store.collect().unwrap();
        bed.store.namespaces().delete(cx, "one").unwrap();
    });
    let mut topics = Vec::new();
    let mut events = Vec::new();
    while let Ok(event) = tokio::time::timeout(Duration::from_millis(1), heard.next()).await {
        assert_eq!(event.namespace, "one");
        topics.push(event.topic.clone());
        events.push(event);
    }
    assert_eq!(
        topics,
        [
            "/namespaces/create",
            "/content/create",
            "/images/create",
            "/images/update",
            "/snapshot/prepare",
            "/snapshot/commit",
            "/images/delete",
            "/snapshot/remove",
            "/images/create",
            "/images/delete",
            "/namespaces/delete",
        ]
    );
    let any = |at: usize| {
        let event: &model::Any = &events[at].event;
        api::Any { type_url: event.type_url.clone(), value: event.value.clone() }
    };
    let created: ContentCreate = api::decode_any(&any(1)).unwrap().unwrap();
    assert_eq!(created.size, 4);
    let committed: SnapshotCommit = api::decode_any(&any(5)).unwrap().unwrap();
    assert_eq!(
        (committed.key.as_str(), committed.name.as_str(), committed.snapshotter.as_str()),
        ("k", "base", "native")
    );
    assert_eq!(events[2].event.type_url, "containerd.services.images.v1.ImageCreate");
}
