//! Stops a container: its signal and some grace, SIGKILL to all, and at last our own hand.
//!
//! Calls for the same container join: the signal goes once, and all wait for the one end. A call that its caller gives
//! up during the grace kills nothing.
//!
//! Invariant: bounded whatever the shim does; a container is told as ended only when its init was seen gone.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ::spec::{Error, Kind};
use api::runtime::v1;
use model::task::Task;
use model::{Lane, Result};

use super::exit::killed_by_hand;
use super::kill;
use super::signal::{self, SIGKILL, SIGTERM};
use crate::Cri;
use crate::state::{Container, Phase};

/// How long a start under way may hold up a stop.
const START: Duration = Duration::from_secs(10);
/// How long a container may take to end once everything in it was killed.
const DEATH: Duration = Duration::from_secs(10);
/// How long a shim may take to tell an end that we have seen; then it is asked whether it answers at all.
const TELL: Duration = Duration::from_secs(2);
/// How often a process is looked at whose shim is silent.
const LOOK: Duration = Duration::from_millis(250);
/// How long a shim that answers may take to clean up.
const CLEAN_UP: Duration = Duration::from_secs(40);

/// What there is to stop of a container.
enum Target {
    /// Nothing: it never ran or has ended.
    Ended,
    /// Perhaps processes, but no task.
    Lost,
    /// Its task, and its init.
    Runs(Arc<dyn Task>, u32),
}

/// What came of waiting for a container's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// It is told.
    Ended,
    /// Its init is gone, but the shim does not say so.
    Gone,
    /// It goes on.
    Nothing,
}

