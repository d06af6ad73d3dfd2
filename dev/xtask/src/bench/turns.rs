//! Turns: whatever else the machine does falls on both sides.

use std::time::Duration;

/// Both sides by turns, the first turn of each uncounted; who goes first alternates too, since the second of two finds
/// caches and clocks as the first has left them.
pub fn alternate<S, T, C: Default + Extend<T>>(
    turns: usize,
    ours: &S,
    theirs: &S,
    one: impl Fn(&S, usize) -> T,
) -> (C, C) {
    let (mut us, mut them) = (C::default(), C::default());
    for turn in 0..=turns {
        let (a, b) = if turn % 2 == 0 {
            let a = one(ours, turn);
            (a, one(theirs, turn))
        } else {
            let b = one(theirs, turn);
            (one(ours, turn), b)
        };
        if turn > 0 {
            us.extend([a]);
            them.extend([b]);
        }
    }
    (us, them)
}

/// A duration in milliseconds.
pub fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

/// KiB in MiB.
pub fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
