//! The end of a container: waited for by one task, and told once.
//!
//! ```text
//! task.wait ──► was it out of memory? ──► delete the task ──► plugins ──► status on disk ──► STOPPED
//! ```
//!
//! Invariant: a container is told as ended only when its task was asked to go; how it ended is on disk before.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use ::spec::Kind;
use api::Message as _;
use api::containerd::events::TaskOom;
use api::io::containerd::cgroups;
use api::runtime::v1::ContainerEventType;
use model::Any;
use model::task::{Exit, Task};

use super::save::Durable;
use super::status::UNKNOWN_STATUS;
use crate::state::{Container, ContainerState};
use crate::{Cri, nanos, now_nanos};

/// Why a container ended that the kernel killed for want of memory.
const OOM_KILLED: &str = "OOMKilled";
/// Why a container ended whose end nobody saw.
pub(super) const UNKNOWN: &str = "Unknown";
/// The exit status of a process that SIGKILL ended, as the kernel's choice ends it.
const KILLED: u32 = 137;
/// How long to wait before a shim is asked again that did not answer, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

impl Cri {
    /// Waits for the end of `container` from now on, unless somebody does already.
    pub(super) fn watch(self: &Arc<Self>, container: &Arc<Container>, task: Arc<dyn Task>) {
        if !container.watched.swap(true, Ordering::AcqRel) {
            self.in_background(watch(Arc::downgrade(self), Arc::clone(container), task));
        }
    }

    /// Deletes the task of a container that has ended, and tells how; `None` when nobody saw it.
    async fn ended(&self, container: &Arc<Container>, task: &dyn Task, exit: Option<Exit>) {
        let id = &container.record.id;
        let starved = match &exit {
            Some(exit) if exit.status == KILLED && container.state.borrow().reason != OOM_KILLED => {
                was_out_of_memory(task).await
            }
            _ => false,
        };
        match task.delete().await {
            Err(error) if error.kind() != Kind::NotFound => {
                // It stays for RemoveContainer, which asks again and tells.
                tracing::error!(%id, %error, "failed to delete the task of a container that has ended");
            }
            _ => {}
        }
        self.tell_end(container, exit, starved).await;
    }

    /// Keeps and tells how a container ended, unless that is known already.
    pub(super) async fn tell_end(&self, container: &Arc<Container>, exit: Option<Exit>, starved: bool) {
        if let Ok(pod) = self.pods.get(&container.record.pod_id)
            && let Err(error) = self.nri.stop_container(&pod, container, exit.as_ref()).await
        {
            tracing::error!(id = %container.record.id, %error, "NRI failed to stop container");
        }
        let news =
            self.change(container, Durable::Yes, move |state| end(state, exit.as_ref(), starved)).await;
        if news {
            self.tell(
                ContainerEventType::ContainerStoppedEvent,
                &container.record.id,
                &container.record.pod_id,
            );
        }
    }

    /// Notes for every container whose processes the kernel kills for want of memory, from now on.
    pub(crate) fn follow_ooms(self: &Arc<Self>) {
        self.in_background(follow_ooms(Arc::downgrade(self), self.engine.exchange.subscribe()));
    }
}

/// Puts an end into a container's state; says whether it had none.
fn end(state: &mut ContainerState, exit: Option<&Exit>, starved: bool) -> bool {
    let news = state.finished_at == 0 || state.unknown;
    if starved {
        state.reason = OOM_KILLED.into();
    }
    if state.finished_at == 0 {
        state.finished_at = exit.map_or_else(now_nanos, |exit| nanos(exit.at));
        state.exit_code =
            exit.map_or(UNKNOWN_STATUS, |exit| i32::try_from(exit.status).unwrap_or(UNKNOWN_STATUS));
        if exit.is_none() {
            state.reason = UNKNOWN.into();
        }
    }
    state.pid = 0;
    state.unknown = false;
    news
}

async fn watch(cri: Weak<Cri>, container: Arc<Container>, task: Arc<dyn Task>) {
    let mut pause = PAUSE.0;
    let exit = loop {
        match task.wait("").await {
            Ok(exit) => break Some(exit),
            Err(error) if error.kind() == Kind::NotFound => break None,
            Err(error) => {
                let Some(cri) = cri.upgrade() else { return };
                let gone = cri.engine.tasks.get(&cri.namespace, &container.record.id).is_err();
                tracing::warn!(id = %container.record.id, %error, gone, "cannot wait for the container's end");
                if gone {
                    break None;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    };
    if let Some(cri) = cri.upgrade() {
        cri.ended(&container, &*task, exit).await;
    }
    container.watched.store(false, Ordering::Release);
}

/// Whether the container's cgroup has counted a process killed for want of memory. The event of it may come late.
async fn was_out_of_memory(task: &dyn Task) -> bool {
    let Ok(Any { type_url, value }) = task.stats().await else { return false };
    let killed = if type_url.ends_with("cgroups.v2.Metrics") {
        let metrics = cgroups::v2::Metrics::decode(value.as_slice()).unwrap_or_default();
        metrics.memory_events.map(|events| events.oom_kill)
    } else {
        let metrics = cgroups::v1::Metrics::decode(value.as_slice()).unwrap_or_default();
        metrics.memory_oom_control.map(|control| control.oom_kill)
    };
    killed.is_some_and(|killed| killed > 0)
}

async fn follow_ooms(cri: Weak<Cri>, mut events: model::event::Subscription) {
    loop {
        let event = events.next().await;
        let Some(cri) = cri.upgrade() else { return };
        if event.topic != "/tasks/oom" || event.namespace != cri.namespace.as_str() {
            continue;
        }
        let Ok(oom) = TaskOom::decode(event.event.value.as_slice()) else { continue };
        // Not of ours, or a pod's sandbox.
        let Ok(Some(container)) = cri.containers.find(&oom.container_id) else { continue };
        if container.state.borrow().reason != OOM_KILLED {
            cri.change(&container, Durable::No, |state| state.reason = OOM_KILLED.into()).await;
        }
    }
}

/// An end that we saw ourselves, since the shim does not tell.
pub(super) fn killed_by_hand(pid: u32) -> Exit {
    Exit { pid, status: KILLED, at: SystemTime::now() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Phase;

    fn running() -> ContainerState {
        ContainerState { pid: 9, created_at: 1, started_at: 2, ..ContainerState::default() }
    }

    #[test]
    fn an_end_is_news_once() {
        let exit = Exit { pid: 9, status: 3, at: SystemTime::now() };
        let mut state = running();
        assert!(end(&mut state, Some(&exit), false));
        assert_eq!((state.pid, state.exit_code, state.phase()), (0, 3, Phase::Exited));
        let before = state.clone();
        assert!(!end(&mut state, None, false));
        assert_eq!(state, before);
    }

    #[test]
    fn an_end_that_nobody_saw_is_unknown_with_255() {
        let mut state = running();
        state.unknown = true;
        assert!(end(&mut state, None, false));
        assert_eq!((state.reason.as_str(), state.exit_code, state.phase()), ("Unknown", 255, Phase::Exited));
    }

    #[test]
    fn want_of_memory_is_the_reason_whenever_it_is_heard() {
        let exit = Exit { pid: 9, status: KILLED, at: SystemTime::now() };
        let mut state = running();
        assert!(end(&mut state, Some(&exit), true));
        assert_eq!((state.reason.as_str(), state.exit_code), (OOM_KILLED, 137));
        let mut told = running();
        told.reason = OOM_KILLED.into();
        assert!(end(&mut told, Some(&exit), false));
        assert_eq!(told.reason, OOM_KILLED);
    }
}
