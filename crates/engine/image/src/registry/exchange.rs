//! One request up to the head of its answer: credentials, redirects, the doubt about the scheme, and a bound on every wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{AUTHORIZATION, LOCATION, PROXY_AUTHORIZATION, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use spec::Reference;
use tokio::time::timeout;
use tracing::debug;

use super::address::{encoded, join, shown};
use super::answer::Answer;
use super::auth::{Keyring, Scope};
use super::connect::{self, Plain, Secure};
use super::endpoint::Capabilities;
use super::endpoint::{Doubt, Endpoint};
use super::upload::Payload;
use super::{Config, Limits, Log, RequestError, Tls, Traffic};

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 10;
/// Who we are.
const AGENT: &str = spec::version::USER_AGENT;

/// An endpoint with its connections and what it has told us.
pub(super) struct Session {
    endpoint: Endpoint,
    keyring: Keyring,
    plain: OnceLock<Plain>,
    secure: OnceLock<Secure>,
    /// Whether the scheme proved to be the other one.
    other_scheme: AtomicBool,
    /// Whether an answer has come, which ends the doubt.
    answered: AtomicBool,
    limits: Limits,
    log: Option<Log>,
    traffic: Arc<Traffic>,
}

/// A request to be made, as often as it takes.
pub(super) struct Call {
    pub method: Method,
    /// Below the API's root, with a leading slash; or, with `absolute`, everything.
    pub target: String,
    pub absolute: bool,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub payload: Payload,
    pub scope: Scope,
}

impl Call {
    pub fn new(method: Method, target: impl Into<String>, scope: Scope) -> Self {
        Self {
            method,
            target: target.into(),
            absolute: false,
            headers: Vec::new(),
            payload: Payload::Empty,
            scope,
        }
    }

    /// The target is a whole address.
    pub fn absolutely(mut self) -> Self {
        self.absolute = true;
        self
    }

    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    pub fn payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }
}

impl Session {
    pub fn open(endpoint: Endpoint, reference: &Reference, config: &Config) -> Result<Self, RequestError> {
        let keyring = Keyring::new(&endpoint, reference, config.credentials.clone());
        let session = Self {
            plain: OnceLock::new(),
            secure: OnceLock::new(),
            other_scheme: AtomicBool::new(endpoint.doubt == Doubt::PlainIfNoTls),
            answered: AtomicBool::new(false),
            limits: config.limits.clone(),
            log: config.log.clone(),
            traffic: Arc::clone(&config.traffic),
            keyring,
            endpoint,
        };
        // Here and not at the first request, because reading certificates blocks.
        if session.scheme() == "https" {
            session.secure()?;
        }
        Ok(session)
    }

    /// The session for addresses that a manifest names: it has no credentials and sends no field of ours.
    pub fn for_strangers(reference: &Reference, config: &Config) -> Result<Self, RequestError> {
        let endpoint = Endpoint {
            scheme: "http".into(),
            host: String::new(),
            path: String::new(),
            capabilities: Capabilities { pull: true, ..Capabilities::NONE },
            tls: Tls::default(),
            headers: Vec::new(),
            dial_timeout: None,
            doubt: Doubt::None,
            namespace: None,
        };
        let config = Config { credentials: Arc::new(super::Nobody), ..config.clone() };
        Self::open(endpoint, reference, &config)
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Writes a line for whoever reads along.
    pub fn say(&self, line: impl FnOnce() -> String) {
        if let Some(log) = &self.log {
            log(line());
        }
    }

    /// Whether it is the one for [`Session::for_strangers`].
    fn is_stranger(&self) -> bool {
        self.endpoint.host.is_empty()
    }

    fn scheme(&self) -> &str {
        match (self.other_scheme.load(Ordering::Relaxed), self.endpoint.scheme.as_str()) {
            (false, scheme) => scheme,
            (true, "http") => "https",
            (true, _) => "http",
        }
    }

    fn dial_timeout(&self) -> Duration {
        self.endpoint.dial_timeout.unwrap_or(self.limits.connect)
    }

    fn plain(&self) -> &Plain {
        self.plain.get_or_init(|| connect::plain(self.dial_timeout()))
    }

    fn secure(&self) -> Result<&Secure, RequestError> {
        if self.secure.get().is_none() {
            let client = connect::secure(self.dial_timeout(), &self.endpoint.tls)?;
            let _ = self.secure.set(client);
        }
        self.secure.get().ok_or(RequestError::Address(self.endpoint.host.clone()))
    }

    /// Makes `call`: an answer of 2xx, or an error.
    pub async fn send(&self, call: &Call) -> Result<Answer, RequestError> {
        let answer = self.ask(call).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(answer.complaint().await) }
    }

