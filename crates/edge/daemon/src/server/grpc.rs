//! The gRPC server: every service on one socket.

use std::sync::Arc;
use std::time::Duration;

use ::cri::Cri;
use ::cri::service::{ImageStore, Runtime};
use ::grpc::authority::AnyAuthority;
use ::grpc::containerd::services as stub;
use ::grpc::deadline::Deadline;
use ::grpc::runtime::v1::image_service_server::ImageServiceServer;
use ::grpc::runtime::v1::runtime_service_server::RuntimeServiceServer;
use ::grpc::status::to_status;
use futures_util::stream::{self, Stream};
use tokio::net::{UnixListener, UnixStream};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Request, Status};

use crate::engine::Engine;
use crate::service;

/// How long the server waits for a connection that has gone quiet before it asks whether anyone is there.
const KEEPALIVE: Duration = Duration::from_secs(7200);

/// How long to wait when no connection can be accepted.
const RETRY: Duration = Duration::from_millis(50);

/// Bounds on messages.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest message taken, in bytes.
    pub receive: usize,
    /// The longest message sent, in bytes.
    pub send: usize,
}

/// Serves until `stop` resolves, and then until every request is answered.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    engine: Arc<Engine>,
    cri: Option<Arc<Cri>>,
    listener: UnixListener,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let (_, health) = tonic_health::server::health_reporter();
    macro_rules! add {
        ($router:expr; $($id:literal $module:ident::$server:ident::$type:ident($service:expr);)*) => {{
            let mut router = $router;
            $(
                let serves = engine.plugins.serves("grpc.v1", $id);
                router = router.add_optional_service(serves.then(|| {
                    stub::$module::v1::$server::$type::new($service)
                        .max_decoding_message_size(limits.receive)
                        .max_encoding_message_size(limits.send)
                }));
            )*
            router
        }};
    }
    let health = engine.plugins.serves("grpc.v1", "healthcheck").then_some(health);
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .layer(Deadline)
        .add_optional_service(health);
    let runtime = cri.clone().map(|cri| {
        let server = RuntimeServiceServer::new(Runtime(Arc::clone(&cri)))
            .max_decoding_message_size(limits.receive)
            .max_encoding_message_size(limits.send);
        InterceptedService::new(server, when_ready(cri))
    });
    let images = cri.map(|cri| {
        let server = ImageServiceServer::new(ImageStore(Arc::clone(&cri)))
            .max_decoding_message_size(limits.receive)
            .max_encoding_message_size(limits.send);
        InterceptedService::new(server, when_ready(cri))
    });
    let router = router.add_optional_service(runtime).add_optional_service(images);
    let e = || Arc::clone(&engine);
    add! { router;
        "containers" containers::containers_server::ContainersServer(service::Containers(e()));
        "content" content::content_server::ContentServer(service::Content(e()));
        "diff" diff::diff_server::DiffServer(service::Diff(e()));
        "events" events::events_server::EventsServer(service::Events(e()));
        "images" images::images_server::ImagesServer(service::Images(e()));
        "introspection" introspection::introspection_server::IntrospectionServer(service::Introspection(e()));
        "leases" leases::leases_server::LeasesServer(service::Leases(e()));
        "namespaces" namespaces::namespaces_server::NamespacesServer(service::Namespaces(e()));
        "sandboxes" sandbox::store_server::StoreServer(service::Sandboxes(e()));
        "snapshots" snapshots::snapshots_server::SnapshotsServer(service::Snapshots(e()));
        "streaming" streaming::streaming_server::StreamingServer(service::Streaming(e()));
        "tasks" tasks::tasks_server::TasksServer(service::Tasks(e()));
        "transfer" transfer::transfer_server::TransferServer(service::Transfer(e()));
        "version" version::version_server::VersionServer(service::Version);
    }
    .serve_with_incoming_shutdown(accept(listener), stop)
    .await
}

/// Refuses requests of Kubernetes' interface until what an earlier daemon left is taken up.
fn when_ready(
    cri: Arc<Cri>,
) -> impl Fn(Request<()>) -> Result<Request<()>, Status> + Clone + Send + Sync + 'static {
    move |request| match cri.check_ready() {
        Ok(()) => Ok(request),
        Err(error) => Err(to_status(&error)),
    }
}

