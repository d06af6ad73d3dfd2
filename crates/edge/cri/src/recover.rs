//! Takes up what an earlier daemon left.
//!
//! ```text
//! records of sandboxes,
//! and in directories   ─► pods, at once ─► their tasks, each with a deadline ─┐
//! records of containers ─► containers ─► their tasks, each with a deadline ───┴─► what belongs to nobody goes
//! ```
//!
//! Invariant: no shim is waited for longer than [`patience`] allows, and all are waited for at once. What is to go is found
//! before the first request is answered, and goes in the background.

mod patience;

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::spec::Kind;
use futures_util::future::{join, join_all};
use model::container::Container as Stored;
use model::task::Phase as TaskPhase;
use model::{Filters, Lane, Result};

use crate::Cri;
use crate::container::names;
use crate::pod::{self, record};
use crate::state::{Pod, PodPhase, PodRecord, PodState};

pub(crate) use patience::Patience;

impl Cri {
    /// Knows again every pod and container that lives, and reclaims what belongs to none.
    ///
    /// # Errors
    /// The records cannot be read.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<()> {
        let stored =
            self.on_disk(&self.ctx(), |engine, cx| engine.containers.list(cx, &Filters::default())).await?;
        let recorded: BTreeSet<String> = stored.iter().map(|stored| stored.id.clone()).collect();
        let (sandboxes, others): (Vec<Stored>, Vec<Stored>) =
            stored.into_iter().partition(record::is_sandbox);
        let mut pods: Vec<Arc<Pod>> =
            sandboxes.into_iter().filter_map(|stored| self.know_stored_pod(&stored)).collect();
        let left = self.unrecorded("sandboxes", recorded.clone()).await?;
        let (unfinished, left) = self.unfinished_pods(left).await?;
        pods.extend(unfinished.into_iter().map(|record| self.know_pod(record, record::Told::default())));
        let containers = others.into_iter().filter(crate::container::is_container);
        let patience = Patience::new();
        // Together: a pod whose shim does not answer takes no time from anybody else.
        join(
            join_all(pods.into_iter().map(|pod| self.ask_pod(pod, &patience))),
            join_all(containers.map(|stored| self.recover_in_pod(stored, &patience))),
        )
        .await;
        if self.engine.lacks_records {
            tracing::warn!(
                "records are missing: tasks, directories and networks without a record are left alone"
            );
            return Ok(());
        }
        // Found now, while everything that is not recorded is an earlier daemon's.
        let containers = self.unrecorded("containers", recorded.clone()).await?;
        self.in_background(sweep(Arc::downgrade(self), containers, left));
        for task in self.engine.tasks.list(&self.namespace) {
            // Removed while its shim did not answer: there is no record of it any more.
            if !recorded.contains(task.id()) && is_our_id(task.id()) {
                self.in_background(end(task));
            }
        }
        Ok(())
    }

    fn know_stored_pod(self: &Arc<Self>, stored: &Stored) -> Option<Arc<Pod>> {
        match record::read(stored) {
            Ok(known) => Some(self.know_pod(known, record::read_told(stored))),
            Err(error) => {
                tracing::error!(id = %stored.id, %error, "a pod cannot be known again");
                None
            }
        }
    }

    /// Of the directories `left`, those with the record of a pod that was not made whole, or not taken back whole, and
    /// the others.
    async fn unfinished_pods(&self, left: BTreeSet<String>) -> Result<(Vec<PodRecord>, BTreeSet<String>)> {
        let left: Vec<_> = left.into_iter().map(|id| (self.pod_files(&id), id)).collect();
        let read = move |_: &model::Cx<'_>| {
            let (mut unfinished, mut others) = (Vec::new(), BTreeSet::new());
            for (files, id) in left {
                match pod::draft::read(&files, &id).filter(|_| is_our_id(&id)) {
                    Some(record) => unfinished.push(record),
                    None => drop(others.insert(id)),
                }
            }
            Ok((unfinished, others))
        };
        self.ctx().blocking(Lane::Disk, read).await
    }

    /// Takes a pod into the registry, not ready until its shim says more.
    fn know_pod(self: &Arc<Self>, known: PodRecord, told: record::Told) -> Arc<Pod> {
        match self.pod_names.reserve(&known.name, &known.id) {
            Ok(reserved) => reserved.keep(),
            Err(error) => tracing::error!(id = %known.id, %error, "two pods have one name"),
        }
        let record::Told { resources, overhead } = told;
        let mut state = PodState { phase: PodPhase::NotReady, resources, overhead, ..PodState::default() };
        let (files, preference) = (self.pod_files(&known.id), self.config.runtime.cni.ip_pref);
        pod::restore_network(&files, &known, &mut state, preference);
        let pod = Arc::new(Pod::new(known, state));
        self.pods.add(Arc::clone(&pod));
        pod
    }

    async fn ask_pod(self: &Arc<Self>, pod: Arc<Pod>, patience: &Patience) {
        let Ok(task) = self.engine.tasks.get(&self.namespace, &pod.record.id) else {
            self.pod_ended(&pod, None);
            return;
        };
        match patience.of(task.state("")).await {
            Some(Ok(state)) if matches!(state.phase, TaskPhase::Running | TaskPhase::Paused) => {
                pod.state.send_modify(|pod| {
                    pod.phase = PodPhase::Ready;
                    pod.pid = state.pid;
                });
                self.watch_pod(&pod, task);
            }
            // Never started, or ended: the kubelet removes it.
            Some(Ok(_)) => {
                self.end_left(task, patience).await;
                self.pod_ended(&pod, None);
            }
            Some(Err(error)) if error.kind() == Kind::NotFound => self.pod_ended(&pod, None),
            _ => {
                pod.state.send_modify(|pod| pod.phase = PodPhase::Unknown);
                self.in_background(ask_again(Arc::downgrade(self), pod, task));
            }
        }
    }

    async fn recover_in_pod(self: &Arc<Self>, stored: Stored, patience: &Patience) {
        let id = stored.id.clone();
        match self.pods.find(&stored.sandbox_id) {
            Ok(Some(_)) => {
                if let Err(error) = self.recover_container(stored, patience).await {
                    tracing::error!(%id, %error, "a container cannot be known again");
                }
            }
            _ if self.engine.lacks_records => {
                tracing::warn!(%id, "the record of a container's pod is missing: the container is left alone");
            }
            _ => self.in_background(remove_orphan(Arc::downgrade(self), stored)),
        }
    }

    /// Ends a task that is left of what has ended. Returns when it has, or as `patience` allows: then it goes on to end.
    pub(crate) async fn end_left(&self, task: Arc<dyn model::task::Task>, patience: &Patience) {
        let (done, ended) = tokio::sync::oneshot::channel::<()>();
        self.in_background(async move {
            end(task).await;
            drop(done);
        });
        let _either = patience.of(ended).await;
    }

    /// The ids of those directories of pods or containers that no record is of.
    async fn unrecorded(&self, kind: &str, recorded: BTreeSet<String>) -> Result<BTreeSet<String>> {
        let parents = [self.root_dir().join(kind), self.state_dir().join(kind)];
        self.ctx()
            .blocking(Lane::Disk, move |_| {
                let mut left = BTreeSet::new();
                for parent in parents {
                    left.extend(names(&parent)?.into_iter().filter(|name| !recorded.contains(name)));
                }
                Ok(left)
            })
            .await
    }

    /// Removes what is left of a pod of which only directories were made, or of which the store has lost the records.
    async fn sweep_pod(&self, id: &str) -> Result<()> {
        self.release_orphan(id).await?;
        // It may have had its lease already. Its directories go last, since it is found by them.
        self.drop_lease(id).await?;
        let files = self.pod_files(id);
        self.ctx().blocking(Lane::Disk, move |_| files.remove()).await
    }
}