    /// Makes `call`: whatever answer comes once credentials are settled.
    pub async fn ask(&self, call: &Call) -> Result<Answer, RequestError> {
        let mut known = self.keyring.authorization(&call.scope).await;
        for _ in 0..3 {
            let answer = match self.follow(call, known.as_ref()).await {
                Err(error) if self.doubts(&error) => self.follow(call, known.as_ref()).await?,
                answer => answer?,
            };
            if self.speaks_tls(&answer) {
                continue;
            }
            self.answered.store(true, Ordering::Relaxed);
            if answer.status != StatusCode::UNAUTHORIZED || self.is_stranger() || !self.owns(&answer.url) {
                return Ok(answer);
            }
            let fields = answer.headers.get_all(WWW_AUTHENTICATE).iter();
            let fields: Vec<String> =
                fields.filter_map(|field| field.to_str().ok()).map(str::to_owned).collect();
            answer.discard().await;
            known = Some(self.keyring.settle(self, &fields, &call.scope, known.as_ref()).await?);
        }
        Err(RequestError::Denied {
            host: self.endpoint.host.clone(),
            what: "the credentials are refused".into(),
        })
    }

    /// Asks a token service: its answer as it is. No redirect is followed, because the call holds a password.
    pub async fn ask_token_service(&self, call: &Call) -> Result<Answer, RequestError> {
        let url = self.url(call)?;
        self.exchange(call, &url, None, false).await
    }

    /// Makes the request and follows redirects; what is ours goes to our own origin only.
    async fn follow(&self, call: &Call, auth: Option<&HeaderValue>) -> Result<Answer, RequestError> {
        let mut url = self.url(call)?;
        for _ in 0..MAX_REDIRECTS {
            let own = self.owns(&url);
            let answer = self.exchange(call, &url, auth.filter(|_| own), own).await?;
            let moved = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
            let Some(location) = answer.headers.get(LOCATION).filter(|_| moved) else { return Ok(answer) };
            let location = location.to_str().map_err(|_| RequestError::Address("redirect".into()))?;
            url = join(&url, location)?;
            debug!(url = %shown(&url), "following a redirect");
            answer.discard().await;
        }
        Err(RequestError::Answer { url: shown(&url), what: format!("more than {MAX_REDIRECTS} redirects") })
    }

    fn url(&self, call: &Call) -> Result<Uri, RequestError> {
        if call.absolute {
            return call.target.parse().map_err(|_| RequestError::Address(call.target.clone()));
        }
        let mut text =
            format!("{}://{}{}{}", self.scheme(), self.endpoint.host, self.endpoint.path, call.target);
        if let Some(namespace) = &self.endpoint.namespace {
            let mark = if text.contains('?') { '&' } else { '?' };
            text.push_str(&format!("{mark}ns={}", encoded(namespace)));
        }
        text.parse().map_err(|_| RequestError::Address(text))
    }

    /// Whether `url` is at our endpoint's own origin: the only place for credentials and configured fields.
    fn owns(&self, url: &Uri) -> bool {
        url.scheme_str() == Some(self.scheme())
            && url.authority().is_some_and(|authority| authority.as_str() == self.endpoint.host)
    }

