//! `hosts.toml`: which endpoints serve a registry host, in which order, and how to speak to each.
//!
//! ```toml
//! server = "https://registry.example"          # tried last
//! [host."https://mirror.example"]              # tried first
//!   capabilities = ["pull", "resolve"]
//!   ca = "mirror.pem"
//! ```
//!
//! Invariant: [`parse`] is a function of its text: it never fails otherwise than with the line and the key at fault.

use std::path::PathBuf;
use std::time::Duration;

use spec::{HasKind, Kind};
use toml::de::{DeTable, DeValue};

use super::Tls;
use super::endpoint::Capabilities;

/// A parsed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// The mirrors in the file's order.
    pub mirrors: Vec<Host>,
    /// The upstream; without an address it is the registry itself.
    pub server: Host,
}

/// One endpoint of the file; certificate paths are as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where it is; none for the registry itself.
    pub address: Option<Address>,
    /// What it may be asked for.
    pub capabilities: Capabilities,
    /// TLS.
    pub tls: Tls,
    /// Header fields, in the file's order.
    pub headers: Vec<(String, String)>,
    /// How long its connection may take to come up.
    pub dial_timeout: Option<Duration>,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `http` or `https`.
    pub scheme: String,
    /// Host with its port.
    pub host: String,
    /// The root of the API.
    pub path: String,
}

impl Host {
    /// The registry itself, with nothing said about it.
    pub fn itself() -> Self {
        Self {
            address: None,
            capabilities: Capabilities::ALL,
            tls: Tls::default(),
            headers: Vec::new(),
            dial_timeout: None,
        }
    }
}

/// Why a hosts.toml was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {}{message}", if key.is_empty() { String::new() } else { format!("{key}: ") })]
pub struct HostsError {
    /// The line at fault, from 1.
    pub line: usize,
    /// The key at fault; empty when the file is not TOML at all.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

impl HasKind for HostsError {
    fn kind(&self) -> Kind {
        Kind::InvalidArgument
    }
}

/// Reads a hosts.toml.
///
/// # Errors
/// It is not TOML, or a key has a value that it cannot have. Unknown keys pass, as they do in containerd.
pub fn parse(text: &str) -> Result<Hosts, HostsError> {
    let document = DeTable::parse(text).map_err(|error| HostsError {
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        key: String::new(),
        message: error.message().to_owned(),
    })?;
    let root = Table { text, at: String::new(), rows: document.get_ref() };
    let mirrors = match root.rows.get("host") {
        None => Vec::new(),
        Some(value) => mirrors(&root, value)?,
    };
    let server = match root.string("server")? {
        Some((server, at)) if !server.is_empty() => Some((server, at)),
        _ => None,
    };
    Ok(Hosts { mirrors, server: root.host(server)? })
}

type Value<'i> = toml::Spanned<DeValue<'i>>;

fn mirrors(root: &Table<'_, '_>, value: &Value<'_>) -> Result<Vec<Host>, HostsError> {
    let DeValue::Table(rows) = value.get_ref() else {
        return Err(root.fail("host", value, "expected tables [host.\"URL\"]"));
    };
    let mut rows: Vec<_> = rows.iter().collect();
    // The parsed table is sorted by name; the file's order is the order of trying.
    rows.sort_by_key(|(name, _)| name.span().start);
    rows.into_iter()
        .map(|(name, value)| {
            let at = format!("host.\"{}\"", name.get_ref());
            let DeValue::Table(rows) = value.get_ref() else {
                return Err(root.fail(&at, value, "expected a table"));
            };
            let table = Table { text: root.text, at, rows };
            table.host(Some((name.get_ref().to_string(), name.span().start)))
        })
        .collect()
}

/// A table of the file with its path.
struct Table<'a, 'i> {
    text: &'a str,
    at: String,
    rows: &'a DeTable<'i>,
}

impl Table<'_, '_> {
    fn host(&self, address: Option<(String, usize)>) -> Result<Host, HostsError> {
        let override_path = self.boolean("override_path")?.unwrap_or(false);
        let address = match address {
            None => None,
            Some((text, at)) => Some(self.address(&text, at, override_path)?),
        };
        Ok(Host {
            address,
            capabilities: self.capabilities()?,
            tls: Tls {
                skip_verify: self.boolean("skip_verify")?,
                authorities: self.strings("ca")?.into_iter().map(PathBuf::from).collect(),
                clients: self.clients()?,
            },
            headers: self.headers()?,
            dial_timeout: self.duration("dial_timeout")?,
        })
    }

