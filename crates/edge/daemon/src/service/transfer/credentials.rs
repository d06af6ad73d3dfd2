//! Credentials that the client is asked for on a stream, whenever a registry wants them.

use std::time::Duration;

use api::containerd::types::transfer::{AuthRequest, AuthResponse, AuthType};
use api::{decode_any, encode_any};
use image::registry::{Ask, Credential, Credentials};
use model::{Error, Kind, Result};
use tokio::sync::Mutex;

use crate::stream::Stream;

/// How long a client may take to answer; a person may be typing.
const LIMIT: Duration = Duration::from_secs(120);

/// Asks the client at the other end of a stream, one question at a time.
pub struct Asked {
    stream: Mutex<Stream>,
}

impl Asked {
    /// Asks over `stream`.
    pub fn over(stream: Stream) -> Self {
        Self { stream: Mutex::new(stream) }
    }
}

#[tonic::async_trait]
impl Credentials for Asked {
    async fn get(&self, ask: &Ask) -> Result<Credential> {
        // Go's clients answer with the reference's password whatever the host is.
        if ask.redirected {
            return Ok(Credential::None);
        }
        let mut stream = self.stream.lock().await;
        let request = AuthRequest {
            host: ask.host.clone(),
            reference: ask.reference.clone(),
            wwwauthenticate: ask.challenges.clone(),
        };
        let gone = || Error::new(Kind::Unavailable, "the client that has the credentials is gone");
        let exchange = async {
            stream.outgoing.send(Ok(encode_any(&request))).await.map_err(|_| gone())?;
            stream.incoming.message().await.ok().flatten().ok_or_else(gone)
        };
        let late =
            |_| Error::new(Kind::DeadlineExceeded, "the client did not answer with credentials in time");
        let any = tokio::time::timeout(LIMIT, exchange).await.map_err(late)??;
        let response: AuthResponse = decode_any(&any)
            .ok()
            .flatten()
            .ok_or_else(|| Error::invalid("the client answered with something else than credentials"))?;
        Ok(match response.auth_type() {
            AuthType::None => Credential::None,
            AuthType::Credentials => {
                Credential::Password { user: response.username, secret: response.secret }
            }
            AuthType::Refresh => Credential::Refresh(response.secret),
            AuthType::Header => Credential::Header(response.secret),
        })
    }
}
