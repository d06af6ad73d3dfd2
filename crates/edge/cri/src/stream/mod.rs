//! Streams: exec, attach and port-forward over SPDY/3.1 and WebSocket.
//!
//! An RPC agrees to something and answers a URL with a [`token`]; whoever comes with it, usually the kubelet on behalf
//! of its API server, gets what was agreed and nothing else.
//!
//! ```text
//! server (HTTP/1.1, TLS) ─► session: token ─► spdy | websocket ─► channel::{Incoming, Outgoing}
//!                                                 exec, attach ─► fifo ─► shim
//!                                                 port_forward ─► a socket in the pod's network
//! ```
//!
//! Invariant: a token is good once and for a minute; a client that shows none is disconnected soon, and keeps out nobody
//! who has one. A client that vanishes leaves no FIFO, socket or task behind.

mod attach;
mod channel;
mod copy;
mod exec;
pub(crate) mod fifo;
mod newcomers;
mod port_forward;
mod resize;
mod server;
mod session;
mod spdy;
mod status;
mod tls;
mod token;
mod websocket;

use std::sync::OnceLock;
use std::time::Duration;

use ::spec::Error;
use model::Result;

pub use channel::Wanted;
pub use server::Server;

use token::Tokens;

/// How long a client may take to open its streams.
const CREATION_TIMEOUT: Duration = Duration::from_secs(30);

/// What a token stands for.
#[derive(Debug)]
pub enum Agreed {
    /// Run a command.
    Exec {
        /// The container's id.
        container: String,
        /// The command.
        command: Vec<String>,
        /// Its streams.
        wanted: Wanted,
    },
    /// Join a container's streams.
    Attach {
        /// The container's id.
        container: String,
        /// The streams.
        wanted: Wanted,
    },
    /// Reach a pod's ports.
    PortForward {
        /// The pod's id.
        pod: String,
        /// The ports, for WebSocket.
        ports: Vec<u16>,
    },
}

impl Agreed {
    /// The first part of the URL's path.
    fn path(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "exec",
            Self::Attach { .. } => "attach",
            Self::PortForward { .. } => "portforward",
        }
    }
}

/// What was agreed, and where the server is that does it.
#[derive(Debug, Default)]
pub struct Streaming {
    tokens: Tokens<Agreed>,
    base: OnceLock<String>,
}

impl Streaming {
    /// A URL for what was agreed.
    ///
    /// # Errors
    /// `Unavailable` before the server listens; `ResourceExhausted` when too many URLs wait to be used.
    fn url(&self, agreed: Agreed) -> Result<String> {
        let base = self.base.get().ok_or_else(|| Error::unavailable("streaming server is not running"))?;
        let path = agreed.path();
        Ok(format!("{base}/{path}/{}", self.tokens.add(agreed)?))
    }
}
