//! How long each call to a shim may take; containerd's figures where it has them.

use std::time::Duration;

/// `State`: containerd's `io.containerd.timeout.task.state`.
pub const STATE: Duration = Duration::from_secs(2);
/// `Stats`: containerd's `io.containerd.timeout.metrics.shimstats`.
pub const STATS: Duration = Duration::from_secs(2);
/// Connecting to a shim found in the state directory: containerd's `io.containerd.timeout.shim.load`.
pub const LOAD: Duration = Duration::from_secs(5);
/// `shim delete`: containerd's `io.containerd.timeout.shim.cleanup`.
pub const CLEANUP: Duration = Duration::from_secs(5);
/// `Shutdown`: containerd's `io.containerd.timeout.shim.shutdown`.
pub const SHUTDOWN: Duration = Duration::from_secs(3);
/// `shim start`.
pub const START_SHIM: Duration = Duration::from_secs(30);
/// `Create` and `Start`: mounts and hooks run in them.
pub const CREATE: Duration = Duration::from_secs(120);
/// `Delete` and `Exec`.
pub const DELETE: Duration = Duration::from_secs(30);
/// Every other call.
pub const CALL: Duration = Duration::from_secs(10);
