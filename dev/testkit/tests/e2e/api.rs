//! The gRPC services as a client that is not `ctr` uses them: codes, texts and rules that Go clients rely on.

use std::future::Future;

use ::api::Any;
use ::api::containerd::services::containers::v1 as containers;
use ::api::containerd::services::content::v1 as content;
use ::api::containerd::services::images::v1 as images;
use ::api::containerd::services::leases::v1 as leases;
use ::api::containerd::services::snapshots::v1 as snapshots;
use ::api::containerd::services::streaming::v1::StreamInit;
use ::api::containerd::services::transfer::v1::TransferRequest;
use ::api::containerd::types::Descriptor;
use ::api::containerd::types::transfer::{ImageExportStream, ImageStore};
use grpc::channel;
use grpc::containerd::services::containers::v1::containers_client::ContainersClient;
use grpc::containerd::services::content::v1::content_client::ContentClient;
use grpc::containerd::services::images::v1::images_client::ImagesClient;
use grpc::containerd::services::leases::v1::leases_client::LeasesClient;
use grpc::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use grpc::containerd::services::streaming::v1::streaming_client::StreamingClient;
use grpc::containerd::services::transfer::v1::transfer_client::TransferClient;
use grpc::containerd::services::version::v1::version_client::VersionClient;
use testkit::daemon::Daemon;
use testkit::image::sha256;
use testkit::needs;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// Runs `work` with a channel to a daemon of its own.
fn with_channel<F: Future<Output = ()>>(work: impl FnOnce(Channel) -> F) {
    let daemon = Daemon::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let channel = channel::connect(&daemon.socket()).await.unwrap();
        let limit = std::time::Duration::from_secs(60);
        tokio::time::timeout(limit, work(channel)).await.expect("no call hangs");
    });
}

/// A request in the namespace `api`.
fn inside<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(channel::NAMESPACE, "api".parse().unwrap());
    request
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, part: &str) {
    let status = result.expect_err("the call is refused");
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(part), "{part:?} is missing in {:?}", status.message());
}

#[test]
fn a_call_without_a_namespace_is_refused() {
    needs!(root, built "containerd");
    with_channel(|channel| async move {
        let mut client = ContainersClient::new(channel.clone());
        let list = containers::ListContainersRequest::default();
        refused(client.list(list.clone()).await, Code::FailedPrecondition, "namespace is required");
        let mut odd = Request::new(list);
        odd.metadata_mut().insert(channel::NAMESPACE, "a/b".parse().unwrap());
        refused(client.list(odd).await, Code::InvalidArgument, "a/b");
        VersionClient::new(channel.clone()).version(()).await.expect("the version needs no namespace");
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
        let answer = health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
        assert_eq!(answer.into_inner().status, 1, "serving");
    });
}

#[test]
fn containers_keep_their_rules() {
    needs!(root, built "containerd");
    with_channel(|channel| async move {
        let mut client = ContainersClient::new(channel);
        let good = containers::Container {
            id: "one".into(),
            runtime: Some(containers::container::Runtime {
                name: "io.containerd.runc.v2".into(),
                options: None,
            }),
            spec: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".into(),
                value: b"{}".to_vec(),
            }),
            ..Default::default()
        };
        let create = |container: &containers::Container| {
            inside(containers::CreateContainerRequest { container: Some(container.clone()) })
        };
        let mut bad = good.clone();
        bad.id = "not an id".into();
        refused(client.create(create(&bad)).await, Code::InvalidArgument, "not an id");
        let mut bad = good.clone();
        bad.runtime = None;
        refused(client.create(create(&bad)).await, Code::InvalidArgument, "Runtime");
        let mut bad = good.clone();
        bad.snapshot_key = "key".into();
        refused(client.create(create(&bad)).await, Code::InvalidArgument, "Snapshotter");
        let made = client.create(create(&good)).await.unwrap().into_inner().container.unwrap();
        assert!(made.created_at.is_some() && made.created_at == made.updated_at);
        refused(client.create(create(&good)).await, Code::AlreadyExists, "already exists");

        let mut changed = good.clone();
        changed.labels.insert("a".into(), "b".into());
        let update = |container: &containers::Container, paths: &[&str]| {
            inside(containers::UpdateContainerRequest {
                container: Some(container.clone()),
                update_mask: Some(::api::FieldMask {
                    paths: paths.iter().map(ToString::to_string).collect(),
                }),
            })
        };
        let stored =
            client.update(update(&changed, &["labels.a"])).await.unwrap().into_inner().container.unwrap();
        assert_eq!(stored.labels["a"], "b");
        refused(client.update(update(&changed, &["nonsense"])).await, Code::InvalidArgument, "nonsense");
        let mut long = good.clone();
        long.labels.insert("long".into(), "x".repeat(4097));
        refused(client.update(update(&long, &["labels"])).await, Code::InvalidArgument, "label");
        let list = |filter: &str| inside(containers::ListContainersRequest { filters: vec![filter.into()] });
        assert_eq!(client.list(list("labels.a==b")).await.unwrap().into_inner().containers.len(), 1);
        assert_eq!(client.list(list("labels.a==c")).await.unwrap().into_inner().containers.len(), 0);
        refused(client.list(list("id=")).await, Code::InvalidArgument, "");
        client.delete(inside(containers::DeleteContainerRequest { id: "one".into() })).await.unwrap();
        let get = inside(containers::GetContainerRequest { id: "one".into() });
        refused(client.get(get).await, Code::NotFound, "not found");
    });
}

