//! One request up to the head of its answer: credentials, redirects, the doubt about the scheme, and a bound on every wait.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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
/// How often a request is made anew for credentials: each host on its way asks once, a token may have run out.
const MAX_CHALLENGES: usize = 5;
/// Most hosts of redirects that tokens are kept for.
const MAX_OTHER_HOSTS: usize = 16;
/// Who we are.
const AGENT: &str = spec::version::USER_AGENT;

/// An endpoint with its connections and what it has told us.
pub(super) struct Session {
    endpoint: Endpoint,
    keyring: Arc<Keyring>,
    /// Of the hosts that redirects led to and that asked for credentials, by origin.
    others: Mutex<BTreeMap<String, Arc<Keyring>>>,
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
        let keyring = Arc::new(Keyring::new(&endpoint, reference, config.credentials.clone()));
        let session = Self {
            others: Mutex::default(),
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
        match session.scheme() {
            "https" => session.secure().map(drop)?,
            _ => session.plain().map(drop)?,
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

    fn plain(&self) -> Result<&Plain, RequestError> {
        if self.plain.get().is_none() {
            let client = connect::plain(self.dial_timeout(), &self.endpoint.tls)?;
            let _ = self.plain.set(client); // another request was first
        }
        self.plain.get().ok_or(RequestError::Address(self.endpoint.host.clone()))
    }

    fn secure(&self) -> Result<&Secure, RequestError> {
        if self.secure.get().is_none() {
            let client = connect::secure(self.dial_timeout(), &self.endpoint.tls)?;
            let _ = self.secure.set(client); // another request was first
        }
        self.secure.get().ok_or(RequestError::Address(self.endpoint.host.clone()))
    }

    /// The credentials of the host of `url`; `None` where none are ever sent.
    fn keyring(&self, url: &Uri) -> Option<Arc<Keyring>> {
        if self.is_stranger() {
            return None;
        }
        if self.owns(url) {
            return Some(Arc::clone(&self.keyring));
        }
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.get(&origin(url)).cloned()
    }

    /// [`Self::keyring`], made for a host that has just asked for credentials.
    fn keyring_for_challenge(&self, url: &Uri) -> Option<Arc<Keyring>> {
        if let Some(known) = self.keyring(url) {
            return Some(known);
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_stranger() || others.len() >= MAX_OTHER_HOSTS {
            return None;
        }
        let keyring = || Arc::new(self.keyring.redirected(url));
        Some(Arc::clone(others.entry(origin(url)).or_insert_with(keyring)))
    }

    /// Makes `call`: an answer of 2xx, or an error.
    pub async fn send(&self, call: &Call) -> Result<Answer, RequestError> {
        let answer = self.ask(call).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(answer.complaint().await) }
    }

    /// Makes `call`: whatever answer comes once credentials are settled.
    pub async fn ask(&self, call: &Call) -> Result<Answer, RequestError> {
        let mut host = self.endpoint.host.clone();
        for _ in 0..MAX_CHALLENGES {
            let (answer, tried) = match self.follow(call).await {
                Err(error) if self.doubts(&error) => self.follow(call).await?,
                answer => answer?,
            };
            if self.speaks_tls(&answer) {
                continue;
            }
            self.answered.store(true, Ordering::Relaxed);
            if answer.status != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            let Some(keyring) = self.keyring_for_challenge(&answer.url) else { return Ok(answer) };
            host = answer.url.authority().map(|authority| authority.to_string()).unwrap_or_default();
            let fields = answer.headers.get_all(WWW_AUTHENTICATE).iter();
            let fields: Vec<String> =
                fields.filter_map(|field| field.to_str().ok()).map(str::to_owned).collect();
            answer.discard().await;
            keyring.settle(self, &fields, &call.scope, tried.as_ref()).await?;
        }
        Err(RequestError::Denied { host, what: "the credentials are refused".into() })
    }

    /// Asks a token service. Redirects are followed, with the password as long as [`may_keep_secret`] says; a call whose
    /// secret is its body goes nowhere else.
    pub async fn ask_token_service(&self, mut call: Call) -> Result<Answer, RequestError> {
        let mut url = self.url(&call)?;
        for _ in 0..MAX_REDIRECTS {
            let answer = self.exchange(&call, &url, None, false).await?;
            let Some(next) = redirect(&answer)? else { return Ok(answer) };
            if !may_keep_secret(&url, &next) {
                if call.method != Method::GET {
                    return Ok(answer);
                }
                call.headers.retain(|(name, _)| name != AUTHORIZATION);
            }
            debug!(url = %shown(&next), "following a token service's redirect");
            url = next;
            answer.discard().await;
        }
        Err(RequestError::Answer { url: shown(&url), what: format!("more than {MAX_REDIRECTS} redirects") })
    }

    /// Makes the request and follows redirects; what is ours goes to our own origin only, and a token to the host that it
    /// is for. Says which `Authorization` the last host was sent.
    async fn follow(&self, call: &Call) -> Result<(Answer, Option<HeaderValue>), RequestError> {
        let mut url = self.url(call)?;
        for _ in 0..MAX_REDIRECTS {
            let auth = match self.keyring(&url) {
                Some(keyring) => keyring.authorization(&call.scope).await,
                None => None,
            };
            let answer = self.exchange(call, &url, auth.as_ref(), self.owns(&url)).await?;
            let Some(next) = redirect(&answer)? else { return Ok((answer, auth)) };
            url = next;
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
                Some("http") => Ok(self.plain()?.request(request).await),
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

/// Where an answer sends its request; `None` when it is no redirect.
fn redirect(answer: &Answer) -> Result<Option<Uri>, RequestError> {
    let moved = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = answer.headers.get(LOCATION).filter(|_| moved) else { return Ok(None) };
    let location = location.to_str().map_err(|_| RequestError::Address("redirect".into()))?;
    join(&answer.url, location).map(Some)
}

/// `scheme://host:port` of `url`.
fn origin(url: &Uri) -> String {
    let authority = url.authority().map(|authority| authority.as_str()).unwrap_or_default();
    format!("{}://{authority}", url.scheme_str().unwrap_or_default())
}

/// Whether a redirect `from` a token service `to` another address may take the password along: on the same host, and not
/// from TLS to clear.
fn may_keep_secret(from: &Uri, to: &Uri) -> bool {
    let same_host = from.host().zip(to.host()).is_some_and(|(from, to)| from.eq_ignore_ascii_case(to));
    same_host && (to.scheme_str() == Some("https") || from.scheme_str() == Some("http"))
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
