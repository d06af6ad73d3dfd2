//! Garbage collection: mark and remove records in one transaction, then sweep files and snapshots.
//!
//! ```text
//! look      one read transaction: read every record -> model::gc::garbage; mostly there is none
//! collect   one write transaction: the same again -> remove those records
//!           then, outside: blobs and ingests without a record, each driver's snapshots without a record
//! ```
//!
//! A write transaction sees a state that no other writer changes before it ends, so what a request has just made under
//! its lease is either seen with its lease or not seen at all.

mod collect;
mod demand;
mod schedule;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use model::{Cx, Result};

pub(crate) use demand::Demand;

use crate::content::Contents;
use crate::core::Core;
use crate::snapshot::Snapshots;

/// When to collect: containerd's `io.containerd.gc.v1.scheduler`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// The largest part of time that collections may take, at most 0.5.
    pub pause_threshold: f64,
    /// Collect at once after this many deletions; 0 waits for the pause that `pause_threshold` asks for.
    pub deletion_threshold: u64,
    /// Collect at the next occasion after this many transactions, even without deletions; 0 never does.
    pub mutation_threshold: u64,
    /// How long to wait with a collection that is due at once.
    pub schedule_delay: Duration,
    /// When the first collection runs.
    pub startup_delay: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pause_threshold: 0.02,
            deletion_threshold: 0,
            mutation_threshold: 100,
            schedule_delay: Duration::ZERO,
            startup_delay: Duration::from_millis(100),
        }
    }
}

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// How long writers had to wait.
    pub elapsed: Duration,
    /// How many records were removed.
    pub records: usize,
    /// How many blobs' files were removed.
    pub blobs: usize,
    /// How many bytes those had.
    pub bytes: u64,
    /// How many ingests' directories were removed.
    pub ingests: usize,
    /// How many snapshots each driver removed.
    pub snapshots: BTreeMap<String, usize>,
}

/// What a collection works on.
struct Garden {
    core: Arc<Core>,
    content: Arc<Contents>,
    snapshotters: BTreeMap<String, Arc<Snapshots>>,
    /// One collection at a time.
    turn: Mutex<()>,
}

/// The collector of a store; dropping it ends its thread.
pub(crate) struct Collector {
    garden: Arc<Garden>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Collector {
    pub(crate) fn new(
        core: Arc<Core>,
        content: Arc<Contents>,
        snapshotters: BTreeMap<String, Arc<Snapshots>>,
    ) -> Self {
        // What a crash left has no record: the first collection looks everywhere.
        core.demand.dirty_content();
        for name in snapshotters.keys() {
            core.demand.dirty_driver(name);
        }
        let garden = Arc::new(Garden { core, content, snapshotters, turn: Mutex::default() });
        Self { garden, thread: Mutex::default() }
    }

    /// Collects on this thread.
    pub(crate) fn collect(&self) -> Result<Stats> {
        self.garden.collect()
    }

    /// Starts the thread.
    pub(crate) fn start(&self, config: Config) -> Result<()> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            *thread = Some(schedule::start(Arc::clone(&self.garden), config)?);
        }
        Ok(())
    }

    /// Waits for a collection that begins from now on.
    pub(crate) fn wait(&self, cx: &Cx<'_>) -> Result<Stats> {
        if self.thread.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            return self.collect();
        }
        self.garden.core.demand.wait(cx)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.garden.core.demand.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the garbage collector's thread panicked");
        }
    }
}
