//! The error of a plugin, as the specification has it.

use std::fmt;

use serde::{Deserialize, Serialize};
use spec::error::{HasKind, Kind};

/// Codes of the specification, and of the standard plugins.
pub mod code {
    /// No code fits.
    pub const UNKNOWN: u32 = 0;
    /// The plugin does not speak the configuration's version.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A field of the configuration is not supported.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is unknown or does not exist.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// A `CNI_*` variable is missing or wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO: u32 = 5;
    /// Something could not be decoded.
    pub const DECODING: u32 = 6;
    /// The network's configuration is invalid.
    pub const INVALID_CONFIG: u32 = 7;
    /// The network namespace is not one.
    pub const INVALID_NETNS: u32 = 8;
    /// A transient condition: try again later.
    pub const TRY_AGAIN: u32 = 11;
    /// `STATUS`: the plugin cannot serve `ADD`.
    pub const NOT_AVAILABLE: u32 = 50;
    /// `STATUS`: the plugin cannot serve `ADD`, and running containers may have limited connectivity.
    pub const LIMITED_CONNECTIVITY: u32 = 51;
    /// An internal failure, as the standard plugins report whatever they have no code for.
    pub const INTERNAL: u32 = 999;
}

/// How a plugin says that it failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// A number of [`code`], or the plugin's own from 100 on.
    #[serde(default)]
    pub code: u32,
    /// One line.
    #[serde(default)]
    pub msg: String,
    /// More of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl Error {
    /// An error without details.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// A failure that has no code of its own.
    pub fn internal(msg: impl fmt::Display) -> Self {
        Self::new(code::INTERNAL, msg.to_string())
    }

    /// A configuration that is wrong.
    pub fn config(msg: impl fmt::Display) -> Self {
        Self::new(code::INVALID_CONFIG, msg.to_string())
    }

    /// A failed read or write.
    pub fn io(msg: impl fmt::Display) -> Self {
        Self::new(code::IO, msg.to_string())
    }

    /// Adds details.
    #[must_use]
    pub fn with_details(mut self, details: impl fmt::Display) -> Self {
        self.details = details.to_string();
        self
    }

    /// Puts `what` before the message: `what: msg`.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.msg = format!("{what}: {}", self.msg);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, "; {}", self.details) }
    }
}

impl std::error::Error for Error {}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self.code {
            code::UNKNOWN_CONTAINER => Kind::NotFound,
            code::TRY_AGAIN | code::NOT_AVAILABLE | code::LIMITED_CONNECTIVITY => Kind::Unavailable,
            code::INCOMPATIBLE_VERSION
            | code::UNSUPPORTED_FIELD
            | code::INVALID_CONFIG
            | code::INVALID_ENVIRONMENT
            | code::INVALID_NETNS => Kind::FailedPrecondition,
            _ => Kind::Internal,
        }
    }
}

impl From<sys::Error> for Error {
    fn from(error: sys::Error) -> Self {
        Self::internal(error)
    }
}
