//! Names and labels of every metric that the next call can answer.

use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;

use crate::Cri;

impl Cri {
    /// Names and labels of every metric that the next call can answer.
    pub(crate) async fn list_metric_descriptors(
        self: &Arc<Self>,
        request: v1::ListMetricDescriptorsRequest,
    ) -> Result<v1::ListMetricDescriptorsResponse> {
        let _request = request;
        Err(Error::unimplemented("ListMetricDescriptors"))
    }

    /// Metrics of every pod and its containers.
    pub(crate) async fn list_pod_sandbox_metrics(
        self: &Arc<Self>,
        request: v1::ListPodSandboxMetricsRequest,
    ) -> Result<v1::ListPodSandboxMetricsResponse> {
        let _request = request;
        Err(Error::unimplemented("ListPodSandboxMetrics"))
    }
}
