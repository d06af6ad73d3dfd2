//! How fast something uses the CPU: by two samples, the second of which is the question itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Samples of everything that is asked about, by id.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<HashMap<String, Samples>>);

/// A time and a CPU time, both in nanoseconds.
pub(super) type Sample = (i64, u64);

#[derive(Clone, Copy, Debug)]
struct Samples {
    older: Option<Sample>,
    newer: Sample,
}

impl Rates {
    /// Notes a sample; answers the use since an earlier one, in billionths of a core. What began lately has its beginning
    /// for the first sample; of anything else the first question knows no earlier one. Samples closer together than
    /// `period` say too little, and those older than `retention` say nothing of now.
    pub fn note(
        &self,
        id: &str,
        begin: Sample,
        (at, total): Sample,
        period: Duration,
        retention: Duration,
    ) -> Option<u64> {
        let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = at.saturating_sub(nanos(retention));
        all.retain(|_, samples| samples.newer.0 >= oldest);
        let older = Some(begin).filter(|begin| begin.0 >= oldest && begin.0 > 0);
        let samples = all.entry(id.to_owned()).or_insert(Samples { older, newer: (at, total) });
        if at.saturating_sub(samples.newer.0) >= nanos(period) {
            *samples = Samples { older: Some(samples.newer), newer: (at, total) };
        }
        let (since, then) = samples.older?;
        let (until, now) = samples.newer;
        let elapsed = u64::try_from(until.saturating_sub(since)).ok().filter(|elapsed| *elapsed > 0)?;
        // A counter that went back belongs to another life.
        let used = now.checked_sub(then)?;
        u64::try_from(u128::from(used) * 1_000_000_000 / u128::from(elapsed)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_samples_that_are_apart_and_not_old() {
        let (rates, second) = (Rates::default(), 1_000_000_000);
        let note = |at: i64, total: u64| {
            let begin = (1, 0);
            rates.note("a", begin, (at * second, total), Duration::from_secs(1), Duration::from_secs(120))
        };
        assert_eq!(note(210, 0), None, "it began long ago");
        assert_eq!(note(212, 1_000_000_000), Some(500_000_000));
        assert_eq!(note(212, 9_000_000_000), Some(500_000_000), "too close to say more");
        assert_eq!(note(214, 0), None, "another life");
        assert_eq!(note(500, 0), None, "what is old is forgotten");
    }

    #[test]
    fn what_began_lately_has_a_rate_at_once() {
        let (rates, second) = (Rates::default(), 1_000_000_000);
        let (period, retention) = (Duration::from_secs(1), Duration::from_secs(120));
        let note =
            |at: i64, total: u64| rates.note("a", (10 * second, 0), (at * second, total), period, retention);
        assert_eq!(note(14, 1_000_000_000), Some(250_000_000));
        assert_eq!(note(16, 3_000_000_000), Some(1_000_000_000));
    }
}
