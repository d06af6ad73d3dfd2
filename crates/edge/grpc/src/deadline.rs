//! A client's deadline on the server's side: a request that has not been answered by then is answered for.
//!
//! tonic does that too, but says `Cancelled`; Go's servers say `DeadlineExceeded`, and clients tell the two apart. This
//! stands inside of tonic's and is never later.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// What Go's servers say.
const EXPIRED: &str = "context deadline exceeded";

/// Answers `DeadlineExceeded` once a request's `grpc-timeout` has passed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadline;

impl<S> Layer<S> for Deadline {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded(inner)
    }
}

/// A service whose answers come in time.
#[derive(Clone, Debug)]
pub struct Bounded<S>(S);

impl<S, B> Service<http::Request<B>> for Bounded<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let header = request.headers().get("grpc-timeout").and_then(|text| text.to_str().ok());
        let end = header.and_then(left).and_then(|left| Instant::now().checked_add(left));
        let work = self.0.call(request);
        match end {
            Some(end) => Box::pin(until(end, work)),
            None => Box::pin(work),
        }
    }
}

async fn until<T>(end: Instant, work: T) -> T::Output
where
    T: Future<Output = Result<http::Response<Body>, Infallible>>,
{
    let (mut work, mut alarm) = (pin!(work), pin!(tokio::time::sleep_until(end.into())));
    poll_fn(|cx| {
        let done = work.as_mut().poll(cx);
        if done.is_ready() {
            return done;
        }
        // The clock is asked too: tonic's alarm, which is not earlier than this one, may have rung first.
        if alarm.as_mut().poll(cx).is_ready() || Instant::now() >= end {
            return Poll::Ready(Ok(Status::deadline_exceeded(EXPIRED).into_http()));
        }
        Poll::Pending
    })
    .await
}

/// What a `grpc-timeout` header allows: digits and a unit.
pub fn left(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok()?;
    // A hundred years are as good as none, and fit an Instant.
    let seconds = |seconds: u64| Duration::from_secs(count.saturating_mul(seconds).min(3_000_000_000));
    match unit {
        "H" => Some(seconds(3600)),
        "M" => Some(seconds(60)),
        "S" => Some(seconds(1)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_header_has_units() {
        for (text, expected) in [
            ("5S", Some(Duration::from_secs(5))),
            ("20m", Some(Duration::from_millis(20))),
            ("99999999H", Some(Duration::from_secs(3_000_000_000))),
            ("S", None),
            ("5x", None),
        ] {
            assert_eq!(left(text), expected, "{text}");
        }
    }

    /// The status that a service of `work` answers a request with that `timeout`.
    async fn status(
        timeout: &str,
        work: impl Future<Output = ()> + Clone + Send + 'static,
    ) -> Option<(String, String)> {
        let service = tower::service_fn(move |_: http::Request<()>| {
            let work = work.clone();
            async move {
                work.await;
                Ok::<_, Infallible>(http::Response::new(Body::empty()))
            }
        });
        let request = http::Request::builder().header("grpc-timeout", timeout).body(()).unwrap();
        let answer = Deadline.layer(service).call(request).await.unwrap();
        let header = |name: &str| Some(answer.headers().get(name)?.to_str().unwrap().to_owned());
        Some((header("grpc-status")?, header("grpc-message")?))
    }

    #[tokio::test]
    async fn a_late_answer_is_told_as_go_tells_it() {
        let expected = ("4".to_owned(), "context%20deadline%20exceeded".to_owned());
        for timeout in ["1m", "1n"] {
            assert_eq!(status(timeout, std::future::pending()).await, Some(expected.clone()), "{timeout}");
        }
        assert_eq!(status("1n", std::future::ready(())).await, None, "what is done is done");
    }
}