impl Cri {
    /// Stops a container, with a signal and some time if the caller grants it.
    pub(crate) async fn stop_container(
        self: &Arc<Self>,
        request: v1::StopContainerRequest,
    ) -> Result<v1::StopContainerResponse> {
        let Some(container) = self.containers.find(&request.container_id)? else {
            return Ok(v1::StopContainerResponse {});
        };
        let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or(0));
        if grace > Duration::ZERO {
            // A caller who leaves drops this wait: who has not sat the grace out has not asked for the kill.
            self.ask_to_end(&container, grace).await?;
        }
        let cri = Arc::clone(self);
        Self::whole(async move { cri.stop(&container).await }).await?;
        Ok(v1::StopContainerResponse {})
    }

    /// Sends `container` its stop signal and waits for its end, for as long as `grace`.
    async fn ask_to_end(self: &Arc<Self>, container: &Arc<Container>, grace: Duration) -> Result<()> {
        let Target::Runs(task, pid) = self.to_stop(container).await? else { return Ok(()) };
        let (cri, of, to) = (Arc::clone(self), Arc::clone(container), Arc::clone(&task));
        Self::whole(async move { cri.signal_once(&of, &*to, pid).await }).await?;
        if self.wait(container, &*task, pid, grace).await != Seen::Gone {
            return Ok(());
        }
        let (cri, of) = (Arc::clone(self), Arc::clone(container));
        Self::whole(async move { cri.finish_by_hand(&of, pid).await }).await
    }

    /// Kills `container`. One that does not run is stopped.
    pub(super) async fn stop(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        match self.to_stop(container).await? {
            Target::Ended => Ok(()),
            Target::Lost => self.stop_without_task(container).await,
            Target::Runs(task, pid) => self.kill(container, &*task, pid).await,
        }
    }

    /// What there is to stop of `container`, once a start under way is over.
    async fn to_stop(self: &Arc<Self>, container: &Arc<Container>) -> Result<Target> {
        if container.phase() == Phase::Created
            && let Ok(_started) = tokio::time::timeout(START, container.turn.lock()).await
            && container.phase() == Phase::Created
        {
            return Ok(Target::Ended);
        }
        if container.phase() == Phase::Exited {
            return Ok(Target::Ended);
        }
        let id = &container.record.id;
        let task = match self.engine.tasks.get(&self.namespace, id) {
            Ok(task) => task,
            Err(error) if error.kind() == Kind::NotFound => return Ok(Target::Lost),
            Err(error) => return Err(error.context(format_args!("failed to get task for container {id:?}"))),
        };
        if container.phase() == Phase::Unknown {
            self.watch(container, Arc::clone(&task));
        }
        let pid = [container.now().pid, task.pid()].into_iter().find(|&pid| pid != 0).unwrap_or(0);
        Ok(Target::Runs(task, pid))
    }

    /// Sends the stop signal, unless an earlier call has.
    async fn signal_once(&self, container: &Container, task: &dyn Task, pid: u32) -> Result<()> {
        if container.signaled.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let id = &container.record.id;
        let signal = match container.record.stop_signal.as_str() {
            "" => SIGTERM,
            // The image's word, which must not keep its container from being stopped.
            text => signal::parse(text).unwrap_or_else(|error| {
                tracing::warn!(%id, %error, "no such stop signal; SIGTERM serves instead");
                SIGTERM
            }),
        };
        match task.kill("", signal, false).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => {
                tracing::warn!(%id, %error, "the shim does not signal the container; signalling its init by hand");
                let id = id.clone();
                self.ctx().blocking(Lane::Wait, move |_| kill::init(pid, &id, signal)).await.map(drop)
            }
        }
    }

    /// Kills everything in `container`, by its shim or by hand.
    async fn kill(self: &Arc<Self>, container: &Arc<Container>, task: &dyn Task, pid: u32) -> Result<()> {
        let id = &container.record.id;
        let patience = match task.kill("", SIGKILL, true).await {
            Ok(()) => DEATH,
            Err(error) if error.kind() == Kind::NotFound => DEATH,
            Err(error) => {
                tracing::warn!(%id, %error, "the shim does not kill the container");
                Duration::ZERO
            }
        };
        match self.wait(container, task, pid, patience).await {
            Seen::Ended => Ok(()),
            Seen::Gone => self.finish_by_hand(container, pid).await,
            Seen::Nothing => {
                tracing::warn!(%id, pid, "killing the container's processes by hand");
                self.finish_by_hand(container, pid).await
            }
        }
    }

    /// Stops a container that has no task: its end was not told, or its task is lost.
    async fn stop_without_task(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        if container.watched.load(Ordering::Acquire) && ended_within(container, CLEAN_UP).await {
            return Ok(());
        }
        self.finish_by_hand(container, container.now().pid).await
    }

    /// Kills what is left of `container` and keeps that it has ended.
    ///
    /// # Errors
    /// `DeadlineExceeded`: its init does not go even so, as one that waits for a dead disk.
    async fn finish_by_hand(&self, container: &Arc<Container>, pid: u32) -> Result<()> {
        let id = container.record.id.clone();
        let gone = self.ctx().blocking(Lane::Wait, move |_| kill::all(pid, &id)).await?;
        // A shim that lives tells it better than we can.
        if ended_within(container, TELL).await {
            return Ok(());
        }
        if !gone {
            let id = &container.record.id;
            let text = format!("failed to kill container {id:?}: process {pid} does not end");
            return Err(Error::new(Kind::DeadlineExceeded, text));
        }
        let exit = (pid != 0).then(|| killed_by_hand(pid));
        self.tell_end(container, exit, false).await;
        Ok(())
    }

    /// Waits for the end of `container`.
    async fn wait(&self, container: &Container, task: &dyn Task, pid: u32, within: Duration) -> Seen {
        let Some(init) = kill::open_init(pid, &container.record.id) else {
            return self.wait_for_word(container, task).await;
        };
        // Only for a shim that is silent: one that works tells the end before this is asked again.
        let gone = async {
            while !sys::process::ended(init.as_fd(), Duration::ZERO).unwrap_or(true) {
                tokio::time::sleep(LOOK).await;
            }
        };
        // Both arms are cancel-safe: a state that changed stays changed, a process that ended stays ended.
        tokio::select! {
            ended = ended_within(container, within) => if ended { Seen::Ended } else { Seen::Nothing },
            () = gone => self.wait_for_word(container, task).await,
        }
    }

    /// Waits until the end of `container`, whose init is gone, is told; for as long as its shim answers.
    async fn wait_for_word(&self, container: &Container, task: &dyn Task) -> Seen {
        let deadline = Instant::now() + CLEAN_UP;
        while Instant::now() < deadline {
            if ended_within(container, TELL).await {
                return Seen::Ended;
            }
            match task.state("").await {
                Err(error) if error.kind() != Kind::NotFound => return Seen::Gone,
                _ => {}
            }
        }
        Seen::Gone
    }
}

/// Whether `container` is told as ended, now or within some time.
async fn ended_within(container: &Container, within: Duration) -> bool {
    let mut state = container.state.subscribe();
    let ended = state.wait_for(|state| state.phase() == Phase::Exited);
    matches!(tokio::time::timeout(within, ended).await, Ok(Ok(_)))
}