    fn address(&self, text: &str, at: usize, override_path: bool) -> Result<Address, HostsError> {
        let key = if self.at.is_empty() { "server" } else { &self.at };
        let fail = |message: &str| HostsError {
            line: line_of(self.text, at),
            key: key.into(),
            message: format!("unable to parse server {text:?}: {message}"),
        };
        let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let uri: http::Uri = whole.parse().map_err(|_| fail("not a URL"))?;
        let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"));
        let scheme = scheme.ok_or_else(|| fail("the scheme must be http or https"))?;
        let authority = uri.authority().ok_or_else(|| fail("no host"))?;
        if authority.as_str().contains('@') {
            return Err(fail("credentials do not belong into an address"));
        }
        let mut path = clean(uri.path());
        if path.is_empty() {
            if !override_path {
                path = "/v2".into();
            }
        } else if !path.ends_with("/v2") && !override_path {
            path.push_str("/v2");
        }
        Ok(Address { scheme: scheme.into(), host: authority.as_str().into(), path })
    }

    fn capabilities(&self) -> Result<Capabilities, HostsError> {
        let Some(value) = self.rows.get("capabilities") else { return Ok(Capabilities::ALL) };
        let words = self.list("capabilities", value)?;
        if words.is_empty() {
            return Ok(Capabilities::ALL);
        }
        let mut found = Capabilities::NONE;
        for word in words {
            match word.to_lowercase().as_str() {
                "pull" => found.pull = true,
                "resolve" => found.resolve = true,
                "push" => found.push = true,
                "referrers" => found.referrers = true,
                _ => return Err(self.fail("capabilities", value, format!("unknown capability {word:?}"))),
            }
        }
        Ok(found)
    }

    fn clients(&self) -> Result<Vec<(PathBuf, Option<PathBuf>)>, HostsError> {
        let Some(value) = self.rows.get("client") else { return Ok(Vec::new()) };
        match value.get_ref() {
            DeValue::String(one) => Ok(vec![(PathBuf::from(one.as_ref()), None)]),
            DeValue::Array(rows) => rows
                .iter()
                .map(|row| match row.get_ref() {
                    DeValue::String(one) => Ok((PathBuf::from(one.as_ref()), None)),
                    DeValue::Array(_) => match self.list("client", row)?.as_slice() {
                        [certificate, key] => Ok((PathBuf::from(certificate), Some(PathBuf::from(key)))),
                        _ => Err(self.fail("client", row, "expected a pair of certificate and key")),
                    },
                    _ => Err(self.fail("client", row, "expected a file or a pair of files")),
                })
                .collect(),
            _ => Err(self.fail("client", value, "expected a file, files, or pairs of files")),
        }
    }

    fn headers(&self) -> Result<Vec<(String, String)>, HostsError> {
        let Some(value) = self.rows.get("header") else { return Ok(Vec::new()) };
        let DeValue::Table(rows) = value.get_ref() else {
            return Err(self.fail("header", value, "expected a table"));
        };
        let mut rows: Vec<_> = rows.iter().collect();
        rows.sort_by_key(|(name, _)| name.span().start);
        let mut headers = Vec::new();
        for (name, value) in rows {
            let key = format!("header.{}", name.get_ref());
            if http::HeaderName::from_bytes(name.get_ref().as_bytes()).is_err() {
                return Err(self.fail(&key, value, "not the name of a header field"));
            }
            for text in self.list(&key, value)? {
                if http::HeaderValue::from_str(&text).is_err() {
                    return Err(self.fail(&key, value, "not the value of a header field"));
                }
                headers.push((name.get_ref().to_string(), text));
            }
        }
        Ok(headers)
    }

    fn duration(&self, key: &str) -> Result<Option<Duration>, HostsError> {
        let Some((text, at)) = self.string(key)? else { return Ok(None) };
        if text.is_empty() {
            return Ok(None);
        }
        humantime::parse_duration(&text).map(Some).map_err(|error| HostsError {
            line: line_of(self.text, at),
            key: self.path(key),
            message: format!("{text:?} is no duration: {error}"),
        })
    }

    fn boolean(&self, key: &str) -> Result<Option<bool>, HostsError> {
        match self.rows.get(key).map(|value| (value, value.get_ref())) {
            None => Ok(None),
            Some((_, DeValue::Boolean(flag))) => Ok(Some(*flag)),
            Some((value, _)) => Err(self.fail(key, value, "expected true or false")),
        }
    }

    fn string(&self, key: &str) -> Result<Option<(String, usize)>, HostsError> {
        match self.rows.get(key).map(|value| (value, value.get_ref())) {
            None => Ok(None),
            Some((value, DeValue::String(text))) => Ok(Some((text.to_string(), value.span().start))),
            Some((value, _)) => Err(self.fail(key, value, "expected a string")),
        }
    }

