//! Credentials of one host: what it asked for, the tokens it was given, and when to ask again.
//!
//! Invariant: a password goes to the endpoint itself (basic) or to the token service that the endpoint names (bearer), and
//! never in clear to a service that another scheme than the endpoint's own could have kept secret. A token service's redirect
//! is followed with the password on the same host alone, and never from TLS to clear.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Uri};
use serde::Deserialize;
use spec::Reference;
use tokio::sync::Mutex;

use super::address::encoded;
use super::challenge::{self, Challenge};
use super::endpoint::{Endpoint, is_localhost};
use super::exchange::{Call, Session};
use super::upload::Payload;
use super::{Ask, Credential, Credentials, RequestError};

/// The longest answer of a token service, in bytes.
const MAX_TOKEN: u64 = 1 << 20;
/// How long a token lives at least, whatever its service says of it.
const MIN_LIFE: Duration = Duration::from_secs(60);
/// The longest that a token is kept.
const MAX_LIFE: Duration = Duration::from_secs(86_400);
/// Our name at OAuth services.
const CLIENT: &str = "containerd-client";

/// What a request is allowed to do: `repository:library/nginx:pull`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope(Vec<String>);

impl Scope {
    /// No scope: of the requests to a token service itself.
    pub fn none() -> Self {
        Self::default()
    }

    fn add(&mut self, one: &str) {
        if !self.0.iter().any(|known| known == one) {
            self.0.push(one.to_owned());
        }
    }

    /// To read `repository`.
    pub fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    /// To read and write `repository`.
    pub fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    /// To read and write `repository`, and to read `other`, whose blobs it shall share.
    pub fn mount(repository: &str, other: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push"), format!("repository:{other}:pull")])
    }
}

/// What one host wants and what we have for it.
pub(super) struct Keyring {
    host: String,
    secret: bool,
    redirected: bool,
    reference: String,
    credentials: Arc<dyn Credentials>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    fixed: Option<HeaderValue>,
    tokens: HashMap<Scope, Token>,
    credential: Option<Credential>,
}

struct Token {
    value: HeaderValue,
    until: Instant,
}

impl Keyring {
    pub fn new(endpoint: &Endpoint, reference: &Reference, credentials: Arc<dyn Credentials>) -> Self {
        Self {
            host: endpoint.host.clone(),
            secret: endpoint.scheme == "https",
            redirected: false,
            reference: reference.to_string(),
            credentials,
            state: Mutex::default(),
        }
    }

    /// That of the host of `url`, to which a redirect led.
    pub fn redirected(&self, url: &Uri) -> Self {
        Self {
            host: url.authority().map(|authority| authority.as_str()).unwrap_or_default().to_owned(),
            secret: url.scheme_str() == Some("https"),
            redirected: true,
            reference: self.reference.clone(),
            credentials: Arc::clone(&self.credentials),
            state: Mutex::default(),
        }
    }

    /// The `Authorization` field that is known to work for `scope`.
    pub async fn authorization(&self, scope: &Scope) -> Option<HeaderValue> {
        let state = self.state.lock().await;
        state.known(scope)
    }

