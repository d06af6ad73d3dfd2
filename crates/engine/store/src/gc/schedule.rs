//! When the collector's thread collects. It sleeps without a timer while nothing asks for it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::Result;
use spec::Error;
use spec::time::FAR;

use super::demand::Counts;
use super::{Config, Garden};

/// A collection counts as at least this long, so that fast ones do not follow each other without pause.
const SHORTEST: Duration = Duration::from_millis(5);

/// The pause while nothing is known of how long a collection takes.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Starts the thread.
pub(super) fn start(garden: Arc<Garden>, config: Config) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("gc".to_owned())
        .spawn(move || {
            run(&garden, &Config { pause_threshold: config.pause_threshold.clamp(0.0, 0.5), ..config })
        })
        .map_err(|error| Error::internal(format!("cannot start the garbage collector: {error}")))
}

fn run(garden: &Garden, config: &Config) {
    garden.core.demand.wake_at(config.mutation_threshold);
    let mut clock = Clock { startup: spec::time::deadline(config.startup_delay), ..Clock::default() };
    while garden.core.demand.sleep(|counts| clock.due(config, counts)) {
        let result = garden.collect();
        if let Err(error) = &result {
            tracing::error!(%error, "garbage collection failed");
        }
        clock.collected(config, result.map(|stats| stats.elapsed).ok());
    }
}

/// What is known of the past collections.
#[derive(Debug)]
struct Clock {
    startup: Instant,
    last: Option<Instant>,
    pause: Duration,
    spent: Duration,
    collections: u32,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            startup: Instant::now(),
            last: None,
            pause: FIRST_PAUSE,
            spent: Duration::ZERO,
            collections: 0,
        }
    }
}

impl Clock {
    /// When to collect, as things stand.
    fn due(&self, config: &Config, counts: &Counts) -> Option<Instant> {
        let at_once = counts.triggered
            || (config.deletion_threshold > 0 && counts.deletions >= config.deletion_threshold);
        if at_once {
            return Some(spec::time::deadline(config.schedule_delay));
        }
        let Some(last) = self.last else { return Some(self.startup) };
        let wanted = counts.deletions > 0
            || (config.mutation_threshold > 0 && counts.mutations >= config.mutation_threshold);
        wanted.then(|| last + self.pause)
    }

    /// A collection has ended; it took `elapsed`, or failed.
    fn collected(&mut self, config: &Config, elapsed: Option<Duration>) {
        self.last = Some(Instant::now());
        let Some(elapsed) = elapsed else {
            self.pause += FIRST_PAUSE;
            return;
        };
        self.spent += elapsed;
        self.collections += 1;
        self.pause = FIRST_PAUSE;
        if config.pause_threshold > 0.0 {
            let average = (self.spent / self.collections).max(SHORTEST);
            // A share of nearly nothing asks for a pause without end.
            let wanted = average.as_secs_f64() / config.pause_threshold;
            let wanted = Duration::try_from_secs_f64(wanted).unwrap_or(FAR).min(FAR);
            self.pause = wanted.saturating_sub(average);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_of_any_configured_size_saturates() {
        let config = Config {
            pause_threshold: f64::MIN_POSITIVE,
            startup_delay: Duration::MAX,
            schedule_delay: Duration::MAX,
            ..Config::default()
        };
        let mut clock = Clock::default();
        clock.collected(&config, Some(Duration::from_millis(10)));
        assert!(clock.due(&config, &counts(u64::MAX, 1, false)).unwrap() > Instant::now());
        assert!(clock.due(&config, &counts(0, 0, true)).unwrap() > Instant::now());
    }

    fn counts(mutations: u64, deletions: u64, triggered: bool) -> Counts {
        Counts { mutations, deletions, triggered }
    }

    #[test]
    fn deletions_wait_for_the_pause_and_triggers_do_not() {
        let config = Config { schedule_delay: Duration::from_millis(7), ..Config::default() };
        let mut clock = Clock::default();
        assert_eq!(clock.due(&config, &counts(0, 0, false)), Some(clock.startup));
        clock.collected(&config, Some(Duration::from_millis(10)));
        let last = clock.last.unwrap();
        assert_eq!(clock.due(&config, &counts(0, 0, false)), None);
        assert_eq!(clock.due(&config, &counts(99, 0, false)), None);
        let pause = Duration::from_millis(490);
        assert_eq!(clock.due(&config, &counts(100, 0, false)), Some(last + pause));
        assert_eq!(clock.due(&config, &counts(1, 1, false)), Some(last + pause));
        assert!(clock.due(&config, &counts(0, 0, true)).unwrap() < last + pause);
        let eager = Config { deletion_threshold: 3, ..config };
        assert_eq!(clock.due(&eager, &counts(2, 2, false)), Some(last + pause));
        assert!(clock.due(&eager, &counts(3, 3, false)).unwrap() < last + pause);
    }

    #[test]
    fn a_failure_makes_the_next_pause_longer() {
        let config = Config::default();
        let mut clock = Clock::default();
        clock.collected(&config, None);
        clock.collected(&config, None);
        assert_eq!(clock.pause, 3 * FIRST_PAUSE);
        clock.collected(&config, Some(Duration::ZERO));
        assert_eq!(clock.pause, Duration::from_millis(245));
    }
}
