//! What comes back: a head, a body piece by piece with a bound on every wait, and what a registry says is wrong.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::address::shown;
use super::{RequestError, Traffic};

/// How much of an error's body is read.
const MAX_COMPLAINT: u64 = 64 << 10;

/// The head of an answer, with its body still to come.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub url: Uri,
    pub method: Method,
    body: Incoming,
    idle: Duration,
    traffic: Arc<Traffic>,
}

impl Answer {
    /// What came of a request of `method` to `url`; between two pieces of its body may be `idle`.
    pub fn new(
        response: http::Response<Incoming>,
        method: Method,
        url: Uri,
        idle: Duration,
        traffic: Arc<Traffic>,
    ) -> Self {
        let (head, body) = response.into_parts();
        Self { status: head.status, headers: head.headers, url, method, body, idle, traffic }
    }

    /// The next piece of the body; `None` at its end.
    pub async fn piece(&mut self) -> Result<Option<bytes::Bytes>, RequestError> {
        loop {
            let waiting = self.traffic.wait();
            let frame = timeout(self.idle, self.body.frame()).await.map_err(|_| RequestError::Timeout {
                method: self.method.to_string(),
                url: shown(&self.url),
                what: "further byte",
                after: self.idle,
            })?;
            waiting.over();
            match frame {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(RequestError::Broken {
                        method: self.method.to_string(),
                        url: shown(&self.url),
                        source: error.into(),
                    });
                }
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }

    /// The whole body, which must not be longer than `limit`.
    pub async fn whole(mut self, limit: u64) -> Result<Vec<u8>, RequestError> {
        let mut whole = Vec::new();
        while let Some(piece) = self.piece().await? {
            if (whole.len() + piece.len()) as u64 > limit {
                return Err(RequestError::Long { url: shown(&self.url), limit });
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }

    /// Reads what little is left of the body, so that the connection can serve again.
    pub async fn discard(mut self) {
        let mut left = MAX_COMPLAINT;
        while let Ok(Ok(Some(piece))) = timeout(Duration::from_secs(2), self.piece()).await {
            left = left.saturating_sub(piece.len() as u64);
            if left == 0 {
                return;
            }
        }
    }

    /// A header field as text.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The length that the head announces.
    pub fn length(&self) -> Option<u64> {
        self.field("content-length").and_then(|text| text.parse().ok())
    }

    /// The error that an answer of another status than 2xx is.
    pub async fn complaint(self) -> RequestError {
        let (method, url, status) = (self.method.to_string(), shown(&self.url), self.status);
        let retry_after = self.field(RETRY_AFTER.as_str()).and_then(pause);
        let body = self.whole(MAX_COMPLAINT).await.unwrap_or_default();
        RequestError::Status { method, url, status, message: message(&body), retry_after }
    }
}

/// What a registry's JSON error says, behind a colon.
fn message(body: &[u8]) -> String {
    let Ok(Value::Object(document)) = spec::json::first_from_slice(body) else { return String::new() };
    let text = |object: &Map<String, Value>, name| match spec::json::field(object, name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let errors = spec::json::field(&document, "errors").and_then(Value::as_array);
    let errors = errors.into_iter().flatten().filter_map(Value::as_object);
    let mut said: Vec<String> = errors
        .take(3)
        .filter_map(|error| {
            let (code, words) = (text(error, "code"), text(error, "message"));
            match (code, words) {
                (Some(code), Some(words)) => Some(format!("{}: {words}", code.to_lowercase())),
                (one, other) => one.or(other),
            }
        })
        .collect();
    said.extend(text(&document, "details").or_else(|| text(&document, "message")));
    // A hostile registry's words end up in logs and on terminals.
    let said = said.join("; ").chars().filter(|c| !c.is_control()).take(512).collect::<String>();
    if said.is_empty() { said } else { format!(": server message: {said}") }
}

/// `Retry-After`: seconds, or a date.
fn pause(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate(text)?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// The preferred form of RFC 9110: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn httpdate(text: &str) -> Option<SystemTime> {
    let mut words = text.split_ascii_whitespace().skip(1);
    let (day, month, year, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == month)? + 1;
    let day: u8 = day.parse().ok()?;
    humantime::parse_rfc3339(&format!("{year}-{month:02}-{day:02}T{time}Z")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_seconds_or_a_date() {
        assert_eq!(pause("7"), Some(Duration::from_secs(7)));
        assert_eq!(pause("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(pause("soon"), None);
    }

    #[test]
    fn a_registrys_words_are_kept_short_and_clean() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no \u001b[31mentry"}]}"#;
        assert_eq!(message(body), ": server message: denied: no [31mentry");
        let odd = br#"{"Errors":[{"code":401,"Message":"no","detail":null},null]} "#;
        assert_eq!(message(odd), ": server message: 401: no");
        assert_eq!(message(b"<html>"), "");
    }
}
