//! The URI of one standard file.

use std::path::PathBuf;

use spec::error::{HasKind, Kind};

/// What stands behind a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// A FIFO; also a plain path, which may turn out to be a file.
    Fifo,
    /// A file that grows.
    File,
    /// A log in the kubelet's format.
    Cri,
    /// A logging program.
    Binary,
    /// A logging program that must say that it is ready.
    BinaryV2,
}

/// A parsed URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri {
    /// What it is.
    pub scheme: Scheme,
    /// Where it is.
    pub path: PathBuf,
    /// The words after `?`: each key and its first value, as arguments of a logging program.
    pub arguments: Vec<String>,
}

/// Why a text names no standard file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// A scheme that the shim does not know.
    #[error("unknown STDIO scheme {0}")]
    Scheme(String),
    /// A percent sign without two digits, or bytes that make no text.
    #[error("unable to parse stdio uri {0:?}")]
    Escape(String),
    /// Not an absolute path.
    #[error("stdio path {0:?} is not absolute")]
    Relative(String),
}

impl HasKind for UriError {
    fn kind(&self) -> Kind {
        match self {
            Self::Scheme(_) | Self::Escape(_) | Self::Relative(_) => Kind::InvalidArgument,
        }
    }
}

impl Uri {
    /// Reads a URI or a plain path.
    ///
    /// # Errors
    /// See [`UriError`].
    pub fn parse(text: &str) -> Result<Self, UriError> {
        if text.starts_with('/') {
            // A plain path is a path, percent signs and all: clients do not escape it.
            return Ok(Self { scheme: Scheme::Fifo, path: text.into(), arguments: Vec::new() });
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(UriError::Relative(text.into()));
        };
        let scheme = match scheme {
            "fifo" => Scheme::Fifo,
            "file" => Scheme::File,
            "cri" => Scheme::Cri,
            "binary" => Scheme::Binary,
            "binary-v2" => Scheme::BinaryV2,
            other => return Err(UriError::Scheme(other.into())),
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let escape = || UriError::Escape(text.into());
        let path = unescape(path, false).ok_or_else(escape)?;
        if !path.starts_with('/') {
            return Err(UriError::Relative(text.into()));
        }
        let arguments = arguments(query).ok_or_else(escape)?;
        Ok(Self { scheme, path: path.into(), arguments })
    }
}

impl Uri {
    /// The value of `key`, if it is given.
    pub fn argument(&self, key: &str) -> Option<&str> {
        self.arguments.chunks_exact(2).find(|pair| pair[0] == key).map(|pair| pair[1].as_str())
    }
}

/// The words of a query. A key given twice counts once, with its first value.
fn arguments(query: &str) -> Option<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    let mut keys: Vec<String> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = unescape(key, true)?;
        if keys.contains(&key) {
            continue;
        }
        words.push(key.clone());
        words.push(unescape(value, true)?);
        keys.push(key);
    }
    Some(words)
}

/// Resolves `%XX`, and `+` in a query.
fn unescape(text: &str, query: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                bytes.push((high * 16 + low) as u8);
            }
            b'+' if query => bytes.push(b' '),
            0 => return None,
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_fifo_as_it_stands() {
        let uri = Uri::parse("/run/fifo/1%20/a-stdout").unwrap();
        assert_eq!((uri.scheme, uri.path), (Scheme::Fifo, "/run/fifo/1%20/a-stdout".into()));
        assert_eq!(Uri::parse("fifo:///x").unwrap().scheme, Scheme::Fifo);
    }

    #[test]
    fn a_logger_gets_keys_and_values_as_words() {
        let uri = Uri::parse("binary:///usr/bin/log%20er?--dir=%2Fvar+log&flag&--dir=second").unwrap();
        assert_eq!(uri.path, PathBuf::from("/usr/bin/log er"));
        assert_eq!(uri.arguments, ["--dir", "/var log", "flag", ""]);
    }

    #[test]
    fn arguments_are_found_by_their_key() {
        let uri = Uri::parse("cri:///var/log/pods/a%20b/0.log?max_line=7&x").unwrap();
        assert_eq!((uri.scheme, uri.path.as_path()), (Scheme::Cri, "/var/log/pods/a b/0.log".as_ref()));
        assert_eq!(
            (uri.argument("max_line"), uri.argument("x"), uri.argument("7")),
            (Some("7"), Some(""), None)
        );
    }

    #[test]
    fn what_is_no_uri_is_refused() {
        assert_eq!(Uri::parse("http://x").unwrap_err().to_string(), "unknown STDIO scheme http");
        assert!(matches!(Uri::parse("stdout"), Err(UriError::Relative(_))));
        assert!(matches!(Uri::parse("file://%zz"), Err(UriError::Escape(_))));
        assert!(matches!(Uri::parse("file:///a%00b"), Err(UriError::Escape(_))));
        assert!(matches!(Uri::parse("file://relative"), Err(UriError::Relative(_))));
    }
}
