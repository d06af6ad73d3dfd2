//! Tokens: what an RPC has agreed to is fetched once, by a URL that nobody can guess.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::spec::{Error, Kind};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use model::Result;
use ring::rand::{SecureRandom as _, SystemRandom};

/// How long a token can be used.
const LIFE: Duration = Duration::from_secs(60);

/// How many tokens wait at most.
const MAX: usize = 1000;

/// How many random bytes a token has: 8 letters of base64, as containerd's.
const BYTES: usize = 6;

/// Tokens that wait to be used.
#[derive(Debug)]
pub struct Tokens<T>(Mutex<HashMap<String, (Instant, T)>>, SystemRandom);

impl<T> Default for Tokens<T> {
    fn default() -> Self {
        Self(Mutex::default(), SystemRandom::new())
    }
}

impl<T> Tokens<T> {
    /// Makes a token for `request`.
    ///
    /// # Errors
    /// `ResourceExhausted` when too many wait.
    pub fn add(&self, request: T) -> Result<String> {
        self.add_at(request, Instant::now())
    }

    fn add_at(&self, request: T, now: Instant) -> Result<String> {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, (made, _)| now.duration_since(*made) < LIFE);
        if tokens.len() >= MAX {
            let text = "maximum number of in-flight requests exceeded";
            return Err(Error::new(Kind::ResourceExhausted, text));
        }
        loop {
            let mut bytes = [0; BYTES];
            let failed = |_| Error::internal("the system gave no random bytes");
            self.1.fill(&mut bytes).map_err(failed)?;
            let token = BASE64_URL_SAFE_NO_PAD.encode(bytes);
            if !tokens.contains_key(&token) {
                tokens.insert(token.clone(), (now, request));
                return Ok(token);
            }
        }
    }

    /// What `token` stands for; it is of no use afterwards.
    pub fn take(&self, token: &str) -> Option<T> {
        self.take_at(token, Instant::now())
    }

    fn take_at(&self, token: &str, now: Instant) -> Option<T> {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (made, request) = tokens.remove(token)?;
        (now.duration_since(made) < LIFE).then_some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_and_for_a_minute() {
        let tokens = Tokens::default();
        let now = Instant::now();
        let token = tokens.add_at(1, now).unwrap();
        assert_eq!(token.len(), 8);
        assert_eq!(tokens.take_at(&token, now), Some(1));
        assert_eq!(tokens.take_at(&token, now), None);
        let token = tokens.add_at(2, now).unwrap();
        assert_eq!(tokens.take_at(&token, now + LIFE), None);
        assert_eq!(tokens.take_at("AAAAAAAA", now), None);
    }

    #[test]
    fn only_so_many_wait_and_old_ones_make_room() {
        let tokens = Tokens::default();
        let now = Instant::now();
        for number in 0..MAX {
            tokens.add_at(number, now).unwrap();
        }
        assert_eq!(tokens.add_at(0, now).unwrap_err().kind(), Kind::ResourceExhausted);
        tokens.add_at(0, now + LIFE).unwrap();
    }
}
