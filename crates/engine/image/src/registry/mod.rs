//! The client of a registry: OCI distribution and Docker's, over HTTP.
//!
//! [`Registry::open`] turns a reference's host into the endpoints that serve it (`hosts`, `directory`); every request goes
//! through [`exchange`](self), which adds credentials (`auth`, `challenge`), follows redirects and bounds every wait;
//! `resolve`, `fetch` and `upload` are the verbs.
//!
//! Invariant: credentials and configured headers go only to the host that they are for: never along a redirect to another
//! origin, never to the addresses that a manifest names. A host that a redirect leads to is answered with what is known for
//! exactly that host, else anonymously.
//! Invariant: every wait has a deadline: for the connection, for the head of an answer, and between two pieces of a body.

mod address;
mod answer;
mod auth;
mod challenge;
mod connect;
mod directory;
mod endpoint;
mod error;
mod exchange;
mod fetch;
pub mod hosts;
mod patience;
mod proxy;
mod resolve;
mod tls;
mod traffic;
mod upload;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::{Ctx, Lane};
use spec::{Reference, Result};

pub use connect::proxy;
pub use endpoint::{Capabilities, Doubt, Endpoint};
pub use error::RequestError;
pub use resolve::Resolved;
pub use traffic::Traffic;
pub use upload::Outcome;

use exchange::Session;

/// How to reach registries.
#[derive(Clone)]
pub struct Config {
    /// Directories with one directory a host, separated by colons; the first that knows the host counts.
    pub hosts_dir: Option<String>,
    /// The endpoints, best first, when they are known; no directory is looked at then.
    pub endpoints: Option<Vec<Endpoint>>,
    /// The scheme of hosts that no hosts.toml describes: `http` is `--plain-http`.
    pub default_scheme: Option<String>,
    /// TLS of hosts that no hosts.toml describes.
    pub tls: Tls,
    /// Header fields of every request to a registry.
    pub headers: Vec<(String, String)>,
    /// Who knows the passwords.
    pub credentials: Arc<dyn Credentials>,
    /// Deadlines and sizes.
    pub limits: Limits,
    /// Who wants to read what is asked and answered (`ctr --debug`).
    pub log: Option<Log>,
    /// Tells whoever shares it whether anything still comes.
    pub traffic: Arc<Traffic>,
}

/// Takes lines about requests; it must not block.
pub type Log = Arc<dyn Fn(String) + Send + Sync>;

impl Config {
    fn say(&self, line: impl FnOnce() -> String) {
        if let Some(log) = &self.log {
            log(line());
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hosts_dir: None,
            endpoints: None,
            default_scheme: None,
            tls: Tls::default(),
            headers: Vec::new(),
            credentials: Arc::new(Nobody),
            limits: Limits::default(),
            log: None,
            traffic: Arc::default(),
        }
    }
}

/// What is trusted, and who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// Whether any certificate will do.
    pub skip_verify: Option<bool>,
    /// Files with further authorities, PEM.
    pub authorities: Vec<PathBuf>,
    /// Our certificate and its key, PEM; without a key file the key is in the first.
    pub clients: Vec<(PathBuf, Option<PathBuf>)>,
}

impl Tls {
    /// Whether anything differs from the default.
    pub fn is_set(&self) -> bool {
        *self != Self::default()
    }
}