/// The connections of a listener. When none can be accepted (no descriptor is left), it tries again a little later.
fn accept(listener: UnixListener) -> impl Stream<Item = std::io::Result<AnyAuthority<UnixStream>>> {
    stream::unfold(listener, |listener| async {
        loop {
            match listener.accept().await {
                Ok((socket, _)) => return Some((Ok(AnyAuthority::new(socket)), listener)),
                Err(error) => {
                    tracing::error!(%error, "cannot accept a connection");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use ::grpc::proxy::Proxy;
    use model::snapshot::{Commit, Kind, Snapshotter};
    use model::{Ctx, Filters, Lane, mask::Mask};
    use spec::Labels;

    use super::*;
    use crate::config::{Settings, defaults};

    /// A daemon's services on a socket in a directory of their own.
    fn served() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(&defaults()).unwrap();
        settings.root = dir.path().join("root");
        settings.state = dir.path().join("state");
        std::fs::create_dir(&settings.root).unwrap();
        let engine = Arc::new(crate::daemon::open(&settings, "/bin/false".into()).unwrap());
        let path = dir.path().join("far.sock");
        let listener = crate::server::unix::listen(&path, 0, 0).unwrap();
        let limits = Limits { receive: 1 << 20, send: 1 << 20 };
        tokio::spawn(serve(engine, None, listener, limits, std::future::pending()));
        (dir, path)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_processs_snapshotter_is_a_driver() {
        let (_dir, path) = served();
        let far = Proxy::new("native", &path, &[]);
        let ctx = Ctx::in_namespace("ns".parse().unwrap());
        let work = move |cx: &model::Cx<'_>| {
            // The daemon's first collection comes at some time during this.
            let kept = Labels::from([("containerd.io/gc.root".to_owned(), "now".to_owned())]);
            let mut labels = kept.clone();
            labels.insert("containerd.io/snapshot/x".to_owned(), "y".to_owned());
            let mounts = far.prepare(cx, "a", "", &labels)?;
            assert_eq!((mounts.len(), mounts[0].kind.as_str()), (1, "bind"));
            std::fs::write(std::path::Path::new(&mounts[0].source).join("file"), "data").unwrap();
            far.commit(cx, "base", "a", &Commit { labels, parent: None })?;
            let view = far.view(cx, "v", "base", &kept)?;
            assert_eq!(far.mounts(cx, "v")?, view);
            let info = far.stat(cx, "v")?;
            assert_eq!((info.kind, info.parent.as_str()), (Kind::View, "base"));
            let wanted = Labels::from([("l".to_owned(), "1".to_owned())]);
            assert_eq!(far.update(cx, "v", &wanted, &Mask::new(["labels.l".to_owned()]))?.labels["l"], "1");
            let committed = far.list(cx, &Filters::parse(&["kind==committed"])?)?;
            assert_eq!(committed.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["base"]);
            assert!(far.usage(cx, "base")?.size > 0);
            let error = far.prepare(cx, "v", "base", &Labels::new()).unwrap_err();
            assert_eq!(error.kind(), spec::Kind::AlreadyExists);
            assert_eq!(far.remove(cx, "base").unwrap_err().kind(), spec::Kind::FailedPrecondition);
            far.remove(cx, "v")?;
            far.remove(cx, "base")?;
            assert_eq!(far.stat(cx, "base").unwrap_err().kind(), spec::Kind::NotFound);
            far.cleanup(cx)
        };
        ctx.blocking(Lane::Disk, work).await.unwrap();
    }

    /// As grpc 1.85 of Python sends it, plain, and as Go's does where it was given `/run/x`, in Huffman's code.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_may_name_its_sockets_path_as_authority() {
        let (_dir, path) = served();
        let pythons = [&b"\x41\x22"[..], b"run%2Fcontainerd%2Fcontainerd.sock"].concat();
        let gos = b"\x41\x88\x54\x58\x6c\xb6\xa5\x45\x87\xcf".to_vec();
        for authority in [pythons, gos] {
            // Headers, data and trailers; 3 would be RST_STREAM.
            assert_eq!(frames_of_call(&path, &authority).await, [1, 0, 1], "{authority:x?}");
        }
    }

    /// The kinds of the frames that answer a call of Version whose authority is the header field `authority`.
    async fn frames_of_call(path: &std::path::Path, authority: &[u8]) -> Vec<u8> {
        let path = path.to_owned();
        let literal = |name: &str, value: &str| {
            let length = |text: &str| u8::try_from(text.len()).unwrap();
            [&[0x40, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
        };
        let fields = [
            literal(":path", "/containerd.services.version.v1.Version/Version"),
            authority.to_vec(),
            vec![0x83, 0x86],
            literal("content-type", "application/grpc"),
            literal("te", "trailers"),
        ]
        .concat();
        let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
            [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream], payload].concat()
        };
        let call = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, 0, &[]),
            frame(1, 4, 1, &fields),
            frame(0, 1, 1, &[0; 5]),
        ];
        let answer = move |_: &model::Cx<'_>| {
            let mut socket = std::os::unix::net::UnixStream::connect(path).unwrap();
            socket.write_all(&call.concat()).unwrap();
            let mut kinds = Vec::new();
            loop {
                let mut head = [0; 9];
                socket.read_exact(&mut head).unwrap();
                let length = usize::from(head[1]) << 8 | usize::from(head[2]);
                socket.read_exact(&mut vec![0; length]).unwrap();
                if head[8] == 1 {
                    kinds.push(head[3]);
                    if head[4] & 1 == 1 || head[3] == 3 {
                        return Ok(kinds);
                    }
                }
            }
        };
        Ctx::background().blocking(Lane::Network, answer).await.unwrap()
    }
}
