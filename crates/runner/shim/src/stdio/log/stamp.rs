//! Points in time as a log line begins with them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Length of a stamp.
const LEN: usize = 30;
/// 9999-12-31T23:59:59Z: the last second that four digits of a year can tell.
const LAST_SECOND: u64 = 253_402_300_799;

/// `2026-11-21T10:00:00.000000000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp([u8; LEN]);

impl Stamp {
    /// The stamp of a time; times that the format cannot tell become the nearest one.
    pub fn new(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = since.min(Duration::new(LAST_SECOND, 999_999_999));
        let (year, month, day) = date(since.as_secs() / 86_400);
        let second = since.as_secs() % 86_400;
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        put(&mut text[0..4], year);
        put(&mut text[5..7], month);
        put(&mut text[8..10], day);
        put(&mut text[11..13], second / 3600);
        put(&mut text[14..16], second / 60 % 60);
        put(&mut text[17..19], second % 60);
        put(&mut text[20..29], u64::from(since.subsec_nanos()));
        Self(text)
    }

    /// Its text.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Fills `digits` with `number`, zeros in front.
fn put(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of the day that is `days` after 1970-01-01, by the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that the leap day is the last of its year; 400 years have 146097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_date_says() {
        let check = |second: u64, nanos: u32, expected: &str| {
            let stamp = Stamp::new(UNIX_EPOCH + Duration::new(second, nanos));
            assert_eq!(std::str::from_utf8(stamp.bytes()).unwrap(), expected);
        };
        // date -u -d @SECOND +%FT%T
        check(0, 0, "1970-01-01T00:00:00.000000000Z");
        check(68_255_999, 1, "1972-02-29T23:59:59.000000001Z");
        check(951_782_400, 0, "2000-02-29T00:00:00.000000000Z");
        check(951_868_800, 0, "2000-03-01T00:00:00.000000000Z");
        check(1_795_255_200, 120_000_000, "2026-11-21T10:00:00.120000000Z");
        check(4_107_542_400, 0, "2100-03-01T00:00:00.000000000Z");
        check(LAST_SECOND + 5, 0, "9999-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn stamps_sort_as_their_times_do() {
        let times = [0, 86_399, 86_400, 1_000_000_000, 4_000_000_000].map(Duration::from_secs);
        let stamps = times.map(|since| Stamp::new(UNIX_EPOCH + since));
        assert!(stamps.windows(2).all(|pair| pair[0].bytes() < pair[1].bytes()));
    }
}
