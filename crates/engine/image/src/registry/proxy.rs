//! Which proxy the environment names for an address, by the rules of Go's `httpproxy`.
//!
//! `HTTP_PROXY` counts for http, `HTTPS_PROXY` for https, `ALL_PROXY` for what has none of its own; each in either case.
//! `NO_PROXY` lists what is reached straight: `*`, a domain (with its subdomains; `.domain` and `*.domain` mean the
//! subdomains alone), an address, a network `10.0.0.0/8`; a domain or an address may have a `:port`.
//!
//! Invariant: the loopback is never reached through a proxy, where it would be another machine's.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};

use super::endpoint::is_localhost;

/// The proxies of an environment.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    straight: Vec<Rule>,
}

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// How to speak to it.
    pub kind: ProxyKind,
    /// Its address: scheme, host and port.
    pub uri: Uri,
    /// User and password.
    pub login: Option<(String, String)>,
}

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP in clear.
    Http,
    /// HTTP by TLS.
    Https,
    /// SOCKS 5; names are resolved by the proxy.
    Socks5,
}

impl std::fmt::Debug for Proxy {
    /// Names the address, never the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.uri)
    }
}

/// One entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Everything,
    Network {
        address: IpAddr,
        prefix: u8,
    },
    Address {
        address: IpAddr,
        port: Option<u16>,
    },
    /// `suffix` begins with a dot; `own` when the domain without it counts too.
    Domain {
        suffix: String,
        own: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    /// Those that the variables of `get` name.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            let get = |name: &str| get(name).filter(|value| !value.is_empty());
            get(name).or_else(|| get(&name.to_lowercase()))
        };
        let named = |name| either(name).as_deref().and_then(Proxy::parse);
        // A CGI server would set HTTP_PROXY from its client's `Proxy:` field.
        let is_cgi = get("REQUEST_METHOD").is_some_and(|value| !value.is_empty());
        let http = if is_cgi { None } else { named("HTTP_PROXY").or_else(|| named("ALL_PROXY")) };
        let straight = either("NO_PROXY").unwrap_or_default();
        Self {
            http,
            https: named("HTTPS_PROXY").or_else(|| named("ALL_PROXY")),
            straight: straight.split(',').filter_map(Rule::parse).collect(),
        }
    }

    /// Whether any of them is spoken to by TLS.
    pub fn any_by_tls(&self) -> bool {
        [&self.http, &self.https].into_iter().flatten().any(|proxy| proxy.kind == ProxyKind::Https)
    }

    /// The proxy on the way to `to`.
    pub fn of(&self, to: &Uri) -> Option<&Proxy> {
        let (proxy, port) = match to.scheme_str()? {
            "http" => (self.http.as_ref()?, 80),
            "https" => (self.https.as_ref()?, 443),
            _ => return None,
        };
        let host = bare(to.host()?).to_lowercase();
        let port = to.port_u16().unwrap_or(port);
        let straight = is_localhost(&host) || self.straight.iter().any(|rule| rule.fits(&host, port));
        (!straight).then_some(proxy)
    }
}

impl Proxy {
    /// Reads `[scheme://][user[:password]@]host[:port]`; `None` for what no proxy is spoken to by.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (kind, default_port) = match scheme.to_lowercase().as_str() {
            "http" => (ProxyKind::Http, 80),
            "https" => (ProxyKind::Https, 443),
            "socks5" | "socks5h" => (ProxyKind::Socks5, 1080),
            _ => return None,
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        let login = login.map(|login| {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            (decoded(user), decoded(password))
        });
        let address: http::uri::Authority = host.parse().ok()?;
        let port = address.port_u16().unwrap_or(default_port);
        if address.host().is_empty() {
            return None;
        }
        // A connector knows http and https alone.
        let scheme = if kind == ProxyKind::Https { "https" } else { "http" };
        let uri = format!("{scheme}://{}:{port}/", address.host()).parse().ok()?;
        Some(Self { kind, uri, login })
    }

    /// `scheme://host:port`, for people.
    pub fn shown(&self) -> String {
        let scheme = match self.kind {
            ProxyKind::Http => "http",
            ProxyKind::Https => "https",
            ProxyKind::Socks5 => "socks5",
        };
        let authority = self.uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        format!("{scheme}://{authority}")
    }

    /// The field by which an HTTP proxy is told the user and the password.
    pub fn authorization(&self) -> Option<HeaderValue> {
        if self.kind == ProxyKind::Socks5 {
            return None;
        }
        let (user, password) = self.login.as_ref()?;
        let encoded = STANDARD.encode(format!("{user}:{password}"));
        let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl Rule {
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_lowercase();
        if entry == "*" {
            return Some(Self::Everything);
        }
        if let Some((address, prefix)) = entry.split_once('/')
            && let (Ok(address), Ok(prefix)) = (address.parse::<IpAddr>(), prefix.parse::<u8>())
            && prefix <= if address.is_ipv4() { 32 } else { 128 }
        {
            return Some(Self::Network { address, prefix });
        }
        let (host, port) = split_port(&entry);
        if host.is_empty() {
            return None;
        }
        if let Ok(address) = bare(host).parse::<IpAddr>() {
            return Some(Self::Address { address: address.to_canonical(), port });
        }
        let host = if host.starts_with("*.") { &host[1..] } else { host };
        let own = !host.starts_with('.');
        let suffix = if own { format!(".{host}") } else { host.to_owned() };
        Some(Self::Domain { suffix, own, port })
    }

    /// Whether it names `host` (in lower case, without brackets) and `port`.
    fn fits(&self, host: &str, port: u16) -> bool {
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        match self {
            Self::Everything => true,
            Self::Network { address: network, prefix } => {
                address.is_some_and(|address| is_within(address, *network, *prefix))
            }
            Self::Address { address: own, port: wanted } => {
                address == Some(*own) && wanted.is_none_or(|wanted| wanted == port)
            }
            Self::Domain { suffix, own, port: wanted } => {
                (host.ends_with(suffix.as_str()) || *own && host == &suffix[1..])
                    && wanted.is_none_or(|wanted| wanted == port)
            }
        }
    }
}

