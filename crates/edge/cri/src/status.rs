//! Who serves, what it can do, and whether it is ready.

use std::path::Path;
use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1;
use model::Result;
use serde_json::json;

use crate::Cri;
use crate::spec::userns;

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
        let conditions = vec![
            condition("RuntimeReady", None),
            condition("NetworkReady", trouble),
            condition("ContainerdHasNoDeprecationWarnings", None),
        ];
        let info = match request.verbose {
            true => [
                ("config".to_owned(), format!("{:?}", self.config.runtime)),
                ("cniconfig".to_owned(), self.networks.describe().to_string()),
                ("runtime".to_owned(), json!({ "version": self.engine.version }).to_string()),
            ]
            .into(),
            false => std::collections::BTreeMap::new(),
        };
        Ok(v1::StatusResponse {
            status: Some(v1::RuntimeStatus { conditions }),
            info,
            runtime_handlers: self.handlers(),
            features: Some(v1::RuntimeFeatures {
                supplemental_groups_policy: true,
                ..v1::RuntimeFeatures::default()
            }),
        })
    }

    /// Each handler and what it can do; the default one under the empty name too.
    fn handlers(&self) -> Vec<v1::RuntimeHandler> {
        let names = self.config.runtime.runtimes.keys().map(String::as_str);
        let handler = |name: &str| {
            let snapshotter = self.engine.snapshotter(&self.snapshotter_of(name));
            let features = v1::RuntimeHandlerFeatures {
                recursive_read_only_mounts: self.host.recursive_read_only,
                user_namespaces: snapshotter.is_ok_and(|driver| userns::can(driver.capabilities())),
            };
            v1::RuntimeHandler { name: name.into(), features: Some(features) }
        };
        std::iter::once("").chain(names).map(handler).collect()
    }

    /// What the kubelet must do alike: the cgroup driver.
    pub(crate) async fn runtime_config(
        self: &Arc<Self>,
        _request: v1::RuntimeConfigRequest,
    ) -> Result<v1::RuntimeConfigResponse> {
        let runtime = &self.config.runtime;
        let handler = runtime.runtimes.get(&runtime.default_runtime_name);
        let handler =
            handler.ok_or_else(|| Error::failed_precondition("no default runtime is configured"))?;
        let driver = match handler.systemd_cgroup || handler.options.is_none() && systemd_manages_cgroups() {
            true => v1::CgroupDriver::Systemd,
            false => v1::CgroupDriver::Cgroupfs,
        };
        let linux = v1::LinuxRuntimeConfiguration { cgroup_driver: driver.into() };
        Ok(v1::RuntimeConfigResponse { linux: Some(linux) })
    }
}

/// Whether systemd is the first process here (`sd_booted(3)`).
fn systemd_manages_cgroups() -> bool {
    Path::new("/run/systemd/system").is_dir()
}
