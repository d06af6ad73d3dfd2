//! What each handler's runtime can do, as its shim's program says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use api::runtime::v1;
use futures_util::future::join_all;
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::Cri;
use crate::config::Runtime;
use crate::pod::record::runtime_name;
use crate::spec::userns;

/// How long whoever asks for the status waits for a runtime to say what it can do.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a runtime can do; nothing when it does not say.
type Known = OnceCell<Option<v1::RuntimeHandlerFeatures>>;

/// What every handler can do, by its name; each is asked once.
#[derive(Debug)]
pub(crate) struct Abilities(BTreeMap<String, Known>);

impl Abilities {
    /// Nothing known of the handlers of `runtime` yet.
    pub fn unknown(runtime: &Runtime) -> Self {
        Self(runtime.runtimes.keys().map(|name| (name.clone(), Known::new())).collect())
    }
}

/// The parts of a runtime's features document (OCI `features.md`) that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Features {
    mount_options: BTreeSet<String>,
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Linux {
    namespaces: BTreeSet<String>,
    mount_extensions: Extensions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Extensions {
    idmap: Enabled,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Enabled {
    enabled: Option<bool>,
}

impl Cri {
    /// Each handler and what it can do; the default one under the empty name too. One that is still being asked is told
    /// without.
    pub(super) async fn handlers(self: &Arc<Self>) -> Vec<v1::RuntimeHandler> {
        let runtime = &self.config.runtime;
        let known = join_all(runtime.runtimes.keys().map(|name| async move {
            let features = tokio::time::timeout(PATIENCE, self.abilities_of(name)).await;
            v1::RuntimeHandler { name: name.clone(), features: features.ok().flatten() }
        }))
        .await;
        let default = known.iter().find(|handler| handler.name == runtime.default_runtime_name);
        let features = default.and_then(|handler| handler.features);
        std::iter::once(v1::RuntimeHandler { name: String::new(), features }).chain(known).collect()
    }

    /// What the handler `name` can do.
    pub(crate) async fn abilities_of(self: &Arc<Self>, name: &str) -> Option<v1::RuntimeHandlerFeatures> {
        *self.abilities.0.get(name)?.get_or_init(|| self.ask_abilities(name)).await
    }

    /// Begins to ask, so that nobody has to wait for it later.
    pub(crate) fn learn_abilities(self: &Arc<Self>) {
        for name in self.config.runtime.runtimes.keys() {
            self.in_background(learn(Arc::downgrade(self), name.clone()));
        }
    }

    async fn ask_abilities(self: &Arc<Self>, name: &str) -> Option<v1::RuntimeHandlerFeatures> {
        let handler = self.config.runtime.runtimes.get(name)?;
        let told = match self.engine.tasks.features(&runtime_name(handler), handler.options.clone()).await {
            Ok(told) => told?,
            Err(error) => {
                tracing::info!(handler = name, %error, "a runtime does not say what it can do: it counts as nothing");
                return None;
            }
        };
        let features: Features = match ::spec::json::from_slice(&told) {
            Ok(features) => features,
            Err(error) => {
                tracing::warn!(handler = name, %error, "a runtime's features are not readable");
                return None;
            }
        };
        let snapshotter = self.engine.snapshotter(&self.snapshotter_of(name));
        let shifts = snapshotter.is_ok_and(|driver| userns::can(driver.capabilities()));
        Some(judge(&features, self.host.recursive_read_only, shifts))
    }
}

async fn learn(cri: Weak<Cri>, name: String) {
    if let Some(cri) = cri.upgrade() {
        cri.abilities_of(&name).await;
    }
}

/// What runtime, kernel and snapshotter can do together.
fn judge(features: &Features, recursive_read_only: bool, shifts: bool) -> v1::RuntimeHandlerFeatures {
    let linux = &features.linux;
    let userns = linux.namespaces.contains("user") && linux.mount_extensions.idmap.enabled == Some(true);
    v1::RuntimeHandlerFeatures {
        recursive_read_only_mounts: recursive_read_only && features.mount_options.contains("rro"),
        user_namespaces: userns && shifts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_can_what_runtime_kernel_and_snapshotter_can() {
        let full = r#"{"ociVersionMin":"1.0.0","mountOptions":["ro","rro"],"linux":{"namespaces":["user","pid"],
            "mountExtensions":{"idmap":{"enabled":true}}}}"#;
        let disabled = r#"{"mountOptions":["ro"],"linux":{"namespaces":["user"],
            "mountExtensions":{"idmap":{"enabled":false}}}}"#;
        for (text, kernel, snapshotter, expected) in [
            (full, true, true, (true, true)),
            (full, false, true, (false, true)),
            (full, true, false, (true, false)),
            (disabled, true, true, (false, false)),
            ("{}", true, true, (false, false)),
        ] {
            let features: Features = serde_json::from_str(text).unwrap();
            let judged = judge(&features, kernel, snapshotter);
            assert_eq!((judged.recursive_read_only_mounts, judged.user_namespaces), expected, "{text}");
        }
    }
}