    /// Answers the challenges of a 401 that came although `tried` was sent.
    pub async fn settle(
        &self,
        session: &Session,
        fields: &[String],
        scope: &Scope,
        tried: Option<&HeaderValue>,
    ) -> Result<HeaderValue, RequestError> {
        // Held over the exchange with the token service, so that many requests at once ask it once.
        let mut state = self.state.lock().await;
        if let Some(known) = state.known(scope)
            && Some(&known) != tried
        {
            return Ok(known);
        }
        state.fixed = None;
        state.tokens.remove(scope);
        let challenges: Vec<Challenge> = fields.iter().flat_map(|field| challenge::parse(field)).collect();
        let credential = match &state.credential {
            Some(known) => known.clone(),
            None => {
                let ask = Ask {
                    host: self.host.clone(),
                    reference: self.reference.clone(),
                    challenges: fields.to_vec(),
                    redirected: self.redirected,
                };
                let host = self.host.clone();
                let asked = self.credentials.get(&ask).await;
                asked.map_err(|source| RequestError::Credentials { host, source })?
            }
        };
        state.credential = Some(credential.clone());
        if let Credential::Header(field) = &credential {
            return self.fixed(&mut state, field, tried);
        }
        if let Some(bearer) = challenges.iter().find(|challenge| challenge.scheme == "bearer") {
            let token = self.token(session, bearer, scope, &credential).await?;
            let value = token.value.clone();
            state.tokens.insert(scope.clone(), token);
            return Ok(value);
        }
        if challenges.iter().any(|challenge| challenge.scheme == "basic") {
            let Credential::Password { user, secret } = &credential else {
                return Err(self.denied("no basic auth credentials"));
            };
            let field = format!("Basic {}", STANDARD.encode(format!("{user}:{secret}")));
            return self.fixed(&mut state, &field, tried);
        }
        Err(self.denied("it wants an authentication that we do not know"))
    }

    fn fixed(
        &self,
        state: &mut State,
        field: &str,
        tried: Option<&HeaderValue>,
    ) -> Result<HeaderValue, RequestError> {
        let mut value =
            HeaderValue::from_str(field).map_err(|_| self.denied("the credentials fit no header field"))?;
        value.set_sensitive(true);
        if Some(&value) == tried {
            return Err(self.denied("the credentials are refused"));
        }
        state.fixed = Some(value.clone());
        Ok(value)
    }

    /// Asks the token service that `challenge` names.
    async fn token(
        &self,
        session: &Session,
        challenge: &Challenge,
        scope: &Scope,
        credential: &Credential,
    ) -> Result<Token, RequestError> {
        let realm = challenge.param("realm").ok_or_else(|| self.denied("no realm in its challenge"))?;
        let realm: Uri = realm.parse().map_err(|_| self.denied("its realm is no address"))?;
        self.check_realm(&realm, credential)?;
        // The challenge repeats what was asked for; where it names something else, both are requested.
        let mut scope = scope.clone();
        let named = challenge.param("scope").unwrap_or_default().split_ascii_whitespace();
        named.for_each(|named| scope.add(named));
        let service = challenge.param("service");
        let call = match credential {
            Credential::Refresh(token) => oauth(&realm, service, &scope, token),
            Credential::Password { user, secret } if user.is_empty() => {
                oauth(&realm, service, &scope, secret)
            }
            Credential::Password { user, secret } => {
                let field = format!("Basic {}", STANDARD.encode(format!("{user}:{secret}")));
                get(&realm, service, &scope, Some(user)).header(AUTHORIZATION, &field)
            }
            Credential::None | Credential::Header(_) => get(&realm, service, &scope, None),
        };
        let answer = session.ask_token_service(call).await?;
        if !answer.status.is_success() {
            let status = answer.status;
            let complaint = answer.complaint().await;
            if matches!(status.as_u16(), 400 | 401 | 403) {
                return Err(self.denied(&complaint.to_string()));
            }
            return Err(complaint);
        }
        self.read(&answer.whole(MAX_TOKEN).await?)
    }

    /// Refuses a token service that would get the password in clear.
    fn check_realm(&self, realm: &Uri, credential: &Credential) -> Result<(), RequestError> {
        let host = realm.authority().map(|authority| authority.as_str()).unwrap_or_default();
        match realm.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if *credential == Credential::None || !self.secret || is_localhost(host) => Ok(()),
            Some("http") => Err(self.denied("its token service would get the password in clear")),
            _ => Err(self.denied("its realm is no web address")),
        }
    }

    fn read(&self, body: &[u8]) -> Result<Token, RequestError> {
        let (token, life) = token_answer(body).map_err(|what| self.denied(what))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| self.denied("its token fits no header field"))?;
        value.set_sensitive(true);
        // A little early, so that a request under way does not meet the end.
        Ok(Token { value, until: spec::time::deadline(life / 10 * 9) })
    }

    fn denied(&self, what: &str) -> RequestError {
        RequestError::Denied { host: self.host.clone(), what: what.into() }
    }
}