/// A message of a write.
fn write(action: content::WriteAction, offset: i64, data: &[u8]) -> content::WriteContentRequest {
    content::WriteContentRequest {
        action: action.into(),
        r#ref: "ingest".into(),
        offset,
        data: data.to_vec(),
        ..Default::default()
    }
}

/// Sends all messages of one write and returns the last answer.
async fn send(
    client: &mut ContentClient<Channel>,
    messages: Vec<content::WriteContentRequest>,
) -> Result<content::WriteContentResponse, Status> {
    let mut answers = client.write(inside(tokio_stream::iter(messages))).await?.into_inner();
    let mut last = content::WriteContentResponse::default();
    while let Some(answer) = answers.message().await? {
        last = answer;
    }
    Ok(last)
}

#[test]
fn an_ingest_is_resumed_checked_and_committed() {
    needs!(root, built "containerd");
    use content::WriteAction::{Commit, Stat, Write};
    with_channel(|channel| async move {
        let client = &mut ContentClient::new(channel);
        let first = send(client, vec![write(Write, 0, b"hello ")]).await.unwrap();
        assert_eq!(first.offset, 6);
        // The stream has ended without a commit; the ingest stays and is taken up where it stands.
        assert_eq!(send(client, vec![write(Stat, 0, b"")]).await.unwrap().offset, 6);
        refused(send(client, vec![write(Write, 3, b"x")]).await, Code::OutOfRange, "");
        let mut wrong = write(Commit, 6, b"world");
        wrong.expected = sha256(b"something else");
        refused(send(client, vec![wrong]).await, Code::FailedPrecondition, "sha256:");
        let stat = send(client, vec![write(Stat, 0, b"")]).await.unwrap();
        let rest: &[u8] = if stat.offset == 6 { b"world" } else { b"" };
        let mut commit = write(Commit, stat.offset, rest);
        commit.expected = sha256(b"hello world");
        commit.total = 11;
        commit.labels.insert("containerd.io/gc.root".into(), "yes".into());
        let done = send(client, vec![commit.clone()]).await.unwrap();
        assert_eq!((done.digest.as_str(), done.offset), (commit.expected.as_str(), 11));
        let again = content::WriteContentRequest { offset: 0, ..commit.clone() };
        refused(send(client, vec![again]).await, Code::AlreadyExists, "already exists");

        let read =
            |offset, size| content::ReadContentRequest { digest: commit.expected.clone(), offset, size };
        let mut part = client.read(inside(read(6, 3))).await.unwrap().into_inner();
        assert_eq!(part.message().await.unwrap().unwrap().data, b"wor");
        let beyond = async { client.read(inside(read(12, 0))).await?.into_inner().message().await }.await;
        refused(beyond, Code::OutOfRange, "");
        let odd = inside(content::InfoRequest { digest: "sha256:short".into() });
        refused(client.info(odd).await, Code::InvalidArgument, "");
    });
}

#[test]
fn answers_of_a_write_carry_the_digest_so_far() {
    needs!(root, built "containerd");
    use content::WriteAction::{Stat, Write};
    with_channel(|channel| async move {
        let client = &mut ContentClient::new(channel);
        let first = send(client, vec![write(Stat, 0, b"")]).await.unwrap();
        assert_eq!(first.digest, sha256(b""));
        let second = send(client, vec![write(Write, 0, b"hello ")]).await.unwrap();
        assert_eq!(second.digest, sha256(b"hello "));
        let third = send(client, vec![write(Stat, 0, b""), write(Write, 6, b"world")]).await.unwrap();
        assert_eq!((third.digest, third.offset), (sha256(b"hello world"), 11));
    });
}

