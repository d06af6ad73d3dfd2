//! Versions of the CNI specification.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Error, code};

/// A released version of the CNI specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Version {
    /// 0.1.0, also meant by a configuration that names none.
    V0_1_0,
    /// 0.2.0: `VERSION`.
    V0_2_0,
    /// 0.3.0: chains, results with interfaces.
    V0_3_0,
    /// 0.3.1.
    V0_3_1,
    /// 0.4.0: `CHECK`, and a previous result for `DEL`.
    V0_4_0,
    /// 1.0.0: addresses no longer name their family.
    V1_0_0,
    /// 1.1.0: `STATUS` and `GC`.
    V1_1_0,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The newest version that this crate speaks.
    pub const CURRENT: Self = Self::V1_1_0;

    /// The version as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Whether `CHECK` exists, and `DEL` is given the result of `ADD`.
    pub fn has_check(self) -> bool {
        self >= Self::V0_4_0
    }

    /// Whether `STATUS` and `GC` exist.
    pub fn has_status(self) -> bool {
        self >= Self::V1_1_0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.as_str().into()
    }
}

impl FromStr for Version {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self::V0_1_0);
        }
        Self::ALL.into_iter().find(|version| version.as_str() == text).ok_or_else(|| {
            Error::new(code::INCOMPATIBLE_VERSION, format!("incompatible CNI version {text:?}")).with_details(
                format!("config is {text:?}, versions {} to {} are known", Self::V0_1_0, Self::CURRENT),
            )
        })
    }
}

impl TryFrom<String> for Version {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_and_read_back() {
        for pair in Version::ALL.windows(2) {
            assert!(pair[0] < pair[1]);
        }
        for version in Version::ALL {
            assert_eq!(version.to_string().parse::<Version>().unwrap(), version);
        }
    }

    #[test]
    fn no_version_is_the_first_and_an_unknown_one_is_incompatible() {
        assert_eq!("".parse::<Version>().unwrap(), Version::V0_1_0);
        for text in ["1.2.0", "1.0", "v1.0.0", "banana"] {
            assert_eq!(text.parse::<Version>().unwrap_err().code, code::INCOMPATIBLE_VERSION, "{text}");
        }
    }
}
