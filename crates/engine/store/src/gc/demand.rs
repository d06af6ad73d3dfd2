//! What asks for a collection: changes since the last one, places with dead files, and who waits for its end.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{Cx, Result};
use spec::{Error, Kind};

use super::Stats;

/// How often one who waits looks whether its caller has left.
const LOOK: Duration = Duration::from_millis(100);

/// How long anybody waits, whatever deadline it brought.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Counts and flags that writers leave for the collector.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    state: Mutex<State>,
    changed: Condvar,
}

/// What has gathered since the last collection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Transactions.
    pub(super) mutations: u64,
    /// Those among them that removed something.
    pub(super) deletions: u64,
    /// Whether somebody asked for a collection.
    pub(super) triggered: bool,
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    /// At how many transactions the collector is woken.
    wakes_at: u64,
    /// Whether to end.
    stopped: bool,
    /// How many collections have begun.
    begun: u64,
    /// How many have ended, and how the last one did.
    ended: u64,
    last: Option<Result<Stats, (Kind, String)>>,
    dirty: Dirty,
}

/// Where files or snapshots may have lost their records.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) content: bool,
    pub(super) drivers: BTreeSet<String>,
}

impl Demand {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction has ended.
    pub(crate) fn changed(&self, removed: bool) {
        let mut state = self.lock();
        state.counts.mutations += 1;
        state.counts.deletions += u64::from(removed);
        // The collector is woken for what may make it collect, not by every writer.
        let matters = removed || state.counts.mutations == state.wakes_at;
        drop(state);
        if matters {
            self.changed.notify_all();
        }
    }

    /// Wakes the collector when this many transactions have gathered.
    pub(super) fn wake_at(&self, mutations: u64) {
        self.lock().wakes_at = mutations;
    }

    /// A blob's or an ingest's record has gone.
    pub(crate) fn dirty_content(&self) {
        self.lock().dirty.content = true;
    }

    /// A snapshot's record has gone.
    pub(crate) fn dirty_driver(&self, name: &str) {
        self.lock().dirty.drivers.insert(name.to_owned());
    }

    /// Ends the collector's thread.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// A collection begins: it will see every change so far.
    pub(super) fn begin(&self) {
        let mut state = self.lock();
        state.begun += 1;
        state.counts = Counts::default();
    }

    /// What the collection that runs is to sweep.
    pub(super) fn take_dirty(&self) -> Dirty {
        std::mem::take(&mut self.lock().dirty)
    }

    /// The collection has ended.
    pub(super) fn end(&self, result: &Result<Stats>) {
        let mut state = self.lock();
        state.ended = state.begun;
        state.last = Some(match result {
            Ok(stats) => Ok(stats.clone()),
            Err(error) => Err((error.kind(), error.text().to_owned())),
        });
        drop(state);
        self.changed.notify_all();
    }

    /// Asks for a collection and waits for its end.
    pub(super) fn wait(&self, cx: &Cx<'_>) -> Result<Stats> {
        let give_up = Instant::now() + PATIENCE;
        let mut state = self.lock();
        // One that has begun may have passed by what the caller removed; only the next counts.
        let wanted = state.begun + 1;
        state.counts.triggered = true;
        self.changed.notify_all();
        loop {
            if state.ended >= wanted {
                return match &state.last {
                    Some(Ok(stats)) => Ok(stats.clone()),
                    Some(Err((kind, text))) => Err(Error::new(*kind, format!("gc failed: {text}"))),
                    None => Err(Error::internal("gc failed")),
                };
            }
            if state.stopped {
                return Err(Error::new(Kind::Canceled, "the store is closing"));
            }
            if Instant::now() >= give_up {
                return Err(Error::new(Kind::DeadlineExceeded, "garbage collection takes too long"));
            }
            (state, _) = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner);
            cx.check()?;
        }
    }

    /// Sleeps until `due` says that it is time, or the collector ends; whether to collect.
    ///
    /// `due` is asked again after every change; it gives the moment to collect at, or none for as long as nothing changes.
    pub(super) fn sleep(&self, due: impl Fn(&Counts) -> Option<Instant>) -> bool {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return false;
            }
            state = match due(&state.counts) {
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return true;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}