/// Deadlines and sizes of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a connection may take to come up.
    pub connect: Duration,
    /// How long a registry may take to begin its answer.
    pub answer: Duration,
    /// How long a body may pause.
    pub idle: Duration,
    /// How often a request is tried again while nothing comes.
    pub retries: u32,
    /// The first pause between tries; it doubles each time.
    pub backoff: Duration,
    /// The longest pause that a registry may ask for.
    pub longest_pause: Duration,
    /// How many blobs of one transfer move at once.
    pub concurrent: usize,
    /// How many connections share one large blob.
    pub connections: usize,
    /// The piece of a large blob that one connection fetches at a time.
    pub piece: u64,
    /// From how many remaining bytes on a blob is shared by several connections.
    pub split_from: u64,
    /// Whether to share large blobs at once, instead of when one connection proves slower than the disk.
    pub split_always: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            answer: Duration::from_secs(60),
            idle: Duration::from_secs(30),
            retries: 5,
            backoff: Duration::from_millis(250),
            longest_pause: Duration::from_secs(60),
            concurrent: 4,
            connections: 4,
            piece: 4 << 20,
            split_from: 32 << 20,
            split_always: false,
        }
    }
}

/// What a registry wants to know, for whoever knows the passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The endpoint's host with its port.
    pub host: String,
    /// The reference that is transferred.
    pub reference: String,
    /// The `WWW-Authenticate` fields, as they came.
    pub challenges: Vec<String>,
    /// Whether a redirect led to the host: only what is known for exactly this host may go to it.
    pub redirected: bool,
}

/// What somebody knew.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credential {
    /// Nothing: try without.
    #[default]
    None,
    /// A user and a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        secret: String,
    },
    /// An OAuth refresh token.
    Refresh(String),
    /// A whole `Authorization` field.
    Header(String),
}

impl std::fmt::Debug for Credential {
    /// Says what kind it is, never what it is.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Password { .. } => "Password(..)",
            Self::Refresh(_) => "Refresh(..)",
            Self::Header(_) => "Header(..)",
        })
    }
}

/// Knows passwords.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// The credentials for a host that asks.
    async fn get(&self, ask: &Ask) -> Result<Credential>;
}

/// Knows none.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

#[async_trait]
impl Credentials for Nobody {
    async fn get(&self, _ask: &Ask) -> Result<Credential> {
        Ok(Credential::None)
    }
}

/// Knows one, for every endpoint of the reference's own registry and its mirrors, as `ctr --user` does.
#[derive(Clone, Debug)]
pub struct Fixed(pub Credential);

#[async_trait]
impl Credentials for Fixed {
    async fn get(&self, ask: &Ask) -> Result<Credential> {
        Ok(if ask.redirected { Credential::None } else { self.0.clone() })
    }
}

/// The endpoints that serve one reference, best first, with what has been learnt from them.
pub struct Registry {
    reference: Reference,
    sessions: Vec<Arc<Session>>,
    /// For the addresses that a manifest names: no credentials, no headers of ours.
    stranger: Arc<Session>,
    limits: Limits,
}

impl Registry {
    /// Finds the endpoints of `reference`'s host.
    ///
    /// # Errors
    /// A certificate that the configuration names cannot be used.
    pub async fn open(ctx: &Ctx, reference: &Reference, config: &Config) -> Result<Arc<Self>> {
        let (reference, config) = (reference.clone(), config.clone());
        ctx.blocking(Lane::Disk, move |_| {
            let endpoints = directory::endpoints(reference.host(), &config)?;
            let sessions = endpoints
                .into_iter()
                .map(|endpoint| Ok(Arc::new(Session::open(endpoint, &reference, &config)?)))
                .collect::<Result<Vec<_>, RequestError>>()?;
            let stranger = Arc::new(Session::for_strangers(&reference, &config)?);
            Ok(Arc::new(Self { reference, sessions, stranger, limits: config.limits }))
        })
        .await
    }

    /// What it serves.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The endpoints, best first.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.sessions.iter().map(|session| session.endpoint())
    }

    /// The endpoints that may be asked for what `fits` says, in order, with as much patience as the limits allow.
    fn patience(&self, fits: impl Fn(&Capabilities) -> bool) -> patience::Patience<'_> {
        let sessions = self.sessions.iter().filter(|session| fits(&session.endpoint().capabilities));
        patience::Patience::new(sessions, &self.limits)
    }

    /// Deadlines and sizes.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}
