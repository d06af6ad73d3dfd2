//! What a shim's `start` answers: how to reach it. Pure.
//!
//! Three forms exist: a binary `BootstrapResult` (containerd 2.3), a JSON object (2.0 to 2.2) and a bare address (1.x).

use std::path::{Path, PathBuf};

use api::Message;
use api::containerd::runtime::bootstrap::v1::BootstrapResult;
use serde::{Deserialize, Serialize};
use shim::bootstrap::{IN_PLACE, Serves};
use shim::service::logs::CAPABILITY;
use spec::{HasKind, Kind};

/// How to reach a shim; `bootstrap.json` of the bundle holds it for the next daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Version of the task service: 2 or 3.
    pub version: i32,
    /// `unix://...`
    pub address: String,
    /// `ttrpc`.
    pub protocol: String,
    /// Whether it writes CRI logs itself and lets clients attach.
    #[serde(rename = "berth.stdio", default, skip_serializing_if = "std::ops::Not::not")]
    pub writes_logs: bool,
}

/// Why an answer is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Nothing, or no text where there should be one.
    #[error("the shim's answer names no address")]
    Address,
    /// A newer shim than this daemon, or nonsense.
    #[error("unsupported shim version {0}: not implemented")]
    Version(i32),
    /// Only ttrpc is spoken here.
    #[error("unsupported protocol: {0:?}: not implemented")]
    Protocol(String),
}

impl HasKind for EndpointError {
    fn kind(&self) -> Kind {
        match self {
            Self::Address => Kind::Internal,
            Self::Version(_) | Self::Protocol(_) => Kind::Unimplemented,
        }
    }
}

impl Endpoint {
    /// Reads what `start` wrote to its standard output, in whichever form.
    ///
    /// # Errors
    /// It names no address that this daemon can use.
    pub fn parse(output: &[u8]) -> Result<Self, EndpointError> {
        if let Ok(result) = BootstrapResult::decode(output)
            && (2..=3).contains(&result.version)
            && !result.address.is_empty()
        {
            let writes_logs = result.metadata.contains_key(CAPABILITY);
            let BootstrapResult { version, address, protocol, .. } = result;
            return Self { version, address, protocol, writes_logs }.check();
        }
        let text = str::from_utf8(output).map_err(|_| EndpointError::Address)?.trim();
        if text.starts_with('{') {
            let endpoint: Self = spec::json::from_str(text).map_err(|_| EndpointError::Address)?;
            return endpoint.check();
        }
        Self { version: 2, address: text.into(), protocol: "ttrpc".into(), writes_logs: false }.check()
    }

    fn check(self) -> Result<Self, EndpointError> {
        if !(2..=3).contains(&self.version) {
            return Err(EndpointError::Version(self.version));
        }
        if !self.protocol.is_empty() && self.protocol != "ttrpc" {
            return Err(EndpointError::Protocol(self.protocol));
        }
        if !self.path().is_absolute() {
            return Err(EndpointError::Address);
        }
        Ok(Self { protocol: "ttrpc".into(), ..self })
    }

    /// The socket's path.
    pub fn path(&self) -> PathBuf {
        let path = self.address.strip_prefix("unix://").unwrap_or(&self.address);
        Path::new(path).to_owned()
    }
}

/// Where a shim says that it serves; nothing when it does not say, as those of others.
pub fn serves(output: &[u8]) -> Option<Serves> {
    let word = BootstrapResult::decode(output).ok()?.metadata.remove(IN_PLACE)?;
    [Serves::Apart, Serves::InPlace].into_iter().find(|serves| serves.word() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(version: i32) -> Endpoint {
        Endpoint { version, address: "unix:///run/x".into(), protocol: "ttrpc".into(), writes_logs: false }
    }

    #[test]
    fn the_three_forms_mean_the_same() {
        let binary = BootstrapResult {
            version: 3,
            address: "unix:///run/x".into(),
            protocol: "ttrpc".into(),
            ..BootstrapResult::default()
        };
        assert_eq!(Endpoint::parse(&binary.encode_to_vec()), Ok(endpoint(3)));
        let json = br#"{"version":3,"address":"unix:///run/x","protocol":"ttrpc"}"#;
        assert_eq!(Endpoint::parse(json), Ok(endpoint(3)));
        assert_eq!(Endpoint::parse(b"unix:///run/x\n"), Ok(endpoint(2)));
    }

    #[test]
    fn a_shim_that_writes_logs_is_known_after_a_restart() {
        let binary = BootstrapResult {
            version: 3,
            address: "unix:///run/x".into(),
            protocol: "ttrpc".into(),
            metadata: [("berth.stdio".into(), "1".into())].into(),
            ..BootstrapResult::default()
        };
        let endpoint = Endpoint::parse(&binary.encode_to_vec()).unwrap();
        assert!(endpoint.writes_logs);
        assert_eq!(Endpoint::parse(&serde_json::to_vec(&endpoint).unwrap()), Ok(endpoint));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Endpoint::parse(b""), Err(EndpointError::Address));
        assert_eq!(Endpoint::parse(b"\xff\xfe"), Err(EndpointError::Address));
        assert_eq!(Endpoint::parse(b"panic: oh no"), Err(EndpointError::Address));
        let grpc = br#"{"version":3,"address":"unix:///run/x","protocol":"grpc"}"#;
        assert_eq!(Endpoint::parse(grpc), Err(EndpointError::Protocol("grpc".into())));
        let newer = br#"{"version":9,"address":"unix:///run/x","protocol":"ttrpc"}"#;
        assert_eq!(Endpoint::parse(newer), Err(EndpointError::Version(9)));
    }
}
