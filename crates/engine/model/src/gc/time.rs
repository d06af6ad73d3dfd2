//! Times and durations as Go programs write them into labels.

use std::time::{Duration, SystemTime};

/// The time that an RFC 3339 text names, in whatever offset from UTC; nothing for another text or a year before 1970.
pub fn rfc3339(text: &str) -> Option<SystemTime> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|c| c.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !marks.iter().all(|(at, mark)| bytes.get(*at).is_some_and(|c| c.eq_ignore_ascii_case(mark))) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || day == 0 || day > days_in(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (nanos, zone) = fraction(text.get(19..)?)?;
    let local = days_before(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
    let utc = i64::try_from(local).ok()? - offset(zone)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(u64::try_from(utc).ok()?, nanos))
}

/// Splits `.123Z` into nanoseconds and `Z`.
fn fraction(text: &str) -> Option<(u32, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    if end == 0 {
        return None;
    }
    let digits = &rest[..end.min(9)];
    Some((format!("{digits:0<9}").parse().ok()?, &rest[end..]))
}

/// Seconds east of UTC of `Z` or `+hh:mm`.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes): (u8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours <= 23 && minutes <= 59).then(|| sign * (i64::from(hours) * 3600 + i64::from(minutes) * 60))
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date.
fn days_before(year: u64, month: u64, day: u64) -> Option<u64> {
    let years = year.checked_sub(1970)?;
    // Leap days of the years 1970 to year - 1.
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let days = years * 365 + leap_days(year - 1) - leap_days(1969);
    Some(days + (1..month).map(|month| days_in(year, month)).sum::<u64>() + day - 1)
}

/// The duration that Go's `time.Duration` prints: `1h30m`, `1.5s`, `300ms`. Nothing for a negative or another text.
pub(super) fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let end = unit.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit.len());
        let seconds = match &unit[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(value * seconds).ok()?)?;
        rest = &unit[end..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        rfc3339(text).map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn times_are_read_in_any_zone() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-08-22T10:11:12.5Z", 1_787_393_472),
            ("2026-08-22T12:11:12+02:00", 1_787_393_472),
            ("2026-08-22T02:41:12-07:30", 1_787_393_472),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "2026-08-22",
            "2026-08-22T10:11:12",
            "2026-13-22T10:11:12Z",
            "2026-02-29T10:11:12Z",
            "2026-08-22T24:11:12Z",
            "2026-08-22T10:11:12.Z",
            "2026-08-22T10:11:12+0200",
            "1969-12-31T23:59:59Z",
            "2026-08-22T10:11:1éZ",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_gos() {
        for (text, millis) in [("1h30m", 5_400_000), ("1.5s", 1500), ("300ms", 300), ("0", 0)] {
            assert_eq!(go_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "-1s", "1d", "s", "1..5s", "99999999999999999999h"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }
}
