//! Asking shims for figures: many at once, of which those that do not answer cost a list no more than one of them does.
//!
//! ```text
//! question ─► a place, for a moment ─► answer
//!                     └─► waited for beside the others ─► answer, or the round's end: silent
//! silent ─► asked with nobody waiting ─► answer: asked like all others again
//! ```
//!
//! Invariant: the questions of a round end together, [`PATIENCE`] after it began at the latest.
//! Invariant: who is silent keeps nobody from being asked, and has no more than one question before it.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use ::spec::Kind;
use model::Result;
use model::task::Task;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::usage::Usage;
use crate::Cri;

/// How long all shims of a list may take together (`io.containerd.timeout.metrics.shimstats`).
const PATIENCE: Duration = Duration::from_secs(2);
/// How many shims are asked at once.
const AT_ONCE: usize = 10;
/// How long one that does not answer keeps its place: a shim that has a processor needs less.
const MOMENT: Duration = Duration::from_millis(50);

/// The questions of one list.
#[derive(Debug)]
pub(super) struct Round {
    until: Instant,
    places: Semaphore,
}

/// What came of a question.
#[derive(Debug, PartialEq, Eq)]
enum Heard<T> {
    Answer(T),
    Silence,
    /// There was no time left to ask.
    Nothing,
}

impl Round {
    /// It begins now.
    pub fn new() -> Self {
        Self { until: Instant::now() + PATIENCE, places: Semaphore::new(AT_ONCE) }
    }

    /// Waits for an answer that takes no place, until the round ends.
    pub async fn wait<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.until, answer).await.ok()
    }

    async fn ask<T>(&self, question: impl Future<Output = T>) -> Heard<T> {
        let Some(Ok(place)) = self.wait(self.places.acquire()).await else { return Heard::Nothing };
        if Instant::now() >= self.until {
            return Heard::Nothing;
        }
        let mut answer = pin!(question);
        if let Ok(answer) = timeout(MOMENT, &mut answer).await {
            return Heard::Answer(answer);
        }
        drop(place);
        self.wait(answer).await.map_or(Heard::Silence, Heard::Answer)
    }
}

/// The tasks whose shims did not answer, and whether each is being asked.
#[derive(Debug, Default)]
pub(crate) struct Silent(Mutex<HashMap<String, bool>>);

impl Silent {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, bool>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn has(&self, id: &str) -> bool {
        self.with(|all| all.contains_key(id))
    }

    /// Notes that `id` did not answer; those that are not there any more are forgotten.
    fn add(&self, id: &str, is_there: impl Fn(&str) -> bool) {
        self.with(|all| {
            all.retain(|id, _| is_there(id));
            all.entry(id.to_owned()).or_insert(false);
        });
    }

    /// Whether the caller is the one to ask.
    fn begin(&self, id: &str) -> bool {
        self.with(|all| all.get_mut(id).is_some_and(|asked| !std::mem::replace(asked, true)))
    }

    /// Notes what came of it.
    fn end(&self, id: &str, has_answered: bool) {
        self.with(|all| {
            if has_answered {
                all.remove(id);
            } else if let Some(asked) = all.get_mut(id) {
                *asked = false;
            }
        });
    }
}

impl Cri {
    /// What the task `id` uses, if it runs and its shim answers.
    pub(super) async fn usage_of(self: &Arc<Self>, round: &Round, id: &str, runs: bool) -> Option<Usage> {
        let task = runs.then(|| self.engine.tasks.get(&self.namespace, id).ok()).flatten()?;
        if self.silent.has(id) {
            if self.silent.begin(id) {
                self.in_background(listen(Arc::downgrade(self), task));
            }
            return None;
        }
        let read = match round.ask(task.stats()).await {
            Heard::Answer(answer) if has_answered(&answer) => answer.and_then(|any| Usage::read(&any)),
            Heard::Answer(_) | Heard::Silence => {
                tracing::debug!(id, "the shim does not tell what its task uses");
                self.silent.add(id, |id| self.engine.tasks.get(&self.namespace, id).is_ok());
                return None;
            }
            Heard::Nothing => return None,
        };
        read.inspect_err(|error| tracing::debug!(id, %error, "cannot learn what a task uses")).ok()
    }
}

/// Asks a shim that was silent once more.
async fn listen(cri: Weak<Cri>, task: Arc<dyn Task>) {
    let answer = timeout(PATIENCE, task.stats()).await;
    let Some(cri) = cri.upgrade() else { return };
    cri.silent.end(task.id(), answer.is_ok_and(|answer| has_answered(&answer)));
}

/// Whether this is the shim's word, and not that there was none.
fn has_answered<T>(answer: &Result<T>) -> bool {
    answer.as_ref().err().is_none_or(|error| error.kind() != Kind::DeadlineExceeded)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_silent_keep_nobody_from_answering_and_end_together() {
        let (round, begun) = (Round::new(), Instant::now());
        let silent = join_all((0..95).map(|_| round.ask(pending::<u32>())));
        let fine = async {
            let answers = join_all((0..30).map(|number| round.ask(ready(number)))).await;
            (answers, begun.elapsed())
        };
        let (silent, (answers, after)) = tokio::join!(silent, fine);
        assert!(silent.iter().all(|heard| *heard == Heard::Silence), "{silent:?}");
        assert_eq!(answers, (0..30).map(Heard::Answer).collect::<Vec<_>>());
        assert!(after < Duration::from_millis(600), "{after:?}");
        assert_eq!(begun.elapsed(), PATIENCE);
        assert_eq!(round.ask(pending::<u32>()).await, Heard::Nothing);
    }

    #[test]
    fn who_is_silent_is_asked_by_one_at_a_time_until_it_answers() {
        let silent = Silent::default();
        silent.add("gone", |_| true);
        silent.add("a", |id| id != "gone");
        assert!(silent.has("a") && !silent.has("gone"));
        assert!(silent.begin("a") && !silent.begin("a") && !silent.begin("b"));
        silent.end("a", false);
        assert!(silent.has("a") && silent.begin("a"));
        silent.end("a", true);
        assert!(!silent.has("a"));
    }
}