    /// A string or a list of strings; nothing for a key that is not there.
    fn strings(&self, key: &str) -> Result<Vec<String>, HostsError> {
        self.rows.get(key).map_or(Ok(Vec::new()), |value| self.list(key, value))
    }

    fn list(&self, key: &str, value: &Value<'_>) -> Result<Vec<String>, HostsError> {
        match value.get_ref() {
            DeValue::String(text) => Ok(vec![text.to_string()]),
            DeValue::Array(rows) => rows
                .iter()
                .map(|row| match row.get_ref() {
                    DeValue::String(text) => Ok(text.to_string()),
                    _ => Err(self.fail(key, row, "expected a string")),
                })
                .collect(),
            _ => Err(self.fail(key, value, "expected a string or a list of strings")),
        }
    }

    fn fail(&self, key: &str, value: &Value<'_>, message: impl Into<String>) -> HostsError {
        let key = if key.starts_with("host.") { key.to_owned() } else { self.path(key) };
        HostsError { line: line_of(self.text, value.span().start), key, message: message.into() }
    }

    fn path(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }
}

/// `path` without doubled and closing slashes and without `.` and `..`.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.iter().fold(String::new(), |whole, part| whole + "/" + part)
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(scheme: &str, host: &str, path: &str) -> Option<Address> {
        Some(Address { scheme: scheme.into(), host: host.into(), path: path.into() })
    }

    #[test]
    fn mirrors_keep_the_files_order_and_the_server_comes_apart() {
        let text = r#"
server = "https://registry-1.docker.io"
skip_verify = false

[host."https://z.example"]
  capabilities = ["pull", "Resolve"]
  ca = ["a.pem", "/etc/b.pem"]
  client = [["c.cert", "c.key"], "both.pem"]
  dial_timeout = "3s"
  [host."https://z.example".header]
    x-one = "1"
    x-two = ["2", "3"]

[host."http://a.example:5000/proxy"]
  override_path = true
[host."b.example/sub"]
[host."httpd.example:5000"]
"#;
        let hosts = parse(text).unwrap();
        assert_eq!(hosts.server.address, address("https", "registry-1.docker.io", "/v2"));
        assert_eq!(hosts.server.tls.skip_verify, Some(false));
        let addresses: Vec<_> = hosts.mirrors.iter().map(|host| host.address.clone()).collect();
        let wanted = [
            address("https", "z.example", "/v2"),
            address("http", "a.example:5000", "/proxy"),
            address("https", "b.example", "/sub/v2"),
            address("https", "httpd.example:5000", "/v2"),
        ];
        assert_eq!(addresses, wanted);
        let first = &hosts.mirrors[0];
        assert_eq!(first.capabilities, Capabilities { pull: true, resolve: true, ..Capabilities::NONE });
        assert_eq!(first.tls.authorities, [PathBuf::from("a.pem"), PathBuf::from("/etc/b.pem")]);
        assert_eq!(first.tls.clients.len(), 2);
        assert_eq!(first.dial_timeout, Some(Duration::from_secs(3)));
        let headers: Vec<_> = first.headers.iter().map(|(k, v)| format!("{k}:{v}")).collect();
        assert_eq!(headers, ["x-one:1", "x-two:2", "x-two:3"]);
    }

    #[test]
    fn an_empty_file_means_the_registry_itself() {
        assert_eq!(parse("").unwrap(), Hosts { mirrors: vec![], server: Host::itself() });
    }

    #[test]
    fn a_fault_is_named_by_line_and_key() {
        for (text, wanted) in [
            ("server = 5", "line 1: server: expected a string"),
            ("\nskip_verify = \"yes\"", "line 2: skip_verify: expected true or false"),
            (
                "[host.\"https://a\"]\ncapabilities = [\"fly\"]",
                "line 2: host.\"https://a\".capabilities: unknown capability \"fly\"",
            ),
            (
                "[host.\"https://a\"]\nca = 1",
                "line 2: host.\"https://a\".ca: expected a string or a list of strings",
            ),
            ("host = 3", "line 1: host: expected tables [host.\"URL\"]"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), wanted);
        }
        assert!(parse("a = \n").unwrap_err().to_string().starts_with("line 1: "));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC*") {
            let _ = parse(&text);
        }

        #[test]
        fn near_misses_are_parsed_or_refused(
            key in "(server|host|ca|client|header|capabilities|dial_timeout|skip_verify|override_path)",
            value in "(1|true|\"[a-z:/@.0-9-]{0,12}\"|\\[\"x\"\\]|\\[\\[\"a\",\"b\"\\]\\]|\\{a = \"b\"\\}|-1.5)",
        ) {
            let _ = parse(&format!("{key} = {value}\n[host.\"http://x\"]\n{key} = {value}"));
        }
    }
}
