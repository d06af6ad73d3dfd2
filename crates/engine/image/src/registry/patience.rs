//! Which endpoint to try next, and when to stop: every endpoint in its order, round after round with growing pauses, until
//! one answers or each has used up its strikes.
//!
//! Invariant: the number of tries is bounded whatever the peers do; only progress renews it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::info;

use super::exchange::Session;
use super::{Limits, RequestError};

/// The endpoints still in the game.
pub(super) struct Patience<'a> {
    peers: Vec<Peer<'a>>,
    limits: &'a Limits,
    next: usize,
    rounds: u32,
    wait: Duration,
    worst: Option<RequestError>,
}

struct Peer<'a> {
    session: &'a Arc<Session>,
    strikes: u32,
}

impl<'a> Patience<'a> {
    pub fn new(sessions: impl Iterator<Item = &'a Arc<Session>>, limits: &'a Limits) -> Self {
        let peers = sessions.map(|session| Peer { session, strikes: 0 }).collect();
        Self { peers, limits, next: 0, rounds: 0, wait: Duration::ZERO, worst: None }
    }

    /// Begins at another endpoint than the first, if there is one.
    pub fn begin_at(&mut self, attempt: usize) {
        let count = self.peers.len().max(1);
        self.peers.rotate_left(attempt % count);
    }

    /// The next endpoint to try; waits first when a new round begins.
    pub async fn next(&mut self) -> Option<&'a Arc<Session>> {
        if self.peers.is_empty() {
            return None;
        }
        if self.next >= self.peers.len() {
            self.next = 0;
            let pause = self.limits.backoff.saturating_mul(1 << self.rounds.min(6));
            sleep(pause.max(self.wait).min(self.limits.longest_pause)).await;
            self.rounds += 1;
            self.wait = Duration::ZERO;
        }
        Some(self.peers[self.next].session)
    }

    /// The endpoint that [`next`](Self::next) gave has failed.
    pub fn failed(&mut self, error: RequestError) {
        let Some(peer) = self.peers.get_mut(self.next) else { return };
        info!(host = peer.session.endpoint().host, "trying again or elsewhere: {error}");
        peer.strikes += error.strikes().unwrap_or(u32::MAX / 2);
        if peer.strikes > self.limits.retries {
            self.peers.remove(self.next);
        } else {
            self.next += 1;
        }
        if let Some(wait) = error.retry_after() {
            self.wait = self.wait.max(wait);
        }
        if self.worst.as_ref().is_none_or(|worst| error.weight() >= worst.weight()) {
            self.worst = Some(error);
        }
    }

    /// Something came before the failure: whoever is still in the game starts anew.
    pub fn renew(&mut self) {
        self.rounds = 0;
        self.peers.iter_mut().for_each(|peer| peer.strikes = 0);
    }

    /// The error to report when nobody is left.
    pub fn give_up(self, verb: &'static str) -> RequestError {
        self.worst.unwrap_or(RequestError::NoEndpoint(verb))
    }
}