    async fn exchange(
        &self,
        call: &Call,
        url: &Uri,
        auth: Option<&HeaderValue>,
        own: bool,
    ) -> Result<Answer, RequestError> {
        let mut request = http::Request::builder().method(call.method.clone()).uri(url.clone());
        if let Some(headers) = request.headers_mut() {
            headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
            for (name, value) in self.endpoint.headers.iter().filter(|_| own) {
                if let (Ok(name), Ok(value)) =
                    (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
                {
                    headers.append(name, value);
                }
            }
            for (name, value) in &call.headers {
                headers.insert(name.clone(), value.clone());
            }
            if let Some(auth) = auth {
                headers.insert(AUTHORIZATION, auth.clone());
            }
            if let Some(value) = connect::proxy_authorization(url) {
                headers.insert(PROXY_AUTHORIZATION, value);
            }
        }
        let request = request.body(call.payload.body()).map_err(|_| RequestError::Address(shown(url)))?;
        let (method, answer_limit) = (call.method.clone(), call.payload.patience(&self.limits));
        debug!(host = self.endpoint.host, %method, url = %shown(url), "do request");
        let host = &self.endpoint.host;
        self.say(|| format!("do request host={host} request.method={method} url={}", shown(url)));
        let answer = async {
            match url.scheme_str() {
                Some("https") => Ok(self.secure()?.request(request).await),
                Some("http") => Ok(self.plain().request(request).await),
                _ => Err(RequestError::Address(shown(url))),
            }
        };
        let waiting = self.traffic.wait();
        let answer = timeout(answer_limit, answer).await.map_err(|_| RequestError::Timeout {
            method: method.to_string(),
            url: shown(url),
            what: "answer",
            after: answer_limit,
        })??;
        let answer = answer.map_err(|error| failed(error, &method, url))?;
        waiting.over();
        let status = answer.status();
        debug!(host = self.endpoint.host, %status, url = %shown(url), "fetch response received");
        self.say(|| {
            format!("fetch response received host={host} response.status=\"{status}\" url={}", shown(url))
        });
        Ok(Answer::new(answer, method, url.clone(), self.limits.idle, Arc::clone(&self.traffic)))
    }

    /// Whether `error` says that a doubtful endpoint speaks the other scheme, which counts from now on.
    fn doubts(&self, error: &RequestError) -> bool {
        let (RequestError::Connect { source, .. } | RequestError::Broken { source, .. }) = error else {
            return false;
        };
        if self.endpoint.doubt == Doubt::None || self.answered.load(Ordering::Relaxed) {
            return false;
        }
        let fits = if self.scheme() == "https" {
            is_no_tls(source.as_ref())
        } else {
            // A TLS peer answers a plain request with an alert, which is no HTTP.
            self.endpoint.doubt == Doubt::TlsIfNotPlain && matches!(error, RequestError::Broken { .. })
        };
        fits && self.switch()
    }

    /// Whether a doubtful endpoint's answer says that it wants TLS.
    fn speaks_tls(&self, answer: &Answer) -> bool {
        // Go's and nginx's words for "plain HTTP to a TLS port" come with this status, before any route is looked up.
        self.endpoint.doubt == Doubt::TlsIfNotPlain
            && !self.answered.load(Ordering::Relaxed)
            && self.scheme() == "http"
            && answer.status == StatusCode::BAD_REQUEST
            && answer.headers.get("docker-distribution-api-version").is_none()
            && self.switch()
    }

    fn switch(&self) -> bool {
        self.other_scheme.fetch_xor(true, Ordering::Relaxed);
        self.scheme() == "http" || self.secure().is_ok()
    }
}

fn failed(error: hyper_util::client::legacy::Error, method: &Method, url: &Uri) -> RequestError {
    let (method, url) = (method.to_string(), shown(url));
    if error.is_connect() {
        RequestError::Connect { method, url, source: error.into() }
    } else {
        RequestError::Broken { method, url, source: error.into() }
    }
}

/// Whether a handshake failed because the peer does not speak TLS at all.
fn is_no_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};

    if let Some(rustls::Error::InvalidMessage(_)) = error.downcast_ref() {
        return true;
    }
    // An I/O error hides what it wraps from `source`, which gives the cause of what is wrapped.
    let io = error.downcast_ref::<std::io::Error>();
    let wrapped = io.and_then(|io| io.get_ref());
    io.is_some_and(|io| matches!(io.kind(), UnexpectedEof | ConnectionReset))
        || wrapped.is_some_and(|wrapped| is_no_tls(wrapped))
        || error.source().is_some_and(is_no_tls)
}
