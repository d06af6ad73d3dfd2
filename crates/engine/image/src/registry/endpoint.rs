//! One endpoint: where a registry or its mirror is, what it may be asked for, and how to speak to it.

use std::time::Duration;

use super::Tls;

/// What an endpoint may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Content by digest.
    pub pull: bool,
    /// The digest of a tag.
    pub resolve: bool,
    /// To take content.
    pub push: bool,
    /// What refers to a manifest.
    pub referrers: bool,
}

impl Capabilities {
    /// Everything, as an endpoint without a list has.
    pub const ALL: Self = Self { pull: true, resolve: true, push: true, referrers: true };
    /// Nothing.
    pub const NONE: Self = Self { pull: false, resolve: false, push: false, referrers: false };
}

/// How sure the scheme of an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It was chosen.
    None,
    /// http was chosen but TLS settings were made too: https counts until its handshake fails.
    PlainIfNoTls,
    /// A port of this machine about which nobody said anything: http counts until the peer turns out to speak TLS. The
    /// first request carries no credentials, and loopback has no eavesdropper that TLS would stop.
    TlsIfNotPlain,
}

/// One endpoint of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `http` or `https`.
    pub scheme: String,
    /// Host with its port, as written.
    pub host: String,
    /// The root of the API: `/v2`.
    pub path: String,
    /// What it may be asked for.
    pub capabilities: Capabilities,
    /// TLS.
    pub tls: Tls,
    /// Header fields of every request to it.
    pub headers: Vec<(String, String)>,
    /// How long its connection may take to come up.
    pub dial_timeout: Option<Duration>,
    /// What to do when the scheme proves wrong.
    pub doubt: Doubt,
    /// The registry that it mirrors, sent along as `ns`; none for the registry itself.
    pub namespace: Option<String>,
}

impl Endpoint {
    /// `scheme://host`, for logs and errors.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.host)
    }
}

/// Whether `host[:port]` is this machine by name or address.
pub fn is_localhost(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The port of `host[:port]`, if it has one.
pub fn port(host: &str) -> Option<&str> {
    let (_, port) = host.rsplit_once(':')?;
    (!port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_many_names() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:80", "127.9.9.9", "[::1]:5000", "[::1]", "::1"]
        {
            assert!(is_localhost(host), "{host}");
        }
        for host in ["localhost.example", "docker.io", "128.0.0.1:5000", "[::2]", ""] {
            assert!(!is_localhost(host), "{host}");
        }
    }
}
