//! Inputs from other inputs.

use std::time::{SystemTime, UNIX_EPOCH};

/// A random number generator that repeats for a seed.
pub struct Random(u64);

impl Random {
    /// Begins the series of `seed`.
    pub fn new(seed: u64) -> Self {
        // Zero is the one state that the generator never leaves.
        Self(seed ^ 0x9e37_79b9_7f4a_7c15 | 1)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`; zero for a bound of zero.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }
}

/// A seed from the clock.
pub fn seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64)
}

/// Bytes that parsers trip over.
const AWKWARD: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\n",
    b"\"",
    b"\\",
    b"..",
    "/".as_bytes(),
    b"../",
    b"0",
    b"-1",
    b"18446744073709551615",
    b"9223372036854775808",
    b"1e999",
    b"{",
    b"[",
    b"]",
    b"}",
    b",",
    b"=",
    b"==",
    b"~=",
    b"|",
    b"labels.",
    b"sha256:",
    b".wh.",
    b".wh..wh..opq",
    b"\xef\xbb\xbf",
    "\u{202e}".as_bytes(),
    b"null",
    b"true",
    b"ustar\0",
    b"path=",
];

/// One input made from one or two of the corpus by a few changes.
pub fn one(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus.get(random.below(corpus.len())).cloned().unwrap_or_default();
    for _ in 0..=random.below(6) {
        change(random, corpus, &mut input);
    }
    input
}

fn change(random: &mut Random, corpus: &[Vec<u8>], input: &mut Vec<u8>) {
    let at = random.below(input.len() + 1);
    let longest = 1 << random.below(12);
    let length = random.below(1 + longest.min(input.len() - at));
    match random.below(9) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.next() as u8,
        2 => drop(input.drain(at..at + length)),
        3 => {
            let part = input[at..at + length].to_vec();
            let to = random.below(input.len() + 1);
            drop(input.splice(to..to, part));
        }
        4 => {
            let word = AWKWARD[random.below(AWKWARD.len())];
            drop(input.splice(at..at, word.iter().copied()));
        }
        5 => {
            let word = AWKWARD[random.below(AWKWARD.len())];
            let end = (at + word.len()).min(input.len());
            drop(input.splice(at..end, word.iter().copied()));
        }
        6 => input.truncate(at),
        7 => {
            let other = corpus.get(random.below(corpus.len())).map(Vec::as_slice).unwrap_or_default();
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => {
            // A number in the text becomes another.
            let digit = input.iter().skip(at).position(u8::is_ascii_digit);
            if let Some(digit) = digit {
                input[at + digit] = b'0' + random.below(10) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_series() {
        let corpus = vec![b"labels.a==b,name~=c".to_vec()];
        let series = |seed| {
            let mut random = Random::new(seed);
            (0..50).map(|_| one(&mut random, &corpus)).collect::<Vec<_>>()
        };
        assert_eq!(series(7), series(7));
        assert_ne!(series(7), series(8));
    }
}
