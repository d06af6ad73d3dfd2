//! The context of a request, and the one bridge from async to blocking code.
//!
//! A request handler holds a [`Ctx`]; [`Ctx::blocking`] moves a closure to a bounded lane of blocking threads and hands it
//! a [`Cx`], the proof that this thread may block. A `Cx` is not `Send`, so no handler can keep one across an await.
//!
//! Invariant: dropping the future of `blocking` does not stop the closure; work that has begun ends whole.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use spec::{Error, Kind, LeaseId, Namespace};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Which resource a blocking closure mostly uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Short disk work: metadata transactions, mounts, renames.
    Disk,
    /// Long work that keeps a core busy: hashing, inflating, applying a layer.
    Cpu,
    /// Waiting for the kernel or for processes, for seconds at most.
    Wait,
    /// Passing bytes from or to a registry or a client, at that peer's pace.
    Stream,
    /// Waiting for the plugins of networks, which may take a minute each.
    Network,
}

/// How many closures of each lane run at once.
const PLACES: [usize; 5] = [32, 16, 64, 64, 128];
static LANES: [Semaphore; 5] = [
    Semaphore::const_new(PLACES[0]),
    Semaphore::const_new(PLACES[1]),
    Semaphore::const_new(PLACES[2]),
    Semaphore::const_new(PLACES[3]),
    Semaphore::const_new(PLACES[4]),
];
/// How many closures at most have left their lane.
const MOST_OUTSIDE: usize = 64;
static OUTSIDE: Semaphore = Semaphore::const_new(MOST_OUTSIDE);

impl Lane {
    /// How many threads all lanes may take, with those that have left one: a runtime must have as many that may block, or
    /// a lane that is full holds up the others after all.
    pub const THREADS: usize = PLACES[0] + PLACES[1] + PLACES[2] + PLACES[3] + PLACES[4] + MOST_OUTSIDE;

    fn room(self) -> &'static Semaphore {
        &LANES[self as usize]
    }
}

/// What every request carries: its namespace, its lease, its deadline, and whether its caller has left.
#[derive(Clone, Debug)]
pub struct Ctx {
    namespace: Option<Namespace>,
    lease: Option<LeaseId>,
    deadline: Option<Instant>,
    canceled: Arc<AtomicBool>,
}

impl Ctx {
    /// A context without a namespace: of the daemon itself, and of the few calls that need none.
    pub fn background() -> Self {
        Self { namespace: None, lease: None, deadline: None, canceled: Arc::default() }
    }

    /// A context in `namespace`.
    pub fn in_namespace(namespace: Namespace) -> Self {
        Self { namespace: Some(namespace), ..Self::background() }
    }

    /// The same context under `lease`: what is made from now on is held by it.
    #[must_use]
    pub fn with_lease(&self, lease: LeaseId) -> Self {
        Self { lease: Some(lease), ..self.clone() }
    }

    /// The same context, to be given up at `deadline` (or earlier, if it already had to be).
    #[must_use]
    pub fn with_deadline(&self, deadline: Instant) -> Self {
        let deadline = self.deadline.map_or(deadline, |own| own.min(deadline));
        Self { deadline: Some(deadline), ..self.clone() }
    }

    /// The namespace of the request.
    ///
    /// # Errors
    /// The request named none: containerd's `namespace is required`, a failed precondition.
    pub fn namespace(&self) -> Result<&Namespace, Error> {
        self.namespace.as_ref().ok_or_else(|| Error::failed_precondition("namespace is required"))
    }

    /// The lease of the request, if it named one.
    pub fn lease(&self) -> Option<&LeaseId> {
        self.lease.as_ref()
    }

    /// When the request must have ended.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Says that the caller has left; blocking work notices at its next [`Cx::check`].
    pub fn cancel(&self) {
        self.canceled.store(true, Ordering::Relaxed);
    }

    /// Awaits `work` on behalf of a caller that is gone when this is dropped before it is done: blocking work under this
    /// context then learns that nobody wants it any more.
    pub async fn attended<T>(&self, work: impl Future<Output = T>) -> T {
        struct Attendance<'a>(Option<&'a Ctx>);
        impl Drop for Attendance<'_> {
            fn drop(&mut self) {
                if let Some(ctx) = self.0 {
                    ctx.cancel();
                }
            }
        }
        let mut attendance = Attendance(Some(self));
        let done = work.await;
        attendance.0 = None;
        done
    }

    /// Runs `work` on a thread that may block, once `lane` has room.
    ///
    /// # Errors
    /// What `work` returns; an internal error when it panics.
    #[expect(clippy::disallowed_methods, reason = "this is the bridge that the ban protects")]
    pub async fn blocking<T, F>(&self, lane: Lane, work: F) -> Result<T, Error>
    where
        F: FnOnce(&Cx<'_>) -> Result<T, Error> + Send + 'static,
        T: Send + 'static,
    {
        let permit = lane.room().acquire().await.map_err(|_| Error::internal("the lane is closed"))?;
        let ctx = self.clone();
        tokio::task::spawn_blocking(move || {
            work(&Cx { ctx: &ctx, place: RefCell::new(Some(permit)), here: PhantomData })
        })
        .await
        .map_err(|panic| Error::internal(format!("a blocking task failed: {panic}")))?
    }

    /// Runs `work` on this thread, for programs and threads that have no async side (tests, garbage collection).
    pub fn on_this_thread<T>(&self, work: impl FnOnce(&Cx<'_>) -> T) -> T {
        work(&Cx { ctx: self, place: RefCell::new(None), here: PhantomData })
    }
}

/// The right to block, with the request on whose behalf.
#[derive(Debug)]
pub struct Cx<'a> {
    ctx: &'a Ctx,
    /// What it takes up of its lane.
    place: RefCell<Option<SemaphorePermit<'static>>>,
    here: PhantomData<*const ()>,
}

