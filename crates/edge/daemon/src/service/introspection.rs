//! What this daemon is and what is loaded in it.

use api::containerd::services::introspection::v1 as wire;
use api::containerd::types::RuntimeRequest;
use api::{Any, encode_any};
use grpc::containerd::services::introspection::v1::introspection_server;
use grpc::convert::FromWire;
use model::{Error, Filters, Result};
use tonic::{Request, Response, Status};

use super::Introspection;
use crate::orphans;
use crate::request::{answer, fail, open_anywhere};

#[tonic::async_trait]
impl introspection_server::Introspection for Introspection {
    async fn plugins(
        &self,
        request: Request<wire::PluginsRequest>,
    ) -> Result<Response<wire::PluginsResponse>, Status> {
        answer(open_anywhere(request).and_then(|(_, message)| {
            let filters = Filters::parse(&message.filters)?;
            let plugins = self.0.plugins.list(&filters);
            Ok(wire::PluginsResponse { plugins })
        }))
    }

    async fn server(&self, _: Request<()>) -> Result<Response<wire::ServerResponse>, Status> {
        let mut deprecations = self.0.plugins.deprecations();
        deprecations.extend(orphans::warnings(&self.0).await.map_err(|error| fail(&error))?);
        Ok(Response::new(wire::ServerResponse {
            uuid: self.0.uuid.clone(),
            pid: u64::from(std::process::id()),
            pidns: pid_namespace(),
            deprecations,
        }))
    }

    async fn plugin_info(
        &self,
        request: Request<wire::PluginInfoRequest>,
    ) -> Result<Response<wire::PluginInfoResponse>, Status> {
        answer(
            async {
                let (_, message) = open_anywhere(request)?;
                let plugin = self.0.plugins.get(&message.r#type, &message.id)?;
                let extra = match message.options {
                    None => None,
                    Some(options) => Some(self.details(&message.r#type, &message.id, &options).await?),
                };
                Ok(wire::PluginInfoResponse { plugin: Some(plugin), extra })
            }
            .await,
        )
    }
}

impl Introspection {
    /// What only the plugin itself can tell: the task plugin runs a shim with `-info`.
    async fn details(&self, kind: &str, id: &str, options: &Any) -> Result<Any> {
        if (kind, id) != ("io.containerd.runtime.v2", "task") {
            return Err(Error::unimplemented(format_args!("plugin {kind}.{id} does not support PluginInfo")));
        }
        let request: RuntimeRequest = api::decode_any(options)
            .ok()
            .flatten()
            .ok_or_else(|| Error::invalid("options must be a RuntimeRequest"))?;
        let options = request.options.map(model::Any::from_wire).transpose()?;
        let info = self.0.tasks.runtime_info(&request.runtime_path, options).await?;
        Ok(encode_any(&info))
    }
}

/// The inode of this process's pid namespace.
fn pid_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino())
}
