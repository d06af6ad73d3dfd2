//! Bytes, rates and times in the words of containerd's clients.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const UNITS: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// `67.3 MiB`, with one digit behind the point.
pub fn bytes(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `5.3 MiB/s`.
pub fn rate(count: u64, elapsed: Duration) -> String {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "one digit is shown"
    )]
    let per_second = (count as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
    format!("{}/s", bytes(per_second))
}

/// The `total:` of a pull's last line: the number right-aligned, the unit cut to its first letter (`67.3 M`).
pub fn short_total(count: u64) -> String {
    let text: String = bytes(count).chars().take(6).collect();
    format!("{text:>7}")
}

/// How long ago, in Docker's words: `2 minutes`.
pub fn ago(since: SystemTime) -> String {
    let seconds = SystemTime::now().duration_since(since).unwrap_or_default().as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// `64.2ms`, `1.88s`, `1m2s`: Go's way of printing a duration, with three digits.
pub fn duration(elapsed: Duration) -> String {
    let nanos = elapsed.as_nanos();
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", trimmed(elapsed.as_secs_f64() * 1e6)),
        1_000_000..1_000_000_000 => format!("{}ms", trimmed(elapsed.as_secs_f64() * 1e3)),
        _ => {
            let (minutes, seconds) = (elapsed.as_secs() / 60, elapsed.as_secs_f64() % 60.0);
            let seconds = format!("{}s", trimmed(seconds));
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A protobuf timestamp as a system time; before 1970 is 1970.
pub fn time(timestamp: Option<api::Timestamp>) -> SystemTime {
    let Some(timestamp) = timestamp else { return UNIX_EPOCH };
    // The last second that RFC 3339 can name.
    const LAST_SECOND: u64 = 253_402_300_799;
    let seconds = u64::try_from(timestamp.seconds).unwrap_or(0).min(LAST_SECOND);
    let nanos = u32::try_from(timestamp.nanos).unwrap_or(0).min(999_999_999);
    UNIX_EPOCH + Duration::new(seconds, nanos)
}

/// RFC 3339 with the fraction that is needed, in UTC, as Go prints a time in JSON.
pub fn rfc3339(timestamp: Option<api::Timestamp>) -> String {
    let Some(timestamp) = timestamp else { return "0001-01-01T00:00:00Z".into() };
    let text = humantime::format_rfc3339_nanos(time(Some(timestamp))).to_string();
    match text.strip_suffix('Z').and_then(|text| text.split_once('.')) {
        Some((seconds, fraction)) => match fraction.trim_end_matches('0') {
            "" => format!("{seconds}Z"),
            fraction => format!("{seconds}.{fraction}Z"),
        },
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_digit() {
        assert_eq!(bytes(0), "0.0 B");
        assert_eq!(bytes(1023), "1023.0 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(70_569_165), "67.3 MiB");
        assert_eq!(short_total(70_569_165), " 67.3 M");
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration(Duration::from_micros(64_200)), "64.2ms");
        assert_eq!(duration(Duration::from_millis(1880)), "1.88s");
        assert_eq!(duration(Duration::from_secs(62)), "1m2s");
    }

    #[test]
    fn json_times_are_gos() {
        let timestamp = api::Timestamp { seconds: 1_700_000_000, nanos: 120_000_000 };
        assert_eq!(rfc3339(Some(timestamp)), "2023-11-14T22:13:20.12Z");
    }

    #[test]
    fn timestamp_of_any_size_is_printed() {
        let far = |seconds, nanos| rfc3339(Some(api::Timestamp { seconds, nanos }));
        assert_eq!(far(i64::MAX, i32::MAX), "9999-12-31T23:59:59.999999999Z");
        assert_eq!(far(i64::MIN, i32::MIN), "1970-01-01T00:00:00Z");
    }
}
