//! Points in time at a distance that comes from outside.
//!
//! Invariant: no distance, however large, overflows; one that is longer than a hundred years ends after those.

use std::time::{Duration, Instant, SystemTime};

/// The longest distance that is told apart from "never": a hundred years.
pub const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The moment `within` from now.
pub fn deadline(within: Duration) -> Instant {
    Instant::now() + within.min(FAR)
}

/// The moment `after` from now, by the calendar.
pub fn expiry(after: Duration) -> SystemTime {
    SystemTime::now() + after.min(FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_of_any_size_has_a_moment() {
        for distance in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_secs(i64::MAX as u64)] {
            assert!(deadline(distance) > Instant::now());
            assert!(expiry(distance) > SystemTime::now());
        }
        assert!(deadline(Duration::ZERO) <= Instant::now());
    }
}
