//! Waiting for what the machine does not announce.

use std::time::{Duration, Instant};

/// Calls `probe` until it gives a value; panics with `what` when `limit` has passed.
///
/// The one place of the harness that polls: a cgroup that empties or a server that starts to listen tells nobody.
pub fn eventually<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    within(limit, &mut probe).unwrap_or_else(|| panic!("not within {limit:?}: {what}"))
}

/// Calls `probe` until it gives a value or `limit` has passed.
pub fn within<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(25));
    }
}
