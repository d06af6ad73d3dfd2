//! Whether a registry that is waited for still sends anything.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a transfer waits for, and what has come: shared by all requests of one transfer.
#[derive(Debug, Default)]
pub struct Traffic {
    /// How many requests wait for their registry right now; one whose bytes are being written does not.
    waiting: AtomicUsize,
    /// Heads and pieces that have come.
    came: AtomicU64,
}

/// A wait for a registry, until it is dropped.
pub(super) struct Waiting<'a>(&'a Traffic);

impl Traffic {
    /// Begins a wait.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self)
    }

    /// Returns once registries have been waited for and sent nothing for as long as `limit`.
    pub async fn stalled(&self, limit: Duration) {
        let tick = (limit / 10).clamp(Duration::from_millis(20), Duration::from_secs(5));
        let mut last = (self.came.load(Ordering::Relaxed), Instant::now());
        loop {
            tokio::time::sleep(tick).await;
            let came = self.came.load(Ordering::Relaxed);
            if came != last.0 || self.waiting.load(Ordering::Relaxed) == 0 {
                last = (came, Instant::now());
            } else if last.1.elapsed() >= limit {
                return;
            }
        }
    }
}

impl Waiting<'_> {
    /// What was waited for has come.
    pub fn over(self) {
        self.0.came.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(60);

    /// Whether a stall is told within half a second.
    async fn stalls(traffic: &Traffic) -> bool {
        tokio::time::timeout(Duration::from_millis(500), traffic.stalled(LIMIT)).await.is_ok()
    }

    #[tokio::test]
    async fn only_a_wait_for_nothing_is_a_stall() {
        let traffic = Traffic::default();
        assert!(!stalls(&traffic).await, "nothing is waited for");
        let wait = traffic.wait();
        assert!(stalls(&traffic).await);
        wait.over();
        assert!(!stalls(&traffic).await, "what was waited for has come");
        let _waiting = traffic.wait();
        let pieces = async {
            loop {
                traffic.wait().over();
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            stalled = stalls(&traffic) => assert!(!stalled, "one of two still sends"),
            () = pieces => {}
        }
    }
}
