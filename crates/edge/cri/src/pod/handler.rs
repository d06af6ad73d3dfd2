//! Which runtime handler a pod runs with.

use ::spec::{Error, Kind};
use api::runtime::v1;
use model::Result;

use crate::Cri;
use crate::config::Handler;
use crate::spec::annotation::UNTRUSTED_WORKLOAD;
use crate::state::Pod;

/// The handler of workloads that nobody trusts.
const UNTRUSTED_HANDLER: &str = "untrusted";

impl Cri {
    /// The handler that `pod` runs with.
    ///
    /// # Errors
    /// It is no longer in the configuration.
    pub(crate) fn handler(&self, pod: &Pod) -> Result<&Handler> {
        self.handler_by_name(&pod.record.handler)
    }

    /// The handler `name`; the default one when it is empty.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn handler_by_name(&self, name: &str) -> Result<&Handler> {
        let runtime = &self.config.runtime;
        let name = if name.is_empty() { &runtime.default_runtime_name } else { name };
        let handler = runtime.runtimes.get(name);
        handler.ok_or_else(|| {
            Error::new(Kind::InvalidArgument, format!("no runtime for {name:?} is configured"))
        })
    }

    /// The name of the handler for a new pod: what the kubelet asks for, or `untrusted` by its annotation.
    ///
    /// # Errors
    /// There is none, or what is asked for contradicts itself.
    pub(crate) fn choose_handler(&self, config: &v1::PodSandboxConfig, asked: &str) -> Result<String> {
        let untrusted = config.annotations.get(UNTRUSTED_WORKLOAD).is_some_and(|value| value == "true");
        if untrusted {
            if !asked.is_empty() && asked != UNTRUSTED_HANDLER {
                return Err(Error::invalid(
                    "untrusted workload with explicit runtime handler is not allowed",
                ));
            }
            if on_host(config) {
                return Err(Error::invalid("untrusted workload with host access is not allowed"));
            }
        }
        let name = match (untrusted, asked) {
            (true, _) => UNTRUSTED_HANDLER,
            (false, "") => &self.config.runtime.default_runtime_name,
            (false, asked) => asked,
        };
        self.handler_by_name(name)?;
        Ok(name.to_owned())
    }
}

/// Whether a pod reaches what is the host's.
fn on_host(config: &v1::PodSandboxConfig) -> bool {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let host = v1::NamespaceMode::Node as i32;
    let names = crate::state::namespaces(config);
    security.is_some_and(|security| security.privileged)
        || (config.linux.is_some() && [names.network, names.pid, names.ipc].contains(&host))
}
