//! Pulls: an image from its registry into the stores, as whoever wants the image asks for it.

use std::time::Duration;

use async_trait::async_trait;
use spec::{Descriptor, Labels, Platform, Reference, Result};

use crate::Ctx;

/// A pull to be done.
#[derive(Clone, Debug)]
pub struct Pull {
    /// What to pull; also the name that is recorded.
    pub reference: Reference,
    /// Labels of the record.
    pub labels: Labels,
    /// The platform whose image is fetched and unpacked.
    pub platform: Platform,
    /// The driver that the image is unpacked with.
    pub snapshotter: String,
    /// Whether that driver is told of which image each layer is.
    pub annotate_snapshots: bool,
    /// Whether the layers' blobs are held by nobody once they are unpacked.
    pub discard_layers: bool,
    /// Whether file systems are flushed after each layer.
    pub sync_fs: bool,
    /// How many blobs move at once; 0 for the usual number.
    pub concurrent: usize,
    /// Given up when nothing moves for so long; zero for never.
    pub stall_timeout: Duration,
    /// Who asks; without it the configuration says who.
    pub login: Option<Login>,
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

impl std::fmt::Debug for Login {
    /// Says what kind it is, never what it is.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(..)",
            Self::Token(_) => "Token(..)",
        })
    }
}

/// Pulls images.
#[async_trait]
pub trait Puller: Send + Sync {
    /// Pulls; answers what the reference names. What was begun is undone when this future is dropped.
    async fn pull(&self, ctx: &Ctx, pull: Pull) -> Result<Descriptor>;
}