impl State {
    fn known(&self, scope: &Scope) -> Option<HeaderValue> {
        if let Some(fixed) = &self.fixed {
            return Some(fixed.clone());
        }
        let token = self.tokens.get(scope)?;
        (Instant::now() < token.until).then(|| token.value.clone())
    }
}

/// The token in the answer of a token service, and how long it lives. Only what is needed is read: services differ in the
/// rest.
fn token_answer(body: &[u8]) -> Result<(String, Duration), &'static str> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: String,
        #[serde(default)]
        access_token: String,
        #[serde(default)]
        expires_in: serde_json::Value,
    }
    let answer: Answer =
        spec::json::first_from_slice(body).map_err(|_| "its token service answers nonsense")?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if token.is_empty() {
        return Err("its token service gives no token");
    }
    let seconds = match &answer.expires_in {
        serde_json::Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64(),
    };
    let life = seconds.and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok());
    Ok((token, life.unwrap_or(MIN_LIFE).clamp(MIN_LIFE, MAX_LIFE)))
}

fn get(realm: &Uri, service: Option<&str>, scope: &Scope, account: Option<&str>) -> Call {
    let mut address = realm.to_string();
    let mut mark = if address.contains('?') { '&' } else { '?' };
    let account = account.map(|account| ("account", account));
    let service = service.map(|service| ("service", service));
    let scopes = scope.0.iter().map(|scope| ("scope", scope.as_str()));
    for (key, value) in service.into_iter().chain(account).chain(scopes) {
        address.push_str(&format!("{mark}{key}={}", encoded(value)));
        mark = '&';
    }
    Call::new(Method::GET, address, Scope::none()).absolutely()
}

fn oauth(realm: &Uri, service: Option<&str>, scope: &Scope, token: &str) -> Call {
    let fields = [
        ("grant_type", "refresh_token".to_owned()),
        ("refresh_token", token.to_owned()),
        ("service", service.unwrap_or_default().to_owned()),
        ("client_id", CLIENT.to_owned()),
        ("scope", scope.0.join(" ")),
    ];
    let body: Vec<_> = fields.iter().map(|(key, value)| format!("{key}={}", encoded(value))).collect();
    Call::new(Method::POST, realm.to_string(), Scope::none())
        .absolutely()
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .payload(Payload::Bytes(body.join("&").into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_answer_is_read_whatever_else_it_says() {
        for (body, seconds) in [
            (r#"{"token":"t","expires_in":300}"#, 300),
            (r#"{"access_token":"t","token":null,"expires_in":300.5,"issued_at":5,"scope":["a"]}"#, 300),
            (r#"{"Token":"t","Expires_In":"300"} trailing"#, 300),
            (r#"{"token":"t"}"#, 60),
            (r#"{"token":"t","expires_in":null}"#, 60),
            (r#"{"token":"t","expires_in":-1}"#, 60),
            (r#"{"token":"t","expires_in":0}"#, 60),
            (r#"{"token":"t","expires_in":1e300}"#, 60),
            (r#"{"token":"t","expires_in":99999999999}"#, 86_400),
            (r#"{"token":"t","expires_in":{}}"#, 60),
        ] {
            let (token, life) = token_answer(body.as_bytes()).unwrap();
            assert_eq!((token.as_str(), life.as_secs()), ("t", seconds), "{body}");
        }
        assert_eq!(token_answer(b"{}").unwrap_err(), "its token service gives no token");
        assert_eq!(token_answer(b"<html>").unwrap_err(), "its token service answers nonsense");
    }
}
