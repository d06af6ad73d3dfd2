//! The client's end: a channel over a unix socket, and the headers that every call carries.

use std::io;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use spec::name::ParseIdentifierError;
use spec::{HasKind, Kind, LeaseId, Namespace};
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// The header that names the namespace of a call.
pub const NAMESPACE: &str = "containerd-namespace";
/// The header that names the lease of a call.
pub const LEASE: &str = "containerd-lease";
/// The longest message that either end takes, in bytes; containerd's default.
pub const MAX_MESSAGE: usize = 16 << 20;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {}", path.display())]
pub struct ConnectError {
    path: PathBuf,
    source: io::Error,
}

impl HasKind for ConnectError {
    fn kind(&self) -> Kind {
        match self.source.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::PermissionDenied => Kind::PermissionDenied,
            _ => Kind::Unavailable,
        }
    }
}

/// Connects to the daemon whose socket is `path`. The channel connects again when the daemon comes back.
///
/// # Errors
/// Nobody listens there, or nobody may connect.
pub async fn connect(path: &Path) -> Result<Channel, ConnectError> {
    // connect(2) by hand first: tonic would hide which of the two it was.
    let failed = |source| ConnectError { path: path.into(), source };
    let first = UnixStream::connect(path).await.map_err(failed)?;
    Endpoint::from_static("http://localhost")
        .connect_with_connector(connector(path, Some(first)))
        .await
        .map_err(|error| failed(io::Error::other(error)))
}

/// A channel to whoever listens on `path` when it is used; connected at the first call, and again after a failure.
/// Called inside a tokio runtime.
pub fn lazy(path: &Path) -> Channel {
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector(path, None))
}

/// Connects to the socket `path`, whatever it is asked for; at first it hands out `first`.
fn connector(
    path: &Path,
    mut first: Option<UnixStream>,
) -> impl tower::Service<
    http::Uri,
    Response = TokioIo<UnixStream>,
    Error = io::Error,
    Future: Future<Output = io::Result<TokioIo<UnixStream>>> + Send + 'static,
> + Send
+ 'static {
    let socket = path.to_owned();
    tower::service_fn(move |_| {
        let (socket, first) = (socket.clone(), first.take());
        async move {
            match first {
                Some(stream) => Ok(TokioIo::new(stream)),
                None => UnixStream::connect(socket).await.map(TokioIo::new),
            }
        }
    })
}

/// Adds namespace and lease to each call of a client.
#[derive(Clone, Debug)]
pub struct Headers {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Headers {
    /// Headers for `namespace`, and for `lease` when there is one.
    ///
    /// # Errors
    /// One of the two is no identifier.
    pub fn new(namespace: &str, lease: Option<&str>) -> Result<Self, ParseIdentifierError> {
        let lease = lease.map(|lease| header(lease.parse::<LeaseId>()?.as_str())).transpose()?;
        Ok(Self { namespace: header(namespace.parse::<Namespace>()?.as_str())?, lease })
    }
}

/// An identifier as a header; its grammar is a part of ASCII, so only what is none can fail.
fn header(identifier: &str) -> Result<MetadataValue<Ascii>, ParseIdentifierError> {
    MetadataValue::try_from(identifier).map_err(|_| ParseIdentifierError::Grammar(identifier.into()))
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(NAMESPACE, self.namespace.clone());
        if let Some(lease) = &self.lease {
            metadata.insert(LEASE, lease.clone());
        }
        Ok(request)
    }
}

/// The namespace that a request names, if any.
///
/// # Errors
/// It is no identifier.
pub fn namespace(metadata: &MetadataMap) -> Result<Option<Namespace>, ParseIdentifierError> {
    text(metadata, NAMESPACE).map(str::parse).transpose()
}

/// The lease that a request names, if any.
///
/// # Errors
/// It is no identifier.
pub fn lease(metadata: &MetadataMap) -> Result<Option<LeaseId>, ParseIdentifierError> {
    text(metadata, LEASE).map(str::parse).transpose()
}

/// An empty header counts as none, as it does for containerd.
fn text<'m>(metadata: &'m MetadataMap, key: &str) -> Option<&'m str> {
    metadata.get(key).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_arrive_as_they_were_sent() {
        let mut headers = Headers::new("k8s.io", Some("a-lease")).unwrap();
        let request = headers.call(Request::new(())).unwrap();
        assert_eq!(namespace(request.metadata()).unwrap().unwrap().as_str(), "k8s.io");
        assert_eq!(lease(request.metadata()).unwrap().unwrap().as_str(), "a-lease");
    }

    #[test]
    fn a_header_that_is_no_identifier_is_refused() {
        assert!(Headers::new("../etc", None).is_err());
        let mut metadata = MetadataMap::new();
        metadata.insert(NAMESPACE, MetadataValue::from_static("a/b"));
        assert!(namespace(&metadata).is_err());
        assert_eq!(lease(&metadata), Ok(None));
    }
}
