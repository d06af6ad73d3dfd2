//! The plugin table: what `ctr plugins ls` shows. Everything is linked in; the table says what of containerd is there.
//!
//! A plugin that the configuration disables takes along those that need it: [`Loading`] says which load, before anything
//! is opened, and [`Plugins`] answers for the rest of the daemon's life.

use std::collections::BTreeMap;
use std::time::SystemTime;

use api::containerd::services::introspection::v1::{DeprecationWarning, Plugin};
use api::google::rpc::Status;
use grpc::convert::ToWire;
use model::filter::Fields;
use model::{Error, Filters};
use spec::{Kind, Platform};

/// How a plugin fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It serves.
    Loaded,
    /// It is not here, or has nothing to do; the text says why.
    Skipped(&'static str),
}

use State::{Loaded, Skipped};

/// Why something of containerd has no code here yet.
const ABSENT: &str = "not part of this build: skip plugin";

/// Type (after `io.containerd.`), id, whether it depends on the platform, and how it fares; in containerd's load order.
const TABLE: &[(&str, &str, bool, State)] = &[
    ("content.v1", "content", false, Loaded),
    ("image-verifier.v1", "bindir", false, Loaded),
    ("internal.v1", "opt", false, Skipped(ABSENT)),
    ("internal.v1", "tracing", false, Skipped("no OpenTelemetry endpoint: skip plugin")),
    ("warning.v1", "deprecations", false, Loaded),
    ("event.v1", "exchange", false, Loaded),
    ("mount-handler.v1", "erofs", true, Skipped(ABSENT)),
    ("snapshotter.v1", "blockfile", true, Skipped(ABSENT)),
    ("snapshotter.v1", "devmapper", true, Skipped(ABSENT)),
    ("snapshotter.v1", "erofs", true, Skipped(ABSENT)),
    ("snapshotter.v1", "native", true, Loaded),
    ("snapshotter.v1", "overlayfs", true, Loaded),
    ("snapshotter.v1", "zfs", true, Skipped(ABSENT)),
    ("monitor.task.v1", "cgroups", true, Loaded),
    ("metadata.v1", "bolt", false, Loaded),
    ("gc.v1", "scheduler", false, Loaded),
    ("server.v1", "metrics", false, Loaded),
    ("server.v1", "ttrpc", false, Loaded),
    ("server.v1", "grpc", false, Loaded),
    ("server.v1", "grpc-tcp", false, Skipped(ABSENT)),
    ("server.v1", "debug", false, Skipped(ABSENT)),
    ("tracing.processor.v1", "otlp", false, Skipped("no OpenTelemetry endpoint: skip plugin")),
    ("nri.v1", "nri", false, Loaded),
    ("ttrpc.v1", "otelttrpc", false, Skipped(ABSENT)),
    ("service.v1", "containers-service", false, Loaded),
    ("service.v1", "content-service", false, Loaded),
    ("service.v1", "diff-service", false, Loaded),
    ("service.v1", "images-service", false, Loaded),
    ("service.v1", "introspection-service", false, Loaded),
    ("service.v1", "namespaces-service", false, Loaded),
    ("service.v1", "snapshots-service", false, Loaded),
    ("service.v1", "tasks-service", false, Loaded),
    ("differ.v1", "erofs", true, Skipped(ABSENT)),
    ("differ.v1", "walking", true, Loaded),
    ("mount-manager.v1", "bolt", false, Skipped(ABSENT)),
    ("shim.v1", "manager", false, Loaded),
    ("runtime.v2", "task", true, Loaded),
    ("grpc.v1", "containers", false, Loaded),
    ("grpc.v1", "content", false, Loaded),
    ("grpc.v1", "diff", false, Loaded),
    ("grpc.v1", "events", false, Loaded),
    ("grpc.v1", "images", false, Loaded),
    ("grpc.v1", "introspection", false, Loaded),
    ("grpc.v1", "leases", false, Loaded),
    ("grpc.v1", "mounts", false, Skipped(ABSENT)),
    ("grpc.v1", "namespaces", false, Loaded),
    ("grpc.v1", "sandbox-controllers", false, Skipped(ABSENT)),
    ("grpc.v1", "sandboxes", false, Loaded),
    ("grpc.v1", "snapshots", false, Loaded),
    ("grpc.v1", "streaming", false, Loaded),
    ("grpc.v1", "tasks", false, Loaded),
    ("grpc.v1", "transfer", false, Loaded),
    ("grpc.v1", "version", false, Loaded),
    ("grpc.v1", "healthcheck", false, Loaded),
    ("grpc.v1", "cri", true, Loaded),
    ("lease.v1", "manager", false, Loaded),
    ("sandbox.store.v1", "local", false, Loaded),
    ("transfer.v1", "local", false, Loaded),
    ("cri.v1", "images", true, Loaded),
    ("cri.v1", "runtime", true, Loaded),
    ("podsandbox.controller.v1", "podsandbox", false, Loaded),
    ("sandbox.controller.v1", "shim", false, Skipped(ABSENT)),
    ("streaming.v1", "manager", false, Loaded),
    ("monitor.container.v1", "restart", false, Skipped(ABSENT)),
    ("metrics.v1", "grpc-prometheus", false, Skipped(ABSENT)),
    ("metrics.v1", "grpc-otel", false, Skipped(ABSENT)),
    ("http.v1", "pprof", false, Skipped(ABSENT)),
];

