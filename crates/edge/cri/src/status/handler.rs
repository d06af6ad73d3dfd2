//! What each handler's runtime can do, as its shim's program says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use api::runtime::v1;
use futures_util::future::join_all;
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::Cri;
use crate::pod::record::runtime_name;
use crate::spec::userns;

/// What every handler can do, by its name; asked once. What cannot be asked can nothing and has no entry.
#[derive(Debug, Default)]
pub(crate) struct Abilities(OnceCell<BTreeMap<String, v1::RuntimeHandlerFeatures>>);

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
    /// Each handler and what it can do; the default one under the empty name too.
    pub(super) async fn handlers(self: &Arc<Self>) -> Vec<v1::RuntimeHandler> {
        let runtime = &self.config.runtime;
        let known = self.abilities().await;
        let handler =
            |name: &str, of: &str| v1::RuntimeHandler { name: name.into(), features: known.get(of).copied() };
        let default = handler("", &runtime.default_runtime_name);
        let named = runtime.runtimes.keys().map(|name| handler(name, name));
        std::iter::once(default).chain(named).collect()
    }

    /// What the handler `name` can do.
    pub(crate) async fn abilities_of(self: &Arc<Self>, name: &str) -> v1::RuntimeHandlerFeatures {
        self.abilities().await.get(name).copied().unwrap_or_default()
    }

    /// Begins to ask, so that nobody has to wait for it later.
    pub(crate) fn learn_abilities(self: &Arc<Self>) {
        self.in_background(learn(Arc::downgrade(self)));
    }

    async fn abilities(self: &Arc<Self>) -> &BTreeMap<String, v1::RuntimeHandlerFeatures> {
        let ask = async {
            let names = self.config.runtime.runtimes.keys();
            let each = names.map(|name| async move { Some((name.clone(), self.ask_abilities(name).await?)) });
            join_all(each).await.into_iter().flatten().collect()
        };
        self.abilities.0.get_or_init(|| ask).await
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
        let features: Features = match serde_json::from_slice(&told) {
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

async fn learn(cri: Weak<Cri>) {
    if let Some(cri) = cri.upgrade() {
        cri.abilities().await;
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
