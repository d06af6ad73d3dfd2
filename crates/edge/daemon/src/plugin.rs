//! The plugin table: what `ctr plugins ls` shows. Everything is linked in; the table says what of containerd is there.

use std::collections::BTreeMap;

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
    ("image-verifier.v1", "bindir", false, Skipped(ABSENT)),
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
    ("monitor.task.v1", "cgroups", true, Skipped(ABSENT)),
    ("metadata.v1", "bolt", false, Loaded),
    ("gc.v1", "scheduler", false, Loaded),
    ("server.v1", "metrics", false, Skipped(ABSENT)),
    ("server.v1", "ttrpc", false, Loaded),
    ("server.v1", "grpc", false, Loaded),
    ("server.v1", "grpc-tcp", false, Skipped(ABSENT)),
    ("server.v1", "debug", false, Skipped(ABSENT)),
    ("tracing.processor.v1", "otlp", false, Skipped("no OpenTelemetry endpoint: skip plugin")),
    ("nri.v1", "nri", false, Skipped(ABSENT)),
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

/// The table as this daemon answers it.
#[derive(Clone, Debug)]
pub struct Plugins {
    rows: Vec<Plugin>,
}

impl Plugins {
    /// The table, with the drivers that did not open as errors and what the others export.
    pub fn new(failed: &BTreeMap<String, Error>, exports: &BTreeMap<&str, BTreeMap<String, String>>) -> Self {
        let rows = TABLE.iter().map(|(kind, id, on_platform, state)| {
            let uri = format!("io.containerd.{kind}.{id}");
            let error = failed.get(&uri);
            let init_err = match (error, state) {
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
                capabilities: capabilities(kind, id),
                init_err,
            }
        });
        Self { rows: rows.collect() }
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

    /// What of the configuration will go away. Nothing yet: old keys are translated with a warning in the log.
    pub fn deprecations(&self) -> Vec<DeprecationWarning> {
        Vec::new()
    }
}

fn capabilities(kind: &str, id: &str) -> Vec<String> {
    match (kind, id) {
        ("snapshotter.v1", "overlayfs") => vec![model::snapshot::REBASE.into()],
        _ => Vec::new(),
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
        let uri = "io.containerd.snapshotter.v1.overlayfs".to_owned();
        let failed = BTreeMap::from([(uri, Error::internal("no overlay"))]);
        let plugins = Plugins::new(&failed, &BTreeMap::new());
        assert_eq!(plugins.list(&Filters::default()).len(), TABLE.len());
        let filters = Filters::parse(&["type==io.containerd.snapshotter.v1,id==overlayfs"]).unwrap();
        let found = plugins.list(&filters);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].init_err.as_ref().unwrap().message, "no overlay");
        assert!(plugins.get("io.containerd.grpc.v1", "nope").is_err());
    }
}
