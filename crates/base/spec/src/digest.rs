//! Content digests: `sha256:<64 hex>` and its longer siblings.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{HasKind, Kind};

/// Hash of a digest, as OCI image-spec registers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, 64 hex digits: what every registry uses.
    Sha256,
    /// SHA-384, 96 hex digits.
    Sha384,
    /// SHA-512, 128 hex digits.
    Sha512,
}

impl Algorithm {
    /// The word before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha384 => 96,
            Self::Sha512 => 128,
        }
    }
}

/// A valid digest. Only [`FromStr`] and [`Digest::from_bytes`] make one, so it is safe as a file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    text: Box<str>,
}

impl Digest {
    /// The digest of `algorithm` whose raw bytes are `hash`.
    ///
    /// # Errors
    /// `hash` has another length than `algorithm` makes.
    pub fn from_bytes(algorithm: Algorithm, hash: &[u8]) -> Result<Self, ParseDigestError> {
        let mut text = String::with_capacity(algorithm.hex_len() + 7);
        text.push_str(algorithm.as_str());
        text.push(':');
        for byte in hash {
            text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        }
        text.parse()
    }

    /// The hash function.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The part after the colon, lower-case hex.
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.as_str().len() + 1..]
    }

    /// `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Why a text is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDigestError {
    /// No colon, or something else than lower-case hex behind it.
    #[error("invalid checksum digest format")]
    Format,
    /// A hash that is not registered.
    #[error("unsupported digest algorithm")]
    Algorithm,
    /// Too few or too many digits.
    #[error("invalid checksum digest length")]
    Length,
}

impl HasKind for ParseDigestError {
    fn kind(&self) -> Kind {
        Kind::InvalidArgument
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (algorithm, hex) = text.split_once(':').ok_or(ParseDigestError::Format)?;
        let algorithm = match algorithm {
            "sha256" => Algorithm::Sha256,
            "sha384" => Algorithm::Sha384,
            "sha512" => Algorithm::Sha512,
            _ => return Err(ParseDigestError::Algorithm),
        };
        if hex.len() != algorithm.hex_len() {
            return Err(ParseDigestError::Length);
        }
        if !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ParseDigestError::Format);
        }
        Ok(Self { algorithm, text: text.into() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| de::Error::custom(format!("{text:?}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_round_trips() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(digest.hex(), &EMPTY[7..]);
        assert_eq!(digest.algorithm(), Algorithm::Sha256);
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        for (text, error) in [
            ("", ParseDigestError::Format),
            ("sha256", ParseDigestError::Format),
            ("md5:00", ParseDigestError::Algorithm),
            ("sha256:abc", ParseDigestError::Length),
            (&EMPTY.to_uppercase().replace("SHA", "sha"), ParseDigestError::Format),
            (
                "sha256:../../../../../../../../../../../../../../../../../../../../etc/x",
                ParseDigestError::Length,
            ),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(error), "{text}");
        }
    }
}
