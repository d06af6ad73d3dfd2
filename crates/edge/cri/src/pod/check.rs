//! Once after a start: whether the pods of an earlier daemon are attached to their networks as they were.
//!
//! Invariant: nobody waits for a check, and what it finds is told and nothing else.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use ::spec::Error;
use futures_util::StreamExt as _;
use model::Lane;
use serde::Serialize;

use super::network;
use crate::Cri;
use crate::state::Pod;

/// How many pods are checked at once.
const AT_ONCE: usize = 4;
/// How long the plugins of one pod may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long after the start checks begin: those that would be later are left out.
const WHOLE: Duration = Duration::from_secs(120);

/// What the plugins said of a pod that is not attached as it was.
#[derive(Clone, Debug, Serialize)]
pub struct NetworkFault {
    /// When.
    #[serde(serialize_with = "rfc3339")]
    at: SystemTime,
    /// Their words.
    error: String,
}

impl Cri {
    /// Begins to check the network of every pod that is ready.
    pub(crate) fn check_networks(self: &Arc<Self>) {
        let mut pods = self.pods.list();
        pods.retain(|pod| pod.is_ready() && !pod.on_host_network());
        if !pods.is_empty() {
            self.in_background(check_all(Arc::downgrade(self), pods));
        }
    }

    /// Checks one pod. Its turn is not taken: a pod that is stopped meanwhile waits for nothing here.
    async fn check_network(&self, pod: &Pod) {
        let (plan, networks) =
            (network::bare_plan(&pod.record), self.networks_of(&pod.record.runtime_handler));
        let check =
            move |_: &model::Cx<'_>| networks.check(&plan, Instant::now() + LIMIT).map_err(Error::from);
        let Err(error) = self.ctx().blocking(Lane::Network, check).await else { return };
        // Of one that was being taken down it says nothing.
        let _turn = pod.turn.lock().await;
        if !pod.is_ready() {
            return;
        }
        let metadata = pod.record.config.metadata.clone().unwrap_or_default();
        let (id, name, namespace) = (&pod.record.id, &metadata.name, &metadata.namespace);
        tracing::warn!(%id, pod = name, namespace, %error, "a pod is not attached to its network as it was");
        let fault = NetworkFault { at: SystemTime::now(), error: error.text().to_owned() };
        pod.state.send_modify(|state| state.network_fault = Some(fault));
    }
}

async fn check_all(cri: Weak<Cri>, pods: Vec<Arc<Pod>>) {
    let begun = Instant::now();
    let check = |pod: Arc<Pod>| {
        let cri = cri.clone();
        async move {
            let Some(cri) = cri.upgrade().filter(|_| begun.elapsed() < WHOLE) else { return false };
            cri.check_network(&pod).await;
            true
        }
    };
    let each = futures_util::stream::iter(pods).map(check).buffer_unordered(AT_ONCE);
    let left = each.filter(|checked| std::future::ready(!checked)).count().await;
    if left > 0 {
        tracing::warn!(pods = left, "the networks' plugins take too long to check every pod");
    }
}

fn rfc3339<S: serde::Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_rfc3339_seconds(*at))
}
