//! `runtime.v1.RuntimeService`: each call goes to the verb of its name.

use std::sync::Arc;

use api::runtime::v1;
use grpc::runtime::v1::runtime_service_server::RuntimeService;
use tonic::{Request, Response, Status};

use super::{Answers, answer, stream};
use crate::Cri;

/// `runtime.v1.RuntimeService`
#[derive(Clone)]
pub struct Runtime(pub Arc<Cri>);

#[tonic::async_trait]
impl RuntimeService for Runtime {
    type StreamPodSandboxesStream = Answers<v1::StreamPodSandboxesResponse>;
    type StreamContainersStream = Answers<v1::StreamContainersResponse>;
    type StreamContainerStatsStream = Answers<v1::StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = Answers<v1::StreamPodSandboxStatsResponse>;
    type GetContainerEventsStream = Answers<v1::ContainerEventResponse>;
    type StreamPodSandboxMetricsStream = Answers<v1::StreamPodSandboxMetricsResponse>;

    async fn version(
        &self,
        request: Request<v1::VersionRequest>,
    ) -> Result<Response<v1::VersionResponse>, Status> {
        answer(self.0.version(request.into_inner()).await)
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<v1::RunPodSandboxRequest>,
    ) -> Result<Response<v1::RunPodSandboxResponse>, Status> {
        answer(self.0.run_pod_sandbox(request.into_inner()).await)
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Result<Response<v1::StopPodSandboxResponse>, Status> {
        answer(self.0.stop_pod_sandbox(request.into_inner()).await)
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Result<Response<v1::RemovePodSandboxResponse>, Status> {
        answer(self.0.remove_pod_sandbox(request.into_inner()).await)
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Result<Response<v1::PodSandboxStatusResponse>, Status> {
        answer(self.0.pod_sandbox_status(request.into_inner()).await)
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Result<Response<v1::ListPodSandboxResponse>, Status> {
        answer(self.0.list_pod_sandbox(request.into_inner()).await)
    }

    async fn stream_pod_sandboxes(
        &self,
        request: Request<v1::StreamPodSandboxesRequest>,
    ) -> Result<Response<Self::StreamPodSandboxesStream>, Status> {
        let list =
            self.0.list_pod_sandbox(v1::ListPodSandboxRequest { filter: request.into_inner().filter }).await;
        stream(list.map(|list| list.items), |items| v1::StreamPodSandboxesResponse { pod_sandboxes: items })
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Result<Response<v1::CreateContainerResponse>, Status> {
        answer(self.0.create_container(request.into_inner()).await)
    }

    async fn start_container(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Result<Response<v1::StartContainerResponse>, Status> {
        answer(self.0.start_container(request.into_inner()).await)
    }

    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Result<Response<v1::StopContainerResponse>, Status> {
        answer(self.0.stop_container(request.into_inner()).await)
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Result<Response<v1::RemoveContainerResponse>, Status> {
        answer(self.0.remove_container(request.into_inner()).await)
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Result<Response<v1::ListContainersResponse>, Status> {
        answer(self.0.list_containers(request.into_inner()).await)
    }

    async fn stream_containers(
        &self,
        request: Request<v1::StreamContainersRequest>,
    ) -> Result<Response<Self::StreamContainersStream>, Status> {
        let list =
            self.0.list_containers(v1::ListContainersRequest { filter: request.into_inner().filter }).await;
        stream(list.map(|list| list.containers), |items| v1::StreamContainersResponse { containers: items })
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Result<Response<v1::ContainerStatusResponse>, Status> {
        answer(self.0.container_status(request.into_inner()).await)
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Result<Response<v1::UpdateContainerResourcesResponse>, Status> {
        answer(self.0.update_container_resources(request.into_inner()).await)
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Result<Response<v1::ReopenContainerLogResponse>, Status> {
        answer(self.0.reopen_container_log(request.into_inner()).await)
    }

    async fn exec_sync(
        &self,
        request: Request<v1::ExecSyncRequest>,
    ) -> Result<Response<v1::ExecSyncResponse>, Status> {
        answer(self.0.exec_sync(request.into_inner()).await)
    }

    async fn exec(&self, request: Request<v1::ExecRequest>) -> Result<Response<v1::ExecResponse>, Status> {
        answer(self.0.exec(request.into_inner()).await)
    }

    async fn attach(
        &self,
        request: Request<v1::AttachRequest>,
    ) -> Result<Response<v1::AttachResponse>, Status> {
        answer(self.0.attach(request.into_inner()).await)
    }

    async fn port_forward(
        &self,
        request: Request<v1::PortForwardRequest>,
    ) -> Result<Response<v1::PortForwardResponse>, Status> {
        answer(self.0.port_forward(request.into_inner()).await)
    }

    async fn container_stats(
        &self,
        request: Request<v1::ContainerStatsRequest>,
    ) -> Result<Response<v1::ContainerStatsResponse>, Status> {
        answer(self.0.container_stats(request.into_inner()).await)
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Result<Response<v1::ListContainerStatsResponse>, Status> {
        answer(self.0.list_container_stats(request.into_inner()).await)
    }

    async fn stream_container_stats(
        &self,
        request: Request<v1::StreamContainerStatsRequest>,
    ) -> Result<Response<Self::StreamContainerStatsStream>, Status> {
        let list = self
            .0
            .list_container_stats(v1::ListContainerStatsRequest { filter: request.into_inner().filter })
            .await;
        stream(list.map(|list| list.stats), |items| v1::StreamContainerStatsResponse {
            container_stats: items,
        })
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<v1::PodSandboxStatsRequest>,
    ) -> Result<Response<v1::PodSandboxStatsResponse>, Status> {
        answer(self.0.pod_sandbox_stats(request.into_inner()).await)
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Result<Response<v1::ListPodSandboxStatsResponse>, Status> {
        answer(self.0.list_pod_sandbox_stats(request.into_inner()).await)
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<v1::StreamPodSandboxStatsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxStatsStream>, Status> {
        let list = self
            .0
            .list_pod_sandbox_stats(v1::ListPodSandboxStatsRequest { filter: request.into_inner().filter })
            .await;
        stream(list.map(|list| list.stats), |items| v1::StreamPodSandboxStatsResponse {
            pod_sandbox_stats: items,
        })
    }

    async fn update_runtime_config(
        &self,
        request: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Result<Response<v1::UpdateRuntimeConfigResponse>, Status> {
        answer(self.0.update_runtime_config(request.into_inner()).await)
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        answer(self.0.status(request.into_inner()).await)
    }

    async fn checkpoint_container(
        &self,
        request: Request<v1::CheckpointContainerRequest>,
    ) -> Result<Response<v1::CheckpointContainerResponse>, Status> {
        answer(self.0.checkpoint_container(request.into_inner()).await)
    }

    async fn get_container_events(
        &self,
        request: Request<v1::GetEventsRequest>,
    ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        answer(self.0.get_container_events(request.into_inner()).await)
    }

    async fn list_metric_descriptors(
        &self,
        request: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Result<Response<v1::ListMetricDescriptorsResponse>, Status> {
        answer(self.0.list_metric_descriptors(request.into_inner()).await)
    }

    async fn list_pod_sandbox_metrics(
        &self,
        request: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Result<Response<v1::ListPodSandboxMetricsResponse>, Status> {
        answer(self.0.list_pod_sandbox_metrics(request.into_inner()).await)
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _request: Request<v1::StreamPodSandboxMetricsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxMetricsStream>, Status> {
        let list = self.0.list_pod_sandbox_metrics(v1::ListPodSandboxMetricsRequest {}).await;
        stream(list.map(|list| list.pod_metrics), |items| v1::StreamPodSandboxMetricsResponse {
            pod_sandbox_metrics: items,
        })
    }

    async fn runtime_config(
        &self,
        request: Request<v1::RuntimeConfigRequest>,
    ) -> Result<Response<v1::RuntimeConfigResponse>, Status> {
        answer(self.0.runtime_config(request.into_inner()).await)
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Result<Response<v1::UpdatePodSandboxResourcesResponse>, Status> {
        answer(self.0.update_pod_sandbox_resources(request.into_inner()).await)
    }
}
