//! Who we are at a registry: what the kubelet says, else what the configuration says.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::spec::Error;
use api::runtime::v1::AuthConfig;
use model::Result;
use model::pull::{Login, LoginFor, LoginHost};

use crate::config::RegistryHost;

/// The longest base64 form of credentials, in bytes.
const MAX_AUTH: usize = 64 * 1024;
/// The names of Docker Hub, which are one registry.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// Answers with `request` when the kubelet sent one, and with the configuration's `hosts` otherwise.
pub fn login(request: Option<AuthConfig>, hosts: &BTreeMap<String, RegistryHost>) -> LoginFor {
    let hosts = hosts.clone();
    Arc::new(move |host| match (&request, host) {
        // Without an address the login is the image's registry's, whoever that redirects to.
        (Some(auth), LoginHost::Redirected(_)) if auth.server_address.is_empty() => Ok(None),
        (Some(auth), LoginHost::Endpoint(host) | LoginHost::Redirected(host)) => at(auth, host),
        (None, LoginHost::Endpoint(host) | LoginHost::Redirected(host)) => {
            hosts.get(host).map_or(Ok(None), |configured| at(&configured_auth(configured), host))
        }
    })
}

/// Answers with the configuration's `hosts`.
pub fn configured_login(hosts: &BTreeMap<String, RegistryHost>) -> LoginFor {
    login(None, hosts)
}

fn configured_auth(host: &RegistryHost) -> AuthConfig {
    AuthConfig {
        username: host.username.clone(),
        password: host.password.clone(),
        auth: host.auth.clone(),
        identity_token: host.identity_token.clone(),
        ..AuthConfig::default()
    }
}

/// What `auth` says for `host`: a password before a token before the base64 form. A registry token is not looked at.
fn at(auth: &AuthConfig, host: &str) -> Result<Option<Login>> {
    if !auth.server_address.is_empty() && !is_same(server(&auth.server_address), host) {
        return Ok(None);
    }
    if !auth.username.is_empty() {
        let (user, secret) = (auth.username.clone(), auth.password.clone());
        return Ok(Some(Login::Password { user, secret }));
    }
    if !auth.identity_token.is_empty() {
        return Ok(Some(Login::Token(auth.identity_token.clone())));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    // The text is a secret: no error shows it.
    let wrong = || Error::invalid("the base64 form of the credentials is not user:password");
    let decoded = decode(&auth.auth).and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(wrong)?;
    let (user, secret) = decoded.split_once(':').ok_or_else(wrong)?;
    let secret = secret.trim_matches('\0').to_owned();
    Ok(Some(Login::Password { user: user.to_owned(), secret }))
}

/// `host[:port]` of a server address, with or without scheme and path.
fn server(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

fn is_same(one: &str, other: &str) -> bool {
    one == other || (DOCKER_HUB.contains(&one) && DOCKER_HUB.contains(&other))
}

/// Standard base64, with its padding or without.
fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    if text.len() > MAX_AUTH || text.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(change: impl FnOnce(&mut AuthConfig)) -> AuthConfig {
        let mut auth = AuthConfig::default();
        change(&mut auth);
        auth
    }

    fn password(user: &str, secret: &str) -> Option<Login> {
        Some(Login::Password { user: user.into(), secret: secret.into() })
    }

    #[test]
    fn a_password_goes_before_a_token_before_the_base64_form() {
        let all = auth(|auth| {
            auth.username = "u".into();
            auth.password = "p".into();
            auth.identity_token = "t".into();
            auth.auth = "eDp5".into();
        });
        assert_eq!(at(&all, "r.io").unwrap(), password("u", "p"));
        let token = AuthConfig { username: String::new(), ..all.clone() };
        assert_eq!(at(&token, "r.io").unwrap(), Some(Login::Token("t".into())));
        let encoded = AuthConfig { identity_token: String::new(), ..token };
        assert_eq!(at(&encoded, "r.io").unwrap(), password("x", "y"));
        assert_eq!(at(&AuthConfig::default(), "r.io").unwrap(), None);
    }

    #[test]
    fn credentials_go_only_to_the_server_they_are_for() {
        for (server, host, ours) in [
            ("https://r.io", "r.io", true),
            ("https://r.io:5000/v2/", "r.io:5000", true),
            ("https://r.io", "evil.io", false),
            ("r.io", "r.io", true),
            ("https://index.docker.io/v1/", "registry-1.docker.io", true),
            ("https://index.docker.io/v1/", "r.io", false),
        ] {
            let auth = auth(|auth| {
                auth.username = "u".into();
                auth.server_address = server.into();
            });
            assert_eq!(at(&auth, host).unwrap().is_some(), ours, "{server} at {host}");
        }
    }

    #[test]
    fn the_base64_form_is_checked_and_never_shown() {
        for (text, expected) in [("dTpw", password("u", "p")), ("dTpwYTo=", password("u", "pa:"))] {
            assert_eq!(at(&auth(|auth| auth.auth = text.into()), "r.io").unwrap(), expected, "{text}");
        }
        for text in ["%%%", "c2VjcmV0", "A", &"A".repeat(100_000)] {
            let error = at(&auth(|auth| auth.auth = text.into()), "r.io").unwrap_err();
            assert!(!error.text().contains(text) && !error.text().contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_configuration_speaks_when_the_kubelet_does_not() {
        let configured = RegistryHost { username: "c".into(), ..RegistryHost::default() };
        let hosts = BTreeMap::from([("r.io".to_owned(), configured)]);
        let (known, other) = (LoginHost::Endpoint("r.io"), LoginHost::Endpoint("other.io"));
        assert_eq!(login(None, &hosts)(known).unwrap(), password("c", ""));
        assert_eq!(login(None, &hosts)(LoginHost::Redirected("r.io")).unwrap(), password("c", ""));
        assert_eq!(login(None, &hosts)(other).unwrap(), None);
        assert_eq!(login(Some(AuthConfig::default()), &hosts)(known).unwrap(), None);
    }

    #[test]
    fn login_without_an_address_does_not_follow_a_redirect() {
        let mut request = auth(|auth| auth.username = "u".into());
        let hosts = BTreeMap::new();
        let at = |request: &AuthConfig, host| login(Some(request.clone()), &hosts)(host).unwrap();
        assert_eq!(at(&request, LoginHost::Endpoint("r.io")), password("u", ""));
        assert_eq!(at(&request, LoginHost::Redirected("cdn.io")), None);
        request.server_address = "https://cdn.io".into();
        assert_eq!(at(&request, LoginHost::Redirected("cdn.io")), password("u", ""));
        assert_eq!(at(&request, LoginHost::Redirected("evil.io")), None);
    }
}
