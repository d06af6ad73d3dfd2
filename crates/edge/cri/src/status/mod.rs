//! Who serves, what it can do, and whether it is ready.

mod cgroup_driver;
mod configuration;
mod handler;
mod info;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::runtime::v1;
use model::Result;

pub(crate) use configuration::options;
pub(crate) use handler::Abilities;

use crate::Cri;

/// The version of the kubelet's own interface that containerd has always told.
const KUBE_API_VERSION: &str = "0.1.0";
/// Clients look for this name.
const RUNTIME_NAME: &str = "containerd";

impl Cri {
    /// Who serves, and which version of this interface.
    pub(crate) async fn version(
        self: &Arc<Self>,
        _request: v1::VersionRequest,
    ) -> Result<v1::VersionResponse> {
        Ok(v1::VersionResponse {
            version: KUBE_API_VERSION.into(),
            runtime_name: RUNTIME_NAME.into(),
            runtime_version: self.engine.version.into(),
            runtime_api_version: "v1".into(),
        })
    }

    /// Tells the node's range of pod addresses: the network's configuration is made of it where a template is set.
    pub(crate) async fn update_runtime_config(
        self: &Arc<Self>,
        request: v1::UpdateRuntimeConfigRequest,
    ) -> Result<v1::UpdateRuntimeConfigResponse> {
        let network = request.runtime_config.and_then(|config| config.network_config).unwrap_or_default();
        if !network.pod_cidr.is_empty() {
            self.write_network(&network.pod_cidr).await?;
        }
        Ok(v1::UpdateRuntimeConfigResponse {})
    }

    /// Whether runtime and network are ready, and what the runtime can do.
    pub(crate) async fn status(self: &Arc<Self>, request: v1::StatusRequest) -> Result<v1::StatusResponse> {
        let network = self.network_status().await;
        let condition = |kind: &str, trouble: Option<(&str, String)>| v1::RuntimeCondition {
            r#type: kind.into(),
            status: trouble.is_none(),
            reason: trouble.as_ref().map(|(reason, _)| (*reason).to_owned()).unwrap_or_default(),
            message: trouble.map(|(_, message)| message).unwrap_or_default(),
        };
        let trouble = network.err().map(|error| {
            ("NetworkPluginNotReady", format!("Network plugin returns error: {}", error.text()))
        });
        let runtime = self.on_disk(&self.ctx(), |engine, cx| Ok((engine.trouble)(cx))).await?;
        let conditions = vec![
            condition("RuntimeReady", runtime.map(|trouble| (trouble.reason, trouble.message))),
            condition("NetworkReady", trouble),
            condition("ContainerdHasNoDeprecationWarnings", None),
        ];
        let info = if request.verbose { self.verbose_status() } else { BTreeMap::new() };
        Ok(v1::StatusResponse {
            status: Some(v1::RuntimeStatus { conditions }),
            info,
            runtime_handlers: self.handlers().await,
            features: Some(v1::RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: true,
            }),
        })
    }

    /// What the kubelet must do alike: the cgroup driver.
    pub(crate) async fn runtime_config(
        self: &Arc<Self>,
        _request: v1::RuntimeConfigRequest,
    ) -> Result<v1::RuntimeConfigResponse> {
        let driver = cgroup_driver::of(&self.config.runtime, cgroup_driver::systemd_runs());
        let linux = v1::LinuxRuntimeConfiguration { cgroup_driver: driver.into() };
        Ok(v1::RuntimeConfigResponse { linux: Some(linux) })
    }
}