/// `host:port` apart; an IPv6 address without brackets has no port.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            // A port that is none fits nothing, as in Go.
            Err(_) if port.is_empty() => (host, None),
            Err(_) => (host, Some(0)),
        },
        _ => (entry, None),
    }
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn is_within(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            u32::from(address) & mask == u32::from(network) & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            u128::from(address) & mask == u128::from(network) & mask
        }
        _ => false,
    }
}

/// `text` with its `%XX` replaced.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        let variables = variables.to_vec();
        Proxies::from_variables(move |name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn is_straight(no_proxy: &str, to: &str) -> bool {
        let proxies = proxies(&[("HTTP_PROXY", "p:1"), ("https_proxy", "p:2"), ("NO_PROXY", no_proxy)]);
        proxies.of(&to.parse().unwrap()).is_none()
    }

    #[test]
    fn no_proxy_entry_that_fits_is_reached_straight() {
        for (no_proxy, to) in [
            ("*", "http://a"),
            ("x, reg.example ", "http://reg.example/v2/"),
            ("example", "http://reg.example"),
            (".example", "http://reg.example"),
            ("*.example", "http://reg.example:5000"),
            ("*.EXAMPLE", "http://REG.example"),
            ("reg.example:80", "http://reg.example"),
            ("reg.example:443", "https://reg.example"),
            ("*.example:5000", "http://reg.example:5000"),
            ("10.0.0.0/8", "http://10.99.99.98"),
            ("10.0.0.1", "http://10.0.0.1:5000"),
            ("10.0.0.1:5000", "http://10.0.0.1:5000"),
            ("fd00::/8", "http://[fd00::1]:80"),
            ("fd00::1", "http://[fd00::1]:80"),
            ("[fd00::1]:80", "http://[fd00::1]"),
            ("::ffff:10.0.0.1", "http://10.0.0.1"),
        ] {
            assert!(is_straight(no_proxy, to), "NO_PROXY={no_proxy} {to}");
        }
    }

    #[test]
    fn no_proxy_entry_that_does_not_fit_leaves_the_proxy() {
        for (no_proxy, to) in [
            ("", "http://reg.example"),
            ("x", "http://reg.example"),
            (".example", "http://example"),
            ("*.example", "http://example"),
            ("eg.example", "http://reg.example"),
            ("reg.example:81", "http://reg.example"),
            ("reg.example:80", "https://reg.example"),
            ("reg.example:x", "http://reg.example"),
            ("10.0.0.0/8", "http://11.0.0.1"),
            ("10.0.0.0/33", "http://10.0.0.1"),
            ("10.0.0.1:80", "http://10.0.0.1:5000"),
            (":80", "http://reg.example"),
            ("reg.*", "http://reg.example"),
        ] {
            assert!(!is_straight(no_proxy, to), "NO_PROXY={no_proxy} {to}");
        }
    }

    #[test]
    fn loopback_is_reached_straight() {
        for to in ["http://127.0.0.1:5000", "https://localhost", "http://LOCALHOST:80", "http://[::1]:5000"] {
            assert!(is_straight("x", to), "{to}");
        }
    }

    #[test]
    fn proxy_is_chosen_by_scheme() {
        let shown = |variables: &[(&str, &str)], to: &str| {
            proxies(variables).of(&to.parse().unwrap()).map(Proxy::shown)
        };
        let both = [("http_proxy", "http://a"), ("HTTPS_PROXY", "https://b:8443/x"), ("ALL_PROXY", "c")];
        assert_eq!(shown(&both, "http://r").as_deref(), Some("http://a:80"));
        assert_eq!(shown(&both, "https://r").as_deref(), Some("https://b:8443"));
        assert_eq!(shown(&both[2..], "https://r").as_deref(), Some("http://c:80"));
        assert_eq!(shown(&[("HTTP_PROXY", "socks5://s")], "http://r").as_deref(), Some("socks5://s:1080"));
        assert_eq!(shown(&[("HTTP_PROXY", "socks5h://s:9")], "http://r").as_deref(), Some("socks5://s:9"));
        assert_eq!(shown(&[("HTTP_PROXY", "gopher://s")], "http://r"), None);
        assert_eq!(shown(&[("HTTP_PROXY", "a"), ("REQUEST_METHOD", "GET")], "http://r"), None);
        assert_eq!(
            shown(&[("HTTP_PROXY", ""), ("http_proxy", "l")], "http://r").as_deref(),
            Some("http://l:80")
        );
    }

    #[test]
    fn login_of_a_proxy_is_kept_apart_from_its_address() {
        let proxies = proxies(&[("HTTP_PROXY", "http://us%40er:p%3ass@[fd00::2]:3128")]);
        let proxy = proxies.of(&"http://r".parse().unwrap()).unwrap();
        assert_eq!(proxy.login, Some(("us@er".into(), "p:ss".into())));
        assert_eq!(proxy.authorization().unwrap(), &format!("Basic {}", STANDARD.encode("us@er:p:ss")));
        assert_eq!(
            (format!("{proxy:?}"), proxy.shown()),
            ("http://[fd00::2]:3128/".to_owned(), "http://[fd00::2]:3128".to_owned(),)
        );
    }
}
