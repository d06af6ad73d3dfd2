//! Which containerd this is.

use api::containerd::services::version::v1::VersionResponse;
use grpc::containerd::services::version::v1::version_server;
use tonic::{Request, Response, Status};

use super::Version;

#[tonic::async_trait]
impl version_server::Version for Version {
    async fn version(&self, _: Request<()>) -> Result<Response<VersionResponse>, Status> {
        let (version, revision) = (crate::VERSION.into(), crate::REVISION.into());
        Ok(Response::new(VersionResponse { version, revision }))
    }
}