/// Removes a container whose pod nobody knows.
async fn remove_orphan(cri: Weak<Cri>, stored: Stored) {
    let Some(cri) = cri.upgrade() else { return };
    let id = stored.id.clone();
    if let Err(error) = cri.remove_orphan_container(stored).await {
        tracing::warn!(%id, %error, "a container whose pod is gone stays behind");
    }
}

/// Removes what is left of containers and pods without a record, then gives back networks that belong to no pod.
async fn sweep(cri: Weak<Cri>, containers: BTreeSet<String>, pods: BTreeSet<String>) {
    let Some(cri) = cri.upgrade() else { return };
    if let Err(error) = cri.sweep_containers(containers).await {
        tracing::warn!(%error, "parts of containers that are gone stay behind");
    }
    // At once: a plugin that hangs on one holds up none of the others.
    join_all(pods.iter().map(async |id| {
        if let Err(error) = cri.sweep_pod(id).await {
            tracing::warn!(%id, %error, "parts of a pod that is gone stay behind");
        }
    }))
    .await;
    cri.sweep_networks().await;
}

/// Asks a shim that did not answer in time, until it does.
async fn ask_again(cri: Weak<Cri>, pod: Arc<Pod>, task: Arc<dyn model::task::Task>) {
    let mut pause = Duration::from_millis(500);
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(30));
        let answer = task.state("").await;
        let Some(cri) = cri.upgrade() else { return };
        if pod.state.borrow().phase != PodPhase::Unknown {
            return;
        }
        match answer {
            Ok(state) if matches!(state.phase, TaskPhase::Running | TaskPhase::Paused) => {
                pod.state.send_modify(|pod| {
                    pod.phase = PodPhase::Ready;
                    pod.pid = state.pid;
                });
                cri.watch_pod(&pod, task);
                return;
            }
            Err(error) if error.kind() != Kind::NotFound => {}
            _ => {
                cri.pod_ended(&pod, None);
                return;
            }
        }
    }
}

/// Whether an id is of the form that pods and containers get here.
pub(crate) fn is_our_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Ends a task that belongs to nothing that runs.
async fn end(task: Arc<dyn model::task::Task>) {
    tracing::info!(id = task.id(), "ending a task that nothing needs any more");
    if let Err(error) = pod::end_task(&*task).await {
        tracing::warn!(id = task.id(), %error, "a task that nothing needs any more stays behind");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_of_our_form_are_ours() {
        assert!(is_our_id(&"0f".repeat(32)));
        for id in [String::new(), "0f".repeat(31), "0F".repeat(32), "redis".into()] {
            assert!(!is_our_id(&id), "{id}");
        }
    }
}