/// What a plugin cannot be without; both without `io.containerd.`.
const NEEDS: &[(&str, &str)] = &[
    ("cri.v1.runtime", "runtime.v2.task"),
    ("grpc.v1.containers", "service.v1.containers-service"),
    ("grpc.v1.content", "service.v1.content-service"),
    ("grpc.v1.cri", "cri.v1.images"),
    ("grpc.v1.cri", "cri.v1.runtime"),
    ("grpc.v1.cri", "podsandbox.controller.v1.podsandbox"),
    ("grpc.v1.diff", "service.v1.diff-service"),
    ("grpc.v1.images", "service.v1.images-service"),
    ("grpc.v1.introspection", "service.v1.introspection-service"),
    ("grpc.v1.leases", "lease.v1.manager"),
    ("grpc.v1.namespaces", "service.v1.namespaces-service"),
    ("grpc.v1.sandboxes", "sandbox.store.v1.local"),
    ("grpc.v1.snapshots", "service.v1.snapshots-service"),
    ("grpc.v1.streaming", "streaming.v1.manager"),
    ("grpc.v1.tasks", "service.v1.tasks-service"),
    ("grpc.v1.transfer", "transfer.v1.local"),
    ("nri.v1.nri", "cri.v1.runtime"),
    ("podsandbox.controller.v1.podsandbox", "cri.v1.runtime"),
    ("runtime.v2.task", "shim.v1.manager"),
    ("service.v1.diff-service", "differ.v1.walking"),
    ("service.v1.tasks-service", "runtime.v2.task"),
    ("cri.v1.images", "transfer.v1.local"),
    ("transfer.v1.local", "differ.v1.walking"),
    ("transfer.v1.local", "lease.v1.manager"),
];

/// Plugins without which there is no daemon.
const ESSENTIAL: &[&str] = &[
    "io.containerd.content.v1.content",
    "io.containerd.event.v1.exchange",
    "io.containerd.metadata.v1.bolt",
    "io.containerd.server.v1.grpc",
    "io.containerd.server.v1.ttrpc",
];

/// Which plugins do not load, and why.
#[derive(Debug, Default)]
pub struct Loading {
    off: BTreeMap<String, Error>,
}

impl Loading {
    /// What loads when the plugins of `disabled` do not.
    ///
    /// # Errors
    /// One of them is a plugin without which there is no daemon.
    pub fn without(disabled: &[String]) -> Result<Self, Error> {
        let mut loading = Self::default();
        for uri in disabled {
            if ESSENTIAL.contains(&uri.as_str()) {
                return Err(Error::invalid(format_args!(
                    "disabled_plugins: there is no daemon without {uri}"
                )));
            }
            loading.fail(uri, Error::new(Kind::Unknown, "disabled by the configuration: skip plugin"));
        }
        Ok(loading)
    }

    /// The plugin `uri` does not load, nor what needs it.
    pub fn fail(&mut self, uri: &str, error: Error) {
        self.off.entry(uri.to_owned()).or_insert(error);
        // Each round finds what the last one took along; there are fewer rounds than needs.
        for _ in NEEDS {
            for (plugin, needs) in NEEDS {
                let (plugin, needs) = (format!("io.containerd.{plugin}"), format!("io.containerd.{needs}"));
                if self.off.contains_key(&needs) && !self.off.contains_key(&plugin) {
                    let why = Error::new(Kind::Unknown, format!("it needs {needs}: skip plugin"));
                    self.off.insert(plugin, why);
                }
            }
        }
    }

