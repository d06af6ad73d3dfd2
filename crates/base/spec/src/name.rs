//! Identifiers that become directory names, socket names and cgroup names: parsed once, safe ever after.

use std::fmt;
use std::str::FromStr;

use crate::{HasKind, Kind};

/// The longest identifier, in bytes.
pub const MAX_IDENTIFIER: usize = 76;

/// Why a text is no identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdentifierError {
    /// Nothing at all.
    #[error("identifier must not be empty: invalid argument")]
    Empty,
    /// More than [`MAX_IDENTIFIER`] bytes.
    #[error("identifier {0:?} greater than maximum length (76 characters): invalid argument")]
    Length(String),
    /// A character or an order of characters that the grammar has not.
    #[error("identifier {0:?} must match ^[A-Za-z0-9]+(?:[._-](?:[A-Za-z0-9]+))*$: invalid argument")]
    Grammar(String),
}

impl HasKind for ParseIdentifierError {
    fn kind(&self) -> Kind {
        Kind::InvalidArgument
    }
}

/// Checks `text` against containerd's identifier grammar: alphanumeric runs joined by single `.`, `_` or `-`.
///
/// # Errors
/// The text is empty, too long, or does not match.
pub fn check_identifier(text: &str) -> Result<(), ParseIdentifierError> {
    if text.is_empty() {
        return Err(ParseIdentifierError::Empty);
    }
    if text.len() > MAX_IDENTIFIER {
        return Err(ParseIdentifierError::Length(text.chars().take(MAX_IDENTIFIER).collect()));
    }
    let mut joined = true; // a separator may not come first, last, or after another
    for byte in text.bytes() {
        joined = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => false,
            b'.' | b'_' | b'-' if !joined => true,
            _ => return Err(ParseIdentifierError::Grammar(text.into())),
        };
    }
    if joined { Err(ParseIdentifierError::Grammar(text.into())) } else { Ok(()) }
}

/// Defines a newtype over a checked identifier.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseIdentifierError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check_identifier(text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

identifier! {
    /// Name of a containerd namespace.
    Namespace
}
identifier! {
    /// Id of a container, which is also the id of its task and the name of its bundle.
    ContainerId
}
identifier! {
    /// Id of an extra process in a task.
    ExecId
}
/// Id of a lease: visible ASCII, which a header can carry. It is no [identifier](check_identifier): Go's clients make up
/// ids such as `87058621--5Yn`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(Box<str>);

/// The longest lease id, in bytes.
const MAX_LEASE: usize = 1024;

impl LeaseId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LeaseId {
    type Err = ParseIdentifierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.len() {
            0 => Err(ParseIdentifierError::Empty),
            1..=MAX_LEASE if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Self(text.into())),
            1..=MAX_LEASE => Err(ParseIdentifierError::Grammar(text.into())),
            _ => Err(ParseIdentifierError::Length(text.chars().take(MAX_IDENTIFIER).collect())),
        }
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for LeaseId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_ids_are_what_gos_clients_make_up() {
        for good in ["87058621--5Yn", "a", "_x-", &"x".repeat(1024)] {
            assert!(good.parse::<LeaseId>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\n", "ä", &"x".repeat(1025)] {
            assert!(bad.parse::<LeaseId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_grammar_is_containerds() {
        for good in ["a", "default", "k8s.io", "a-b_c.d", "0", &"x".repeat(76)] {
            assert_eq!(check_identifier(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a-", "a..b", "a/b", "a b", "ä", "a\n", &"x".repeat(77)] {
            assert!(check_identifier(bad).is_err(), "{bad}");
        }
    }
}
