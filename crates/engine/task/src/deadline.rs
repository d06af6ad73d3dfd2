//! How long each call to a shim may take; containerd's figures where it has them.

use std::time::Duration;

/// What the configuration may set: `[timeouts]`, keys below `io.containerd.timeout.`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// `State`: `task.state`.
    pub state: Duration,
    /// `Stats`: `metrics.shimstats`.
    pub stats: Duration,
    /// Connecting to a shim: `shim.load`.
    pub load: Duration,
    /// `shim delete`: `shim.cleanup`.
    pub cleanup: Duration,
    /// `Shutdown`: `shim.shutdown`.
    pub shutdown: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            state: Duration::from_secs(2),
            stats: Duration::from_secs(2),
            load: Duration::from_secs(5),
            cleanup: Duration::from_secs(5),
            shutdown: Duration::from_secs(3),
        }
    }
}

/// `shim start`.
pub const START_SHIM: Duration = Duration::from_secs(30);
/// `Create` and `Start`: mounts and hooks run in them.
pub const CREATE: Duration = Duration::from_secs(120);
/// `Delete` and `Exec`.
pub const DELETE: Duration = Duration::from_secs(30);
/// Every other call.
pub const CALL: Duration = Duration::from_secs(10);
