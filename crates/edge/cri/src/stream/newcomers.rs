//! Connections that have shown no token yet: few, and no address keeps out the others.
//!
//! Pure: `T` is what ends a connection.

use std::collections::HashMap;
use std::net::IpAddr;

/// How many connections may be without a token.
pub const MAX_NEWCOMERS: usize = 128;

/// Names a connection for as long as it has shown no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(u64);

/// Connections without a token, the oldest first.
#[derive(Debug)]
pub struct Newcomers<T> {
    waiting: Vec<(Number, IpAddr, T)>,
    next: u64,
}

impl<T> Default for Newcomers<T> {
    fn default() -> Self {
        Self { waiting: Vec::new(), next: 0 }
    }
}

impl<T> Newcomers<T> {
    /// Takes a connection in that comes from `peer` and that `begin` begins. When there are too many, the oldest of the
    /// address that has most of them is returned: whoever has a token shows it with the first packet.
    #[must_use = "what is returned must be ended"]
    pub fn add(&mut self, peer: IpAddr, begin: impl FnOnce(Number) -> T) -> Option<T> {
        let evicted = if self.waiting.len() < MAX_NEWCOMERS { None } else { self.evict() };
        let number = Number(self.next);
        self.next += 1;
        self.waiting.push((number, peer, begin(number)));
        evicted
    }

    /// A connection has shown a token, or ended; says whether it was not evicted before.
    pub fn remove(&mut self, number: Number) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|(known, ..)| *known != number);
        self.waiting.len() < before
    }

    fn evict(&mut self) -> Option<T> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for (_, peer, _) in &self.waiting {
            *counts.entry(*peer).or_default() += 1;
        }
        let most = counts.values().max().copied()?;
        let oldest = self.waiting.iter().position(|(_, peer, _)| counts.get(peer) == Some(&most))?;
        Some(self.waiting.remove(oldest).2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn oldest_of_the_busiest_address_gives_way() {
        let mut newcomers = Newcomers::default();
        assert_eq!(newcomers.add(address(1), |_| 0), None);
        for name in 1..MAX_NEWCOMERS {
            assert_eq!(newcomers.add(address(2), |_| name), None);
        }
        for evicted in 1..500 {
            assert_eq!(newcomers.add(address(2), |_| evicted + MAX_NEWCOMERS - 1), Some(evicted));
        }
        assert_eq!(newcomers.waiting.len(), MAX_NEWCOMERS);
        assert_eq!(newcomers.waiting[0].2, 0, "the other address keeps its connection");
    }

    #[test]
    fn who_has_shown_a_token_is_not_evicted_and_makes_room() {
        let mut newcomers = Newcomers::default();
        let mut numbers = Vec::new();
        for name in 0..MAX_NEWCOMERS {
            let evicted = newcomers.add(address(1), |number| {
                numbers.push(number);
                name
            });
            assert_eq!(evicted, None);
        }
        assert!(newcomers.remove(numbers[0]) && !newcomers.remove(numbers[0]));
        assert_eq!(newcomers.add(address(1), |_| 1000), None);
        assert_eq!(newcomers.add(address(1), |_| 1001), Some(1));
        assert!(!newcomers.remove(numbers[1]), "it was evicted");
    }
}
