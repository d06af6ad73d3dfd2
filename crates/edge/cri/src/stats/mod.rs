//! What pods and containers use.

mod ask;
mod container;
mod descriptor;
mod disk;
mod metrics;
mod network;
mod open;
mod pod;
mod rate;
mod usage;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use ask::Silent;
pub(crate) use disk::{Disk, DiskUse};
pub(crate) use rate::Rates;

use crate::Cri;

impl Cri {
    /// Begins to measure in the background.
    pub(crate) fn start_stats(self: &Arc<Self>) {
        let period = self.config.images.stats_collect_period;
        self.in_background(disk::watch(Arc::downgrade(self), period));
    }
}

/// The time, in nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
