//! Takes up containers that an earlier daemon left.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::spec::{Error, Kind};
use model::container::Container as Stored;
use model::task::{Phase as TaskPhase, Task};
use model::{Lane, Result};

use super::{record, save};
use crate::Cri;
use crate::recover::Patience;
use crate::state::{Container, ContainerState, Phase};

/// How long to wait before a task is asked for again, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

impl Cri {
    /// Knows again the container of a record, with its name; asks its task, and waits for the answer as `patience` allows.
    ///
    /// # Errors
    /// The record is damaged.
    pub(crate) async fn recover_container(
        self: &Arc<Self>,
        stored: Stored,
        patience: &Patience,
    ) -> Result<()> {
        let known = record::read(&stored)?;
        let dir = self.container_root(&known.id);
        let state = self.ctx().blocking(Lane::Disk, move |_| Ok(save::load(&dir))).await?;
        // Without its file nobody knows whether it ever ran.
        let lost = state.is_none();
        let state = state.unwrap_or_else(|| ContainerState {
            created_at: crate::nanos(stored.created_at),
            unknown: true,
            ..ContainerState::default()
        });
        self.container_names.reserve(&known.name, &known.id)?.keep();
        let container = Arc::new(Container::new(known, state));
        self.containers.add(Arc::clone(&container));
        match container.phase() {
            Phase::Exited => self.clean_up_task(&container, patience).await,
            Phase::Created | Phase::Running | Phase::Unknown => {
                self.ask_task(&container, lost, patience).await
            }
        }
        Ok(())
    }

    /// A container that has ended has no task: one that is left was not deleted in time.
    async fn clean_up_task(&self, container: &Container, patience: &Patience) {
        if let Ok(task) = self.engine.tasks.get(&self.namespace, &container.record.id) {
            self.end_left(task, patience).await;
        }
    }

    async fn ask_task(self: &Arc<Self>, container: &Arc<Container>, lost: bool, patience: &Patience) {
        let task = match self.engine.tasks.get(&self.namespace, &container.record.id) {
            Ok(task) => task,
            // Its shim may only be slow to be taken up: while there is a bundle, nothing is lost.
            Err(_) if self.has_bundle(&container.record.id) => {
                container.state.send_modify(|state| state.unknown = true);
                self.in_background(ask_later(Arc::downgrade(self), Arc::clone(container)));
                return;
            }
            Err(_) => {
                if container.phase() != Phase::Created || lost {
                    // Lost: told once, as ended with 255.
                    self.tell_end(container, None, false).await;
                }
                return;
            }
        };
        match patience.of(task.state("")).await {
            Some(Ok(state)) => self.take_up(container, task, state, patience).await,
            Some(Err(error)) if error.kind() == Kind::NotFound => self.tell_end(container, None, false).await,
            // It may answer later: its end is waited for all the same, and tells.
            _ => {
                container.state.send_modify(|state| state.unknown = true);
                self.watch(container, task);
            }
        }
    }

    /// Whether the engine still has, or is about to take up, a task of this id.
    fn has_bundle(&self, id: &str) -> bool {
        self.bundle(id).exists()
    }

    async fn take_up(
        self: &Arc<Self>,
        container: &Arc<Container>,
        task: Arc<dyn Task>,
        state: model::task::State,
        patience: &Patience,
    ) {
        let pid = state.pid;
        match state.phase {
            TaskPhase::Running | TaskPhase::Paused | TaskPhase::Stopped | TaskPhase::Unknown => {
                self.change(container, save::Durable::No, move |state| {
                    state.unknown = false;
                    state.pid = pid;
                    if state.started_at == 0 {
                        state.started_at = crate::now_nanos();
                    }
                })
                .await;
                self.go_on_copying(container, &*task).await;
                self.watch(container, task);
            }
            // The daemon died between making and starting it: it never ran, and can be started still.
            TaskPhase::Created => {
                self.end_left(task, patience).await;
                container.state.send_modify(|state| state.unknown = false);
            }
        }
    }

    /// Removes a container whose pod nobody knows: its task, its snapshot, its directories and its record.
    ///
    /// # Errors
    /// Part of it resists.
    pub(crate) async fn remove_orphan_container(&self, stored: Stored) -> Result<()> {
        if let Ok(task) = self.engine.tasks.get(&self.namespace, &stored.id) {
            crate::pod::end_task(&*task).await?;
        }
        self.remove_parts(&stored.id, &stored.snapshotter).await
    }

    /// Removes what is left of containers that have no record: a daemon died while it made or removed them. They are
    /// found by their directories, which are the first to be made; their snapshots go before these, so that what resists
    /// is found again by the next start.
    ///
    /// # Errors
    /// Something resists; everything was tried.
    pub(crate) async fn sweep_containers(&self, left: BTreeSet<String>) -> Result<()> {
        let parents = [self.root_dir().join("containers"), self.state_dir().join("containers")];
        self.on_disk(&self.ctx(), move |engine, cx| {
            let swept = left.iter().map(|id| {
                // Which driver it was is not known without its record; an id of ours is nobody else's key.
                let mut drivers = engine.snapshotters.values().filter(|_| crate::recover::is_our_id(id));
                drivers.try_for_each(|driver| super::remove::gone(driver.remove(cx, id)))?;
                parents.iter().try_for_each(|parent| super::remove::remove_dir(&parent.join(id)))
            });
            swept.fold(Ok(()), Result::and)
        })
        .await
    }
}

/// Asks for the task of a container again and again, until it is taken up, or is lost, or the container has ended.
async fn ask_later(cri: Weak<Cri>, container: Arc<Container>) {
    let mut pause = PAUSE.0;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
        let Some(cri) = cri.upgrade() else { return };
        let id = &container.record.id;
        if container.phase() != Phase::Unknown {
            return;
        }
        match cri.engine.tasks.get(&cri.namespace, id) {
            Ok(task) => match task.state("").await {
                Ok(state) => {
                    return cri.take_up(&container, task, state, &Patience::new()).await;
                }
                Err(error) if error.kind() == Kind::NotFound => {}
                // A frozen shim: its end is waited for, and tells.
                Err(_) => return cri.watch(&container, task),
            },
            Err(_) if cri.has_bundle(id) => {}
            Err(_) => return cri.tell_end(&container, None, false).await,
        }
    }
}

/// The names in a directory; none when it is missing.
pub(crate) fn names(dir: &std::path::Path) -> Result<Vec<String>> {
    let failed = |error| Error::internal(format!("cannot list {}: {error}", dir.display()));
    match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries
            .map_err(failed)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(failed))
            .collect(),
    }
}