    /// Those of `uris` that are no plugins, neither here nor in another process.
    pub fn unknown<'a>(uris: &'a [String], proxies: &[Proxied]) -> Vec<&'a str> {
        let known = |uri: &str| {
            TABLE.iter().any(|(kind, id, ..)| uri == format!("io.containerd.{kind}.{id}"))
                || proxies.iter().any(|proxy| proxy.uri() == uri)
        };
        uris.iter().map(String::as_str).filter(|uri| !known(uri)).collect()
    }

    /// Whether the plugin `uri` loads, as far as is known by now.
    pub fn loads(&self, uri: &str) -> bool {
        !self.off.contains_key(uri)
    }

    /// Refuses to go on without the plugins of `required`.
    ///
    /// # Errors
    /// One of them does not load, or is none.
    pub fn require(&self, required: &[String], proxies: &[Proxied]) -> Result<(), Error> {
        for uri in required {
            let row = TABLE.iter().find(|(kind, id, ..)| *uri == format!("io.containerd.{kind}.{id}"));
            let why = match (self.off.get(uri), row) {
                (Some(error), _) => Error::new(error.kind(), error.text()),
                (None, Some((.., Skipped(why)))) => Error::new(Kind::Unknown, *why),
                (None, None) if !proxies.iter().any(|proxy| proxy.uri() == *uri) => {
                    Error::not_found("there is no such plugin")
                }
                (None, _) => continue,
            };
            return Err(Error::new(why.kind(), format!("required plugin {uri} did not load: {why}")));
        }
        Ok(())
    }
}

/// A plugin in another process, as `proxy_plugins` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxied {
    /// Its kind, such as `io.containerd.snapshotter.v1`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The socket that it listens on.
    pub address: String,
    /// The platform that it is for; empty for the host's.
    pub platform: String,
    /// What it tells of itself.
    pub exports: BTreeMap<String, String>,
    /// What it can do.
    pub capabilities: Vec<String>,
}

impl Proxied {
    /// Its full name.
    pub fn uri(&self) -> String {
        format!("{}.{}", self.kind, self.name)
    }

    fn row(&self, loading: &Loading) -> Plugin {
        let platform = self.platform.parse().unwrap_or_else(|_| Platform::host());
        let mut exports = self.exports.clone();
        exports.insert("address".into(), self.address.clone());
        Plugin {
            r#type: self.kind.clone(),
            id: self.name.clone(),
            requires: Vec::new(),
            platforms: vec![platform.to_wire()],
            exports,
            capabilities: self.capabilities.clone(),
            init_err: loading.off.get(&self.uri()).map(|error| status(error.kind(), error.text())),
        }
    }
}

/// The table as this daemon answers it.
#[derive(Clone, Debug)]
pub struct Plugins {
    rows: Vec<Plugin>,
    /// What an operator should know of, from the start on.
    warnings: Vec<DeprecationWarning>,
}

impl Plugins {
    /// The table, with what does not load as errors and what the others export and can do, and the plugins of other
    /// processes.
    pub fn new(
        loading: &Loading,
        exports: &BTreeMap<&str, BTreeMap<String, String>>,
        capabilities: &BTreeMap<String, Vec<String>>,
        proxies: &[Proxied],
    ) -> Self {
        let rows = TABLE.iter().map(|(kind, id, on_platform, state)| {
            let uri = format!("io.containerd.{kind}.{id}");
            let init_err = match (loading.off.get(&uri), state) {
                (Some(error), _) => Some(status(error.kind(), error.text())),
                (None, Skipped(why)) => Some(status(Kind::Unknown, why)),
                (None, Loaded) => None,
            };
            Plugin {
                r#type: format!("io.containerd.{kind}"),
                id: (*id).into(),
                requires: Vec::new(),
                platforms: on_platform.then(|| Platform::host().to_wire()).into_iter().collect(),
                exports: exports.get(uri.as_str()).cloned().unwrap_or_default(),
                capabilities: capabilities.get(&uri).cloned().unwrap_or_default(),
                init_err,
            }
        });
        let rows = rows.chain(proxies.iter().map(|proxy| proxy.row(loading))).collect();
        Self { rows, warnings: Vec::new() }
    }

    /// The same table with a word to the operator under the name `id`.
    #[must_use]
    pub fn with_warning(mut self, id: &str, message: String) -> Self {
        let last_occurrence = Some(api::timestamp(SystemTime::now()));
        self.warnings.push(DeprecationWarning { id: id.into(), message, last_occurrence });
        self
    }

    /// Whether the plugin `io.containerd.{kind}.{id}` is there and serves.
    pub fn serves(&self, kind: &str, id: &str) -> bool {
        let mut rows = self.rows.iter();
        rows.any(|row| {
            row.r#type.strip_prefix("io.containerd.") == Some(kind) && row.id == id && row.init_err.is_none()
        })
    }

