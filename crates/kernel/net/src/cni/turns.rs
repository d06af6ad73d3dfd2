//! Attaching and collecting take turns: plugins that are told which attachments are valid free all others, one that is
//! just being made too.
//!
//! Invariant: whoever waits to collect holds up nobody who attaches.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How many attach right now. Locked for as long as somebody collects.
#[derive(Debug, Default)]
pub(super) struct Turns {
    attaching: Mutex<usize>,
    fewer: Condvar,
}

/// One who attaches.
pub(super) struct Attaching<'a>(&'a Turns);

/// The one who collects.
pub(super) struct Collecting<'a>(
    #[expect(dead_code, reason = "held until it is dropped")] MutexGuard<'a, usize>,
);

impl Turns {
    /// Waits until nobody collects.
    pub fn attach(&self) -> Attaching<'_> {
        *self.lock() += 1;
        Attaching(self)
    }

    /// Waits until nobody attaches; `None` when somebody still does at `deadline`.
    pub fn collect(&self, deadline: Instant) -> Option<Collecting<'_>> {
        let mut attaching = self.lock();
        while *attaching > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            attaching = self.fewer.wait_timeout(attaching, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(Collecting(attaching))
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.attaching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Attaching<'_> {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.fewer.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_collects_is_alone_and_who_waits_to_is_passed() {
        let turns = Turns::default();
        let soon = || Instant::now() + Duration::from_millis(20);
        let first = turns.attach();
        assert!(turns.collect(soon()).is_none());
        std::thread::scope(|scope| {
            let collector = scope.spawn(|| turns.collect(Instant::now() + Duration::from_secs(60)).is_some());
            // It waits, and others attach none the less.
            drop(turns.attach());
            drop(first);
            assert!(collector.join().unwrap());
        });
        let collecting = turns.collect(soon()).unwrap();
        std::thread::scope(|scope| {
            let attaching = scope.spawn(|| drop(turns.attach()));
            assert!(turns.attaching.try_lock().is_err() && !attaching.is_finished());
            drop(collecting);
        });
    }
}
