//! A reference to the descriptor of what it names.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, StatusCode};
use model::manifest::{MAX_DOCUMENT, sha256};
use serde::Deserialize;
use spec::{Descriptor, Digest, media};

use super::address::shown;
use super::answer::Answer;
use super::auth::Scope;
use super::exchange::{Call, Session};
use super::{Registry, RequestError};

/// What we understand as the answer to a request for a manifest, best first.
pub(super) const ACCEPTED: &str = "application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*";

/// What a reference names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The index or manifest.
    pub descriptor: Descriptor,
    /// Its bytes, when they had to be read to know it.
    pub bytes: Option<Vec<u8>>,
}

impl Registry {
    /// Asks what the reference names.
    ///
    /// # Errors
    /// `NotFound` when no endpoint has it; otherwise the error of the endpoint that got furthest.
    pub async fn resolve(&self) -> Result<Resolved, RequestError> {
        let by_digest = self.reference.digest().is_some();
        let mut patience = self.patience(|can| can.pull && (by_digest || can.resolve));
        while let Some(session) = patience.next().await {
            match self.resolve_at(session).await {
                Ok(resolved) => return Ok(resolved),
                Err(error) => patience.failed(error),
            }
        }
        Err(match patience.give_up("resolve") {
            RequestError::Status { status: StatusCode::NOT_FOUND, .. } => {
                RequestError::NotFound(self.reference.to_string())
            }
            RequestError::Denied { host, what } => {
                let prefix = "pull access denied, repository does not exist or may require authorization";
                RequestError::Denied { host, what: format!("{prefix}: {what}") }
            }
            error => error,
        })
    }

    async fn resolve_at(&self, session: &Session) -> Result<Resolved, RequestError> {
        session.say(|| format!("resolving host={}", session.endpoint().host));
        let answer = match session.send(&self.manifest_call(Method::HEAD)).await {
            Ok(answer) => answer,
            // A HEAD has no body that could say why; and some registries do not know HEAD.
            Err(RequestError::Status { status, .. }) if matches!(status.as_u16(), 403 | 405) => {
                return self.resolve_by_get(session).await;
            }
            Err(error) => return Err(error),
        };
        let media_type = media_type(&answer);
        let digest = match self.reference.digest() {
            Some(digest) => Some(digest.clone()),
            None => promised(&answer)?,
        };
        match (digest, answer.length(), is_known(&media_type)) {
            (Some(digest), Some(size), true) if size > 0 => {
                check_size(&answer, size)?;
                Ok(Resolved { descriptor: Descriptor::new(media_type, digest, size), bytes: None })
            }
            _ => self.resolve_by_get(session).await,
        }
    }

    async fn resolve_by_get(&self, session: &Session) -> Result<Resolved, RequestError> {
        let answer = session.send(&self.manifest_call(Method::GET)).await?;
        let (url, told) = (shown(&answer.url), media_type(&answer));
        let promised = match self.reference.digest() {
            Some(digest) => Some(digest.clone()),
            None => promised(&answer)?,
        };
        let bytes = answer.whole(MAX_DOCUMENT).await?;
        let digest = match promised {
            None => sha256(&bytes),
            Some(wanted) => {
                super::fetch::check(&bytes, &wanted, &url)?;
                wanted
            }
        };
        let media_type = if is_known(&told) { told } else { sniffed(&bytes).unwrap_or(told) };
        let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
        Ok(Resolved { descriptor, bytes: Some(bytes) })
    }

    fn manifest_call(&self, method: Method) -> Call {
        let target = format!("/{}/manifests/{}", self.reference.path(), self.reference.object());
        Call::new(method, target, Scope::pull(self.reference.path())).header(ACCEPT, ACCEPTED)
    }
}

/// The digest that the registry promises.
fn promised(answer: &Answer) -> Result<Option<Digest>, RequestError> {
    let Some(text) = answer.field("docker-content-digest") else { return Ok(None) };
    text.parse().map(Some).map_err(|error| RequestError::Answer {
        url: shown(&answer.url),
        what: format!("{text:?} in its header is not a valid digest: {error}"),
    })
}

fn check_size(answer: &Answer, size: u64) -> Result<(), RequestError> {
    if size > MAX_DOCUMENT {
        return Err(RequestError::Long { url: shown(&answer.url), limit: MAX_DOCUMENT });
    }
    Ok(())
}

fn media_type(answer: &Answer) -> String {
    let field = answer.field(CONTENT_TYPE.as_str()).unwrap_or_default();
    field.split(';').next().unwrap_or_default().trim().to_owned()
}

fn is_known(media_type: &str) -> bool {
    media::is_index(media_type) || media::is_manifest(media_type) || media_type == media::DOCKER_MANIFEST_V1
}

/// What a document says of itself, for registries that call everything JSON.
fn sniffed(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        #[serde(default)]
        media_type: String,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
        fs_layers: Option<serde::de::IgnoredAny>,
    }
    let document: Document = spec::json::from_slice(bytes).ok()?;
    if is_known(&document.media_type) {
        return Some(document.media_type);
    }
    match (document.fs_layers, document.manifests, document.layers) {
        (Some(_), _, _) => Some(media::DOCKER_MANIFEST_V1.into()),
        (None, Some(_), None) => Some(media::INDEX.into()),
        (None, None, Some(_)) => Some(media::MANIFEST.into()),
        _ => None,
    }
}
