//! Points in time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

/// The seconds that a protobuf timestamp may hold: the years 1 to 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// `time` as a message.
pub fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp {
            seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(after.subsec_nanos()).unwrap_or(0),
        },
        // Files and clocks before 1970 exist; a protobuf timestamp counts nanoseconds forward from the second before.
        Err(before) => {
            let before = before.duration();
            let whole = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => Timestamp { seconds: -whole, nanos: 0 },
                nanos => Timestamp {
                    seconds: (-whole).saturating_sub(1),
                    nanos: 1_000_000_000 - i32::try_from(nanos).unwrap_or(0),
                },
            }
        }
    }
}

/// The time that a message says; `None` for one that is absent or out of range.
pub fn time(timestamp: Option<&Timestamp>) -> Option<SystemTime> {
    let timestamp = timestamp.filter(|timestamp| SECONDS.contains(&timestamp.seconds))?;
    let nanos = u32::try_from(timestamp.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    let second = match u64::try_from(timestamp.seconds) {
        Ok(after) => UNIX_EPOCH.checked_add(Duration::from_secs(after))?,
        Err(_) => UNIX_EPOCH.checked_sub(Duration::from_secs(timestamp.seconds.unsigned_abs()))?,
    };
    second.checked_add(Duration::from_nanos(nanos.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_on_both_sides_of_the_epoch() {
        let half = Duration::from_millis(1500);
        for at in [UNIX_EPOCH, UNIX_EPOCH + half, UNIX_EPOCH - half, UNIX_EPOCH - Duration::from_secs(2)] {
            assert_eq!(time(Some(&timestamp(at))), Some(at));
        }
        assert_eq!(time(Some(&Timestamp { seconds: i64::MIN, nanos: 0 })), None);
        assert_eq!(time(Some(&Timestamp { seconds: 0, nanos: -1 })), None);
    }
}
