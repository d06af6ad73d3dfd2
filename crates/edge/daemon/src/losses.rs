//! What this daemon has lost: its records, or snapshots of a driver in this process. The log, `ctr info` and the kubelet
//! are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cri::Trouble;
use model::{Ctx, Cx};
use store::Store;

/// What to do about it.
const ADVICE: &str = "stop the daemon and run `containerd recover`";

/// What is known of a driver in this process when it was opened.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// What became of its records, if that is worth telling.
    pub notice: Option<String>,
    /// Why it did not open.
    pub failure: Option<String>,
}

/// The losses.
pub struct Losses {
    store: Arc<Store>,
    drivers: BTreeMap<String, Opened>,
    /// Whether any snapshot was lost when the daemon started; none is lost later.
    has_lost: AtomicBool,
}

impl Losses {
    /// What `store` and `drivers` have lost.
    pub fn new(store: Arc<Store>, drivers: BTreeMap<String, Opened>) -> Self {
        let losses = Self { store, drivers, has_lost: AtomicBool::new(true) };
        let lost: Vec<String> = Ctx::background().on_this_thread(|cx| {
            losses.drivers.keys().filter_map(|name| losses.lost(cx, name, "")).collect()
        });
        for notice in &lost {
            tracing::error!("{notice}");
        }
        losses.has_lost.store(!lost.is_empty(), Ordering::Relaxed);
        losses
    }

    /// What an operator should know, each under the name of its kind.
    pub fn notices(&self) -> Vec<(String, String)> {
        let mut notices = Vec::new();
        notices.extend(self.store.restored().map(|text| ("io.berth.restored".to_owned(), text)));
        notices.extend(self.store.kept().map(|text| ("io.berth.kept".to_owned(), text)));
        Ctx::background().on_this_thread(|cx| {
            for (name, opened) in &self.drivers {
                let restored = opened.notice.clone().map(|text| (format!("io.berth.restored.{name}"), text));
                let lost = self.lost(cx, name, "").map(|text| (format!("io.berth.lost.{name}"), text));
                notices.extend(restored.into_iter().chain(lost));
            }
        });
        notices
    }

    /// What keeps pods from running, in the namespace of Kubernetes.
    pub fn trouble(&self, cx: &Cx<'_>) -> Option<Trouble> {
        if let Some(why) = self.store.lost() {
            return Some(Trouble { reason: "RecordsLost", message: format!("{why}; {ADVICE}") });
        }
        if !self.has_lost.load(Ordering::Relaxed) {
            return None;
        }
        let below = format!("{}/", cri::NAMESPACE);
        let message = self.drivers.keys().find_map(|name| self.lost(cx, name, &below))?;
        Some(Trouble { reason: "SnapshotsLost", message })
    }

    /// Whether the driver `name` has lost snapshots whose keys begin with `below`, in one sentence.
    fn lost(&self, cx: &Cx<'_>, name: &str, below: &str) -> Option<String> {
        let failure = self.drivers.get(name).and_then(|opened| opened.failure.as_deref());
        let mut lost = match self.store.lost_snapshots(cx, name) {
            Ok(lost) => lost,
            Err(error) => return Some(format!("cannot tell what snapshotter {name} has lost: {error}")),
        };
        lost.retain(|key| key.starts_with(below));
        let example = lost.first()?;
        let why = failure.map(|failure| format!("{failure}; ")).unwrap_or_default();
        let count = lost.len();
        Some(format!(
            "snapshotter {name}: {why}{count} recorded snapshots are missing, such as {example}; {ADVICE}"
        ))
    }
}
