//! Image references: `host[:port]/path[:tag][@digest]`, as containerd stores them.
//!
//! Two readings: [`Reference::from_str`] takes only a full reference, as `ctr` and the store do; [`Reference::familiar`]
//! also takes the short forms that people type (`nginx` is `docker.io/library/nginx:latest`), as CRI and nerdctl do.

use std::fmt;
use std::str::FromStr;

use crate::{Digest, HasKind, Kind};

/// The longest reference, in bytes.
const MAX_REFERENCE: usize = 4096;
/// The longest tag, in bytes.
const MAX_TAG: usize = 128;
/// The longest repository path, in bytes.
const MAX_PATH: usize = 255;

/// A full reference: a registry host, a repository, and a tag, a digest, or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    host: Box<str>,
    path: Box<str>,
    tag: Option<Box<str>>,
    digest: Option<Digest>,
}

/// Why a text is no reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    /// Empty, too long, or with a character that no reference has.
    #[error("invalid reference {0:?}: invalid reference format")]
    Format(String),
    /// No host before the first slash.
    #[error("invalid reference {0:?}: hostname required")]
    HostRequired(String),
    /// Neither tag nor digest.
    #[error("invalid reference {0:?}: object required")]
    ObjectRequired(String),
    /// Upper-case letters in the repository.
    #[error("invalid reference {0:?}: repository name must be lowercase")]
    Uppercase(String),
    /// What follows the `@` is no digest.
    #[error("invalid reference {0:?}: {1}")]
    Digest(String, crate::digest::ParseDigestError),
}

impl HasKind for ParseReferenceError {
    fn kind(&self) -> Kind {
        Kind::InvalidArgument
    }
}

impl Reference {
    /// Reads what a person types: a missing host is `docker.io`, a missing tag `latest`, and Docker Hub's one-part
    /// repositories live in `library/`.
    ///
    /// # Errors
    /// The text cannot be read as a reference even so.
    pub fn familiar(text: &str) -> Result<Self, ParseReferenceError> {
        let (host, rest) = match text.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest.to_owned()),
            _ => ("docker.io", text.to_owned()),
        };
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        let rest = if host == "docker.io" && !rest.contains('/') { format!("library/{rest}") } else { rest };
        let has_tag = rest.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
        let rest = if has_tag { rest } else { format!("{rest}:latest") };
        format!("{host}/{rest}").parse()
    }

    /// The registry host with its port, as written: `docker.io`, `localhost:5000`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository: `library/nginx`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest when there is one, else the tag.
    pub fn object(&self) -> &str {
        self.digest.as_ref().map(Digest::as_str).or(self.tag()).unwrap_or_default()
    }

    /// `host/path`, without tag and digest.
    pub fn locator(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || text.chars().take(256).collect::<String>();
        let format = || ParseReferenceError::Format(shown());
        if text.is_empty() || text.len() > MAX_REFERENCE {
            return Err(format());
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|error| ParseReferenceError::Digest(shown(), error))?))
            }
            None => (text, None),
        };
        let (host, rest) = rest.split_once('/').ok_or_else(|| ParseReferenceError::HostRequired(shown()))?;
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if !is_host(host) || tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(format());
        }
        if path.len() > MAX_PATH || !path.split('/').all(is_path_part) {
            let lower = path.to_lowercase();
            let only_case = lower != path && lower.split('/').all(is_path_part);
            return Err(if only_case { ParseReferenceError::Uppercase(shown()) } else { format() });
        }
        if tag.is_none() && digest.is_none() {
            return Err(ParseReferenceError::ObjectRequired(shown()));
        }
        Ok(Self { host: host.into(), path: path.into(), tag: tag.map(Into::into), digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// A host name or address with an optional port; IPv6 in brackets.
fn is_host(text: &str) -> bool {
    let (name, port) = if let Some(rest) = text.strip_prefix('[') {
        match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            }
            _ => return false,
        }
    } else {
        match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        }
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// `[\w][\w.-]{0,127}` of the distribution specification.
fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` of the distribution specification.
fn is_path_part(text: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with(alnum) || !text.ends_with(alnum) {
        return false;
    }
    text.split(alnum)
        .filter(|gap| !gap.is_empty())
        .all(|gap| matches!(gap, "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_references_round_trip() {
        for text in [
            "docker.io/library/nginx:alpine",
            "localhost:5000/a/b__c/d-e:v1.0",
            "[::1]:5000/x:y",
            "ghcr.io/a/b@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "r.io/a:t@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = format!("a.io/{}:t", "x/".repeat(3000));
        for text in [
            "",
            "nginx",
            "a.io/",
            "a.io/b",
            "a.io/b:",
            "a.io/../b:t",
            "a.io/b:t/c",
            "a.io//b:t",
            "a b.io/c:d",
            "a.io/b@sha256:xyz",
            "a.io/B:t",
            "a.io:99999/b:t",
            "a.io/b:t\n",
            "-a/b:c",
            "a.io/b.:t",
            "a.io/b___c:t",
            &long,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    #[test]
    fn short_names_are_docker_hubs() {
        for (typed, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("a/b:c", "docker.io/a/b:c"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("quay.io/a/b", "quay.io/a/b:latest"),
        ] {
            assert_eq!(Reference::familiar(typed).unwrap().to_string(), full);
        }
    }

    /// Every reference of the distribution specification's grammar.
    fn valid() -> impl proptest::strategy::Strategy<Value = String> {
        const HOST: &str = "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\\.[a-z]{2,5}){0,2}(:[1-9][0-9]{0,3})?";
        const PATH: &str = "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,6}){0,2}(/[a-z0-9]{1,6}){0,3}";
        const OBJECT: &str = "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})|((:[a-z]{1,9})?@sha256:[0-9a-f]{64})";
        proptest::string::string_regex(&format!("{HOST}/{PATH}({OBJECT})")).unwrap()
    }

    proptest::proptest! {
        #[test]
        fn every_valid_reference_round_trips(text in valid()) {
            let parsed: Reference = text.parse().unwrap();
            proptest::prop_assert_eq!(parsed.to_string(), text);
        }

        #[test]
        fn any_text_is_read_whole_or_refused(text in ".{0,80}") {
            if let Ok(parsed) = text.parse::<Reference>() {
                proptest::prop_assert_eq!(parsed.to_string(), text);
            }
        }

        #[test]
        fn what_a_person_types_becomes_a_full_reference(text in "[a-z0-9.:/@_-]{1,60}") {
            if let Ok(parsed) = Reference::familiar(&text) {
                proptest::prop_assert_eq!(parsed.to_string().parse::<Reference>().unwrap(), parsed);
            }
        }
    }
}