#[test]
fn a_commit_of_a_known_blob_drops_its_ingest() {
    needs!(root, built "containerd");
    use content::WriteAction::{Commit, Stat, Write};
    with_channel(|channel| async move {
        let client = &mut ContentClient::new(channel);
        let mut commit = write(Commit, 0, b"known");
        commit.labels.insert("containerd.io/gc.root".into(), "yes".into());
        send(client, vec![commit]).await.unwrap();
        let mut again = write(Commit, 5, b"");
        again.expected = sha256(b"known");
        let written = vec![write(Write, 0, b"known"), again];
        refused(send(client, written).await, Code::AlreadyExists, "exists");
        let status = content::StatusRequest { r#ref: "ingest".into() };
        refused(client.status(inside(status)).await, Code::NotFound, "not found");
        // The next writer of the reference begins at its first byte.
        let next = send(client, vec![write(Stat, 0, b"")]).await.unwrap();
        assert_eq!((next.offset, next.digest), (0, sha256(b"")));
    });
}

#[test]
fn one_writer_at_a_time_holds_an_ingest() {
    needs!(root, built "containerd");
    use content::WriteAction::Write;
    with_channel(|channel| async move {
        let mut client = ContentClient::new(channel);
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        sender.send(write(Write, 0, b"held")).await.unwrap();
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut answers = client.write(inside(stream)).await.unwrap().into_inner();
        answers.message().await.unwrap();
        refused(send(&mut client, vec![write(Write, 0, b"other")]).await, Code::Unavailable, "locked");
        // A writer that goes away lets go.
        drop((sender, answers));
        let free = async {
            while send(&mut client, vec![write(Write, 4, b"!")]).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), free)
            .await
            .expect("the ingest is free again");
    });
}

#[test]
fn images_leases_and_snapshots_refuse_what_makes_no_sense() {
    needs!(root, overlayfs, built "containerd");
    with_channel(|channel| async move {
        let mut client = ImagesClient::new(channel.clone());
        let image = |digest: &str, size| images::CreateImageRequest {
            image: Some(images::Image {
                name: "name".into(),
                target: Some(Descriptor {
                    media_type: "x/y".into(),
                    digest: digest.into(),
                    size,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        refused(client.create(inside(image("nonsense", 1))).await, Code::InvalidArgument, "");
        refused(client.create(inside(image(&sha256(b""), 0))).await, Code::InvalidArgument, "");
        client.create(inside(image(&sha256(b""), 1))).await.unwrap();
        let delete = images::DeleteImageRequest { name: "absent".into(), ..Default::default() };
        refused(client.delete(inside(delete)).await, Code::NotFound, "absent");

        let mut client = LeasesClient::new(channel.clone());
        let add = leases::AddResourceRequest {
            id: "absent".into(),
            resource: Some(leases::Resource { id: "x".into(), r#type: "content".into() }),
        };
        refused(client.add_resource(inside(add)).await, Code::NotFound, "absent");
        let lease =
            client.create(inside(leases::CreateRequest { id: "one".into(), ..Default::default() })).await;
        lease.unwrap();
        let odd = leases::AddResourceRequest {
            id: "one".into(),
            resource: Some(leases::Resource { id: "x".into(), r#type: "nonsense".into() }),
        };
        refused(client.add_resource(inside(odd)).await, Code::Unimplemented, "nonsense");

        let mut client = SnapshotsClient::new(channel);
        let prepare = |snapshotter: &str, key: &str, parent: &str| {
            inside(snapshots::PrepareSnapshotRequest {
                snapshotter: snapshotter.into(),
                key: key.into(),
                parent: parent.into(),
                // The collection after a start must not take it away in between.
                labels: [("containerd.io/gc.root".to_owned(), String::new())].into(),
            })
        };
        refused(client.prepare(prepare("absent", "a", "")).await, Code::InvalidArgument, "absent");
        refused(client.prepare(prepare("overlayfs", "a", "absent")).await, Code::NotFound, "absent");
        client.prepare(prepare("overlayfs", "a", "")).await.unwrap();
        refused(client.prepare(prepare("overlayfs", "a", "")).await, Code::AlreadyExists, "a");
        refused(client.prepare(prepare("overlayfs", "b", "a")).await, Code::InvalidArgument, "");
        let mut leased = prepare("overlayfs", "c", "");
        leased.metadata_mut().insert(channel::LEASE, "absent".parse().unwrap());
        refused(client.prepare(leased).await, Code::NotFound, "lease");
    });
}

#[test]
fn a_transfer_that_is_refused_ends_its_streams() {
    needs!(root, built "containerd");
    with_channel(|channel| async move {
        use tokio_stream::StreamExt as _;
        let init = ::api::encode_any(&StreamInit { id: "archive".into() });
        let outgoing = tokio_stream::iter([init]).chain(tokio_stream::pending());
        let opened = StreamingClient::new(channel.clone()).stream(inside(outgoing)).await;
        let mut answers = opened.unwrap().into_inner();
        assert!(answers.message().await.unwrap().is_some(), "the daemon has the stream");
        let source = ImageStore { name: "a.example/no:such".into(), ..Default::default() };
        let destination = ImageExportStream { stream: "archive".into(), ..Default::default() };
        let request = TransferRequest {
            source: Some(::api::encode_any(&source)),
            destination: Some(::api::encode_any(&destination)),
            options: None,
        };
        let refusal = TransferClient::new(channel).transfer(inside(request)).await;
        refused(refusal, Code::NotFound, "a.example/no:such");
        assert!(answers.message().await.unwrap().is_none(), "the stream ends");
    });
}