    /// Every plugin that passes, in load order.
    pub fn list(&self, filters: &Filters) -> Vec<Plugin> {
        self.rows.iter().filter(|row| filters.matches(&Row(row))).cloned().collect()
    }

    /// One plugin.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, kind: &str, id: &str) -> Result<Plugin, Error> {
        let row = self.rows.iter().find(|row| row.r#type == kind && row.id == id);
        row.cloned().ok_or_else(|| Error::not_found(format_args!("plugin {kind}.{id}")))
    }

    /// What an operator should know of. Old keys of the configuration are translated, with a warning in the log alone.
    pub fn deprecations(&self) -> Vec<DeprecationWarning> {
        self.warnings.clone()
    }
}

fn status(kind: Kind, text: &str) -> Status {
    Status { code: kind.code(), message: text.into(), details: Vec::new() }
}

/// The fields by which plugins are filtered.
struct Row<'a>(&'a Plugin);

impl Fields for Row<'_> {
    fn field(&self, path: &[&str]) -> Option<&str> {
        match path {
            ["type"] => Some(&self.0.r#type),
            ["id"] => Some(&self.0.id),
            ["capabilities"] => self.0.capabilities.first().map(String::as_str),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_failed_shows_why_and_filters_choose() {
        let mut loading = Loading::default();
        loading.fail("io.containerd.snapshotter.v1.overlayfs", Error::internal("no overlay"));
        let plugins = Plugins::new(&loading, &BTreeMap::new(), &BTreeMap::new(), &[]);
        assert_eq!(plugins.list(&Filters::default()).len(), TABLE.len());
        let filters = Filters::parse(&["type==io.containerd.snapshotter.v1,id==overlayfs"]).unwrap();
        let found = plugins.list(&filters);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].init_err.as_ref().unwrap().message, "no overlay");
        assert!(plugins.get("io.containerd.grpc.v1", "nope").is_err());
    }

    #[test]
    fn what_is_disabled_takes_along_what_needs_it() {
        let loading = Loading::without(&["io.containerd.shim.v1.manager".into()]).unwrap();
        let plugins = Plugins::new(&loading, &BTreeMap::new(), &BTreeMap::new(), &[]);
        for (kind, id) in
            [("runtime.v2", "task"), ("grpc.v1", "tasks"), ("grpc.v1", "cri"), ("nri.v1", "nri")]
        {
            assert!(!plugins.serves(kind, id), "{kind}.{id}");
        }
        assert!(plugins.serves("grpc.v1", "images"));
        let loading = Loading::without(&["io.containerd.differ.v1.walking".into()]).unwrap();
        for uri in ["grpc.v1.diff", "grpc.v1.transfer", "grpc.v1.cri"] {
            assert!(!loading.loads(&format!("io.containerd.{uri}")), "{uri}");
        }
        let error = Loading::without(&["io.containerd.metadata.v1.bolt".into()]).unwrap_err();
        assert!(error.text().contains("no daemon without io.containerd.metadata.v1.bolt"), "{error}");
    }

    #[test]
    fn what_is_no_plugin_is_named() {
        let far =
            Proxied { kind: "io.containerd.snapshotter.v1".into(), name: "far".into(), ..Proxied::default() };
        let uris =
            ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.far", "io.containerd.gprc.v1.cri"];
        let unknown = Loading::unknown(&uris.map(str::to_owned), &[far]).join(" ");
        assert_eq!(unknown, "io.containerd.gprc.v1.cri");
    }

    #[test]
    fn what_is_required_must_load() {
        let far =
            Proxied { kind: "io.containerd.snapshotter.v1".into(), name: "far".into(), ..Proxied::default() };
        let loading = Loading::without(&["io.containerd.lease.v1.manager".into()]).unwrap();
        let require = |uri: &str| loading.require(&[uri.to_owned()], std::slice::from_ref(&far));
        require("io.containerd.grpc.v1.images").unwrap();
        require("io.containerd.snapshotter.v1.far").unwrap();
        for (uri, word) in [
            ("io.containerd.grpc.v1.leases", "it needs io.containerd.lease.v1.manager"),
            ("io.containerd.snapshotter.v1.zfs", "not part of this build"),
            ("io.containerd.snapshotter.v1.near", "no such plugin"),
        ] {
            let error = require(uri).unwrap_err();
            assert!(error.text().contains(uri) && error.text().contains(word), "{error}");
        }
    }
}