impl Cx<'_> {
    /// The request.
    pub fn ctx(&self) -> &Ctx {
        self.ctx
    }

    /// The namespace of the request.
    ///
    /// # Errors
    /// As [`Ctx::namespace`].
    pub fn namespace(&self) -> Result<&Namespace, Error> {
        self.ctx.namespace()
    }

    /// The lease of the request, if it named one.
    pub fn lease(&self) -> Option<&LeaseId> {
        self.ctx.lease()
    }

    /// Waits for another process, which may take its time: from here on, the closure takes up no place in its lane, so that
    /// whoever is not concerned goes on.
    ///
    /// # Errors
    /// `Unavailable` when more wait so than there are threads for.
    pub fn outside<T>(&self, wait: impl FnOnce() -> T) -> Result<T, Error> {
        let full = |_| Error::new(Kind::Unavailable, "too many requests wait for other processes");
        let _one_more = OUTSIDE.try_acquire().map_err(full)?;
        drop(self.place.take());
        Ok(wait())
    }

    /// Whether to go on: called between the pieces of long work.
    ///
    /// # Errors
    /// The caller has left, or the deadline has passed.
    pub fn check(&self) -> Result<(), Error> {
        if self.ctx.canceled.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Canceled, "context canceled"));
        }
        match self.ctx.deadline {
            Some(deadline) if Instant::now() >= deadline => {
                Err(Error::new(Kind::DeadlineExceeded, "context deadline exceeded"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn a_caller_that_leaves_is_noticed_and_one_that_stays_is_not() {
        let ctx = Ctx::background();
        let wanted = |ctx: &Ctx| ctx.on_this_thread(|cx| cx.check());
        let mut now = Context::from_waker(Waker::noop());
        let done = std::pin::pin!(ctx.attended(async { 7 })).poll(&mut now);
        assert_eq!(done, Poll::Ready(7));
        wanted(&ctx).unwrap();
        {
            let mut waiting = std::pin::pin!(ctx.attended(std::future::pending::<()>()));
            assert_eq!(waiting.as_mut().poll(&mut now), Poll::Pending);
            wanted(&ctx).unwrap();
        }
        assert_eq!(wanted(&ctx).unwrap_err().kind(), Kind::Canceled);
    }

    /// Fills a lane with closures that wait until what is returned is dropped.
    fn fill(lane: Lane, places: usize, wait: fn(&Cx<'_>, &mpsc::Receiver<()>)) -> Vec<mpsc::Sender<()>> {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..places).map(|_| mpsc::channel::<()>()).unzip();
        for receiver in receivers {
            tokio::spawn(async move {
                let work = move |cx: &Cx<'_>| {
                    wait(cx, &receiver);
                    Ok(())
                };
                Ctx::background().blocking(lane, work).await
            });
        }
        senders
    }

    #[tokio::test]
    async fn a_full_lane_holds_up_no_other() {
        let hanging = fill(Lane::Network, 128, |_, released| {
            let _ended = released.recv();
        });
        while Lane::Network.room().available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let ctx = Ctx::background();
        let mut behind = std::pin::pin!(ctx.blocking(Lane::Network, |_| Ok(())));
        for lane in [Lane::Wait, Lane::Disk, Lane::Cpu, Lane::Stream] {
            tokio::select! {
                biased;
                _early = &mut behind => panic!("the lane is not full"),
                done = ctx.blocking(lane, |_| Ok(())) => done.unwrap(),
            }
        }
        drop(hanging);
        behind.await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_outside_takes_up_no_place_and_there_is_an_end_to_it() {
        let outside = |cx: &Cx<'_>, released: &mpsc::Receiver<()>| {
            let _ended = cx.outside(|| released.recv());
        };
        let hanging = fill(Lane::Disk, MOST_OUTSIDE, outside);
        // All of them come to wait, since none of them holds up the next.
        while OUTSIDE.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = Ctx::background().blocking(Lane::Disk, |cx| cx.outside(|| ())).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Unavailable);
        drop(hanging);
    }
}
