//! The daemon's log on standard error, in containerd's forms: `time=... level=... msg=...` or one JSON object a line.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Layer as _, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `time="..." level=info msg="..." key=value`
    #[default]
    Text,
    /// `{"level":"info","msg":"...","time":"...","key":"value"}`
    Json,
}

/// The filter for a level's name in containerd's words; `None` for one that it does not have.
pub fn level(name: &str) -> Option<LevelFilter> {
    Some(match name {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "" | "info" => LevelFilter::INFO,
        "warn" | "warning" => LevelFilter::WARN,
        "error" | "fatal" | "panic" => LevelFilter::ERROR,
        _ => return None,
    })
}

/// Writes events of `level` and above from now on; a second call changes nothing.
pub fn start(level: LevelFilter, format: Format) {
    // The HTTP libraries tell every frame at debug; that is for `trace` only.
    let others = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::INFO) };
    let quiet = ["h2", "hyper", "hyper_util", "rustls", "tonic", "tower"];
    let targets = Targets::new().with_default(level).with_targets(quiet.map(|name| (name, others)));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .event_format(Lines(format))
        .with_filter(targets);
    let subscriber = tracing_subscriber::registry().with(lines);
    // Tests start several daemons in one process; the first one's log serves all.
    let _already = tracing::subscriber::set_global_default(subscriber);
}

struct Lines(Format);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = word(*event.metadata().level());
        let time = time(std::time::SystemTime::now());
        let line = match self.0 {
            Format::Text => text(&time, level, &fields),
            Format::Json => json(&time, level, &fields),
        };
        writeln!(writer, "{line}")
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warning",
        Level::ERROR => "error",
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(&'static str, String)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            name => self.rest.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }
}

fn text(time: &str, level: &str, fields: &Fields) -> String {
    let mut line = format!("time=\"{time}\" level={level} msg={}", quoted(&fields.message, true));
    for (name, value) in &fields.rest {
        // Writing to a String cannot fail.
        let _ = write!(line, " {name}={}", quoted(value, false));
    }
    line
}

/// The value in quotes when it has anything but plain characters, so that a line stays one line.
fn quoted(value: &str, always: bool) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/@^+:".contains(&byte);
    if !always && !value.is_empty() && value.bytes().all(plain) {
        return value.to_owned();
    }
    format!("\"{}\"", value.escape_debug())
}

fn json(time: &str, level: &str, fields: &Fields) -> String {
    let mut object = serde_json::Map::new();
    for (name, value) in &fields.rest {
        object.insert((*name).into(), value.as_str().into());
    }
    object.insert("level".into(), level.into());
    object.insert("msg".into(), fields.message.as_str().into());
    object.insert("time".into(), time.into());
    serde_json::Value::Object(object).to_string()
}

/// RFC 3339 with nanoseconds, in UTC.
fn time(at: std::time::SystemTime) -> String {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a date by Howard Hinnant's civil_from_days, for days after 1970.
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let nanos = since.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(time(UNIX_EPOCH), "1970-01-01T00:00:00.000000000Z");
        let leap = UNIX_EPOCH + Duration::new(1_709_210_096, 5);
        assert_eq!(time(leap), "2024-02-29T12:34:56.000000005Z");
    }

    #[test]
    fn a_value_cannot_forge_a_line() {
        let fields = Fields {
            message: "a \"b\"\nlevel=info".into(),
            rest: vec![("id", "x".into()), ("e", "y z".into())],
        };
        assert_eq!(
            text("T", "error", &fields),
            r#"time="T" level=error msg="a \"b\"\nlevel=info" id=x e="y z""#
        );
        assert_eq!(
            json("T", "info", &fields),
            r#"{"id":"x","e":"y z","level":"info","msg":"a \"b\"\nlevel=info","time":"T"}"#
        );
    }
}
