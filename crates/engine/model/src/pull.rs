//! Pulls: an image from its registry into the stores, as whoever wants the image asks for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use spec::{Descriptor, Labels, Platform, Reference, Result};

use crate::Ctx;

/// The capability of a transfer service that sees the `Tuning` of a request.
pub const TUNING: &str = "tuning";

/// A pull to be done.
#[derive(Clone)]
pub struct Pull {
    /// What to pull; also the name that is recorded.
    pub reference: Reference,
    /// Labels of the record.
    pub labels: Labels,
    /// How to unpack it.
    pub unpack: Unpack,
    /// Whether the layers' blobs are held by nobody once they are unpacked.
    pub discard_layers: bool,
    /// How many blobs move at once; 0 for the usual number.
    pub concurrent: usize,
    /// Given up when nothing moves for so long; zero for never.
    pub stall_timeout: Duration,
    /// Who we are at a host that asks.
    pub login: LoginFor,
}

/// How to unpack an image.
#[derive(Clone, Debug)]
pub struct Unpack {
    /// The platform whose image it is.
    pub platform: Platform,
    /// The driver.
    pub snapshotter: String,
    /// Whether that driver is told of which image each layer is.
    pub annotate: bool,
    /// Whether file systems are flushed after each layer.
    pub sync_fs: bool,
}

/// Who somebody is at a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A user and a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        secret: String,
    },
    /// An OAuth refresh token.
    Token(String),
}

/// A `host[:port]` that asks for a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginHost<'a> {
    /// An endpoint of the image's registry: the registry itself or a mirror of it.
    Endpoint(&'a str),
    /// A host that an endpoint's redirect led to: only a login for exactly this host may be sent to it.
    Redirected(&'a str),
}

/// Login at a host; `None` for an anonymous request.
pub type LoginFor = Arc<dyn Fn(LoginHost<'_>) -> Result<Option<Login>> + Send + Sync>;

impl std::fmt::Debug for Login {
    /// Says what kind it is, never what it is.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(..)",
            Self::Token(_) => "Token(..)",
        })
    }
}

/// Pulls and unpacks images. What was begun is undone when a future is dropped.
#[async_trait]
pub trait Puller: Send + Sync {
    /// Pulls; answers what the reference names.
    async fn pull(&self, ctx: &Ctx, pull: Pull) -> Result<Descriptor>;

    /// Unpacks the image `target`, whose content is in the store. `NotFound` when part of it is not.
    async fn unpack(&self, ctx: &Ctx, target: Descriptor, unpack: Unpack) -> Result<()>;
}
