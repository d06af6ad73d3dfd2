//! How long a start waits for shims to answer: as long as some do, and a moment longer.
//!
//! One that is frozen is so found out in a moment when nobody else is slow; on a machine with so much to do that all are,
//! each gets the time that it needs.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// How long nobody may answer: then nobody else is going to.
const SILENCE: Duration = Duration::from_millis(100);

/// How long the start waits at most.
const MOST: Duration = Duration::from_secs(1);

/// Shared by all that wait.
#[derive(Debug)]
pub(crate) struct Patience {
    end: Instant,
    heard: Mutex<Instant>,
}

impl Patience {
    /// It begins now.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { end: now + MOST, heard: Mutex::new(now) }
    }

    /// Waits for an answer; `None` once that has taken too long.
    pub(crate) async fn of<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = pin!(answer);
        loop {
            let until = self.until();
            match timeout_at(until, &mut answer).await {
                Ok(answer) => {
                    *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    return Some(answer);
                }
                Err(_) if self.until() == until => return None,
                // Others have answered meanwhile.
                Err(_) => {}
            }
        }
    }

    fn until(&self) -> Instant {
        self.end.min(*self.heard.lock().unwrap_or_else(PoisonError::into_inner) + SILENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::{join_all, pending};
    use tokio::time::sleep;

    async fn at(ms: u64) -> u64 {
        sleep(Duration::from_millis(ms)).await;
        ms
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_given_up_a_moment_after_the_last_answer() {
        let (patience, began) = (Patience::new(), Instant::now());
        let frozen = patience.of(pending::<u64>());
        let (answers, frozen) = tokio::join!(join_all([5, 30].map(|ms| patience.of(at(ms)))), frozen);
        assert_eq!((answers, frozen), (vec![Some(5), Some(30)], None));
        assert_eq!(began.elapsed(), Duration::from_millis(130));
    }

    #[tokio::test(start_paused = true)]
    async fn while_others_answer_the_slow_are_waited_for_but_not_for_ever() {
        let (patience, began) = (Patience::new(), Instant::now());
        let all: Vec<u64> = (1..=40).map(|step| step * 90).collect();
        let answers = join_all(all.iter().map(|&ms| patience.of(at(ms)))).await;
        let heard: Vec<u64> = answers.into_iter().flatten().collect();
        assert_eq!(heard, all[..11]);
        assert_eq!(began.elapsed(), Duration::from_secs(1));
    }
}
