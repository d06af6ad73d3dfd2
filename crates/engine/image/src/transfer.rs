//! The frame of every transfer: an owner task, a lease over all that it makes, and an end that leaves nothing behind.
//!
//! The caller awaits the owner; when it goes away the owner is told to stop, undoes what is half done and ends.
//!
//! Invariant: no prepared snapshot outlives its transfer, and the lease goes only when the last blocking work has ended.

use std::sync::{Arc, Mutex, PoisonError};

use model::snapshot::Snapshotter;
use model::{Ctx, Cx, Lane};
use spec::{Error, Kind, LeaseId, Result};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;
use tracing::warn;

use crate::{Services, remains};

/// What a running transfer has in its hands.
pub(crate) struct Scope {
    /// The request, under the transfer's lease.
    pub ctx: Ctx,
    /// The stores.
    pub services: Services,
    prepared: Mutex<Vec<(Arc<dyn Snapshotter>, String)>>,
    running: mpsc::Sender<()>,
}

impl Scope {
    /// Runs blocking work that the end of the transfer waits for.
    pub async fn blocking<T, F>(&self, lane: Lane, work: F) -> Result<T>
    where
        F: FnOnce(&Cx<'_>) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let running = self.running.clone();
        self.ctx
            .blocking(lane, move |cx| {
                let done = work(cx);
                drop(running);
                done
            })
            .await
    }

    /// Registers a prepared snapshot, to be removed unless it is [`released`](Self::release).
    pub fn hold(&self, driver: &Arc<dyn Snapshotter>, key: &str) {
        self.lock().push((driver.clone(), key.to_owned()));
    }

    /// Forgets a prepared snapshot: it is committed or removed.
    pub fn release(&self, key: &str) {
        self.lock().retain(|(_, held)| held != key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Arc<dyn Snapshotter>, String)>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `work` to its end, or undoes it when the caller leaves or the deadline of `ctx` passes.
///
/// With `retry`, content that a failed transfer has fetched waits for the next one of the same text.
pub(crate) async fn run<T, F, Fut>(
    ctx: &Ctx,
    services: &Services,
    retry: Option<String>,
    work: F,
) -> Result<T>
where
    F: FnOnce(Arc<Scope>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let (here, gone) = oneshot::channel::<()>();
    let owner = tokio::spawn(own(ctx.clone(), services.clone(), retry, work, gone));
    let ended = owner.await;
    drop(here);
    ended.map_err(|panic| Error::internal(format!("a transfer failed: {panic}")))?
}

async fn own<T, F, Fut>(
    ctx: Ctx,
    services: Services,
    retry: Option<String>,
    work: F,
    gone: oneshot::Receiver<()>,
) -> Result<T>
where
    F: FnOnce(Arc<Scope>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    // The end of the transfer must be able to work when the transfer itself has been told to stop.
    let undo = Ctx::in_namespace(ctx.namespace()?.clone());
    let lease = match ctx.lease() {
        Some(_) => None,
        None => Some(take_lease(&undo, &services).await?),
    };
    // A flag of its own: failing here must not stop what else the request does.
    let mut own = Ctx::in_namespace(ctx.namespace()?.clone());
    if let Some(lease) = lease.as_ref().or(ctx.lease()) {
        own = own.with_lease(lease.clone());
    }
    if let Some(deadline) = ctx.deadline() {
        own = own.with_deadline(deadline);
    }
    let (running, mut ended) = mpsc::channel(1);
    let scope = Arc::new(Scope { ctx: own, services, prepared: Mutex::default(), running });
    let deadline = ctx.deadline();
    let bounded = async {
        match deadline {
            None => work(scope.clone()).await,
            Some(deadline) => timeout_at(deadline.into(), work(scope.clone()))
                .await
                .unwrap_or_else(|_| Err(Error::new(Kind::DeadlineExceeded, "context deadline exceeded"))),
        }
    };
    let outcome = tokio::select! {
        outcome = bounded => outcome,
        // The sender is only ever dropped: the caller has left. What the work holds is undone below.
        _ = gone => Err(Error::new(Kind::Canceled, "context canceled")),
    };
    if outcome.is_err() {
        scope.ctx.cancel();
    }
    let prepared = std::mem::take(&mut *scope.lock());
    let services = scope.services.clone();
    // Every blocking closure holds a sender; when the last is gone nobody writes into a snapshot any more.
    drop(scope);
    while ended.recv().await.is_some() {}
    let end = match &outcome {
        Ok(_) => End::Well,
        // Content kept for later must not be what the disk is full of.
        Err(error) if error.kind() == Kind::ResourceExhausted => End::Badly,
        Err(_) => End::ToBeTriedAgain,
    };
    let retry = retry.as_deref().map(remains::lease_for).transpose()?;
    finish(&undo, services, prepared, lease, retry, end).await;
    outcome
}

async fn take_lease(undo: &Ctx, services: &Services) -> Result<LeaseId> {
    let leases = services.leases.clone();
    undo.blocking(Lane::Disk, move |cx| remains::begin(cx, &*leases)).await
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Well,
    ToBeTriedAgain,
    Badly,
}

/// Removes what was prepared and not committed, then lets go of everything else.
async fn finish(
    undo: &Ctx,
    services: Services,
    prepared: Vec<(Arc<dyn Snapshotter>, String)>,
    lease: Option<LeaseId>,
    retry: Option<LeaseId>,
    end: End,
) {
    let done = undo
        .blocking(Lane::Disk, move |cx| {
            for (driver, key) in &prepared {
                match driver.remove(cx, key) {
                    Err(error) if error.kind() != Kind::NotFound => {
                        warn!("failed to cleanup {key:?}: {error}");
                    }
                    _ => {}
                }
            }
            let leases = &*services.leases;
            match (&lease, &retry, end) {
                (Some(lease), Some(retry), End::ToBeTriedAgain) => remains::keep(cx, leases, lease, retry)?,
                (_, Some(retry), End::Well | End::Badly) => remains::forget(cx, leases, retry)?,
                _ => {}
            }
            lease.iter().try_for_each(|lease| remains::forget(cx, leases, lease))
        })
        .await;
    // The lease ends by itself after a day; a failure here costs disk, not data.
    if let Err(error) = done {
        warn!("a transfer did not clean up: {error}");
    }
}
