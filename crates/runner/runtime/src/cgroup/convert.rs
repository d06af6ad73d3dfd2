//! Values of cgroup v1, in which the specification speaks, turned into those of v2.

/// CPU shares (2 to 262144, default 1024) as a weight (1 to 10000, default 100).
///
/// The curve of runc 1.5 and crun: it maps both defaults onto each other, which a straight line does not.
pub fn cpu_weight(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

/// A block I/O weight (10 to 1000) as an I/O weight (1 to 10000).
pub fn io_weight(weight: u16) -> u64 {
    match u64::from(weight) {
        0 => 0,
        weight => 1 + weight.saturating_sub(10) * 9999 / 990,
    }
}

/// The limit of memory and swap together as one of swap alone; `None` leaves it as it is. -1 is unlimited.
///
/// # Errors
///
/// In words for the user, if the two limits cannot both hold.
pub fn swap(memory_and_swap: i64, memory: i64) -> Result<Option<i64>, &'static str> {
    match (memory_and_swap, memory) {
        (0, -1) => Ok(Some(-1)),
        (0, _) => Ok(None),
        (-1, _) => Ok(Some(-1)),
        (swap, -1) => Ok(Some(swap)),
        (_, 0) => Err("unable to set swap limit without memory limit"),
        (_, memory) if memory < 0 => Err("invalid memory value"),
        (swap, memory) if swap < memory => Err("memory+swap limit should be >= memory limit"),
        (swap, memory) => Ok(Some(swap - memory)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_shares_are_the_default_weight() {
        assert_eq!(cpu_weight(1024), 100);
        assert_eq!((cpu_weight(2), cpu_weight(262_144), cpu_weight(512)), (1, 10_000, 59));
    }

    #[test]
    fn the_ends_of_the_block_weight_are_the_ends_of_the_io_weight() {
        assert_eq!((io_weight(10), io_weight(1000), io_weight(0)), (1, 10_000, 0));
    }

    #[test]
    fn swap_alone_is_what_remains() {
        assert_eq!(swap(300, 100), Ok(Some(200)));
        assert_eq!(swap(100, 100), Ok(Some(0)));
        assert_eq!(swap(0, 100), Ok(None));
        assert_eq!(swap(0, -1), Ok(Some(-1)));
        assert_eq!(swap(-1, 100), Ok(Some(-1)));
        assert!(swap(50, 100).is_err());
        assert!(swap(50, 0).is_err());
    }
}
