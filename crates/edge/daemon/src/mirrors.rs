//! The older tables of the registry configuration: mirrors by host, and TLS by endpoint.
//!
//! The endpoints of a host are tried in the file's order, and last the registry itself unless it is among them. They are
//! asked to resolve and to pull, never to push.

use std::path::PathBuf;

use cri::config::{Registry, RegistryHost};
use image::registry::{self, Capabilities, Doubt, Endpoint, Tls};
use model::{Error, Result};
use spec::Reference;

/// Where `hosts.toml` files are when the configuration does not say.
const HOSTS_DIR: &str = "/etc/containerd/certs.d:/etc/docker/certs.d";
/// What stands for every host without a row of its own.
const ANY: &str = "*";
/// Where Docker Hub answers.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// How the kubelet's images are brought: by its own configuration `registry`, else by the `hosts.toml` files in `usual`.
///
/// # Errors
/// `InvalidArgument` when an endpoint is no address.
pub fn config(reference: &Reference, registry: &Registry, usual: &str) -> Result<registry::Config> {
    let hosts_dir = [registry.config_path.as_str(), usual].into_iter().find(|path| !path.is_empty());
    Ok(registry::Config {
        hosts_dir: Some(hosts_dir.unwrap_or(HOSTS_DIR).to_owned()),
        endpoints: endpoints(reference.host(), registry)?,
        headers: headers(registry),
        tls: tls(registry.configs.get(reference.host())),
        ..registry::Config::default()
    })
}

/// The endpoints that serve `host` by these tables; none when they say nothing of mirrors, or a directory of `hosts.toml`
/// files is configured.
///
/// # Errors
/// `InvalidArgument` when an endpoint is no address.
pub fn endpoints(host: &str, registry: &Registry) -> Result<Option<Vec<Endpoint>>> {
    if !registry.config_path.is_empty() || registry.mirrors.is_empty() {
        return Ok(None);
    }
    let configured = registry.mirrors.get(host).or_else(|| registry.mirrors.get(ANY));
    let mut found = Vec::new();
    for text in configured.into_iter().flatten() {
        found.push(endpoint(text, host, registry)?);
    }
    if !found.iter().any(|endpoint| endpoint.host == host) {
        let own = if host == "docker.io" { DOCKER_HUB } else { host };
        found.push(endpoint(own, host, registry)?);
    }
    Ok(Some(found))
}

fn endpoint(text: &str, registry: &str, configured: &Registry) -> Result<Endpoint> {
    let wrong =
        |reason: &str| Error::invalid(format!("parse registry endpoint {text:?} from mirrors: {reason}"));
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some(_) => return Err(wrong("the scheme must be http or https")),
        None if is_local(text) => ("http", text),
        None => ("https", text),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.is_empty() || host.contains('@') || rest.contains(['?', '#']) || !rest.is_ascii() {
        return Err(wrong("it must be a host with at most a port and a path"));
    }
    let path = path.trim_end_matches('/');
    let own = if registry == "docker.io" { DOCKER_HUB } else { registry };
    let mut tls = tls(configured.configs.get(host));
    if scheme == "http" && is_local(host) {
        tls.skip_verify = Some(true);
    }
    Ok(Endpoint {
        scheme: scheme.to_owned(),
        host: host.to_owned(),
        path: if path.is_empty() { "/v2".to_owned() } else { format!("/{path}") },
        capabilities: Capabilities { push: false, ..Capabilities::ALL },
        tls,
        headers: headers(configured),
        dial_timeout: None,
        doubt: Doubt::None,
        namespace: (host != own && host != registry).then(|| registry.to_owned()),
    })
}

/// Whether `host[:port][/path]` is this machine.
fn is_local(text: &str) -> bool {
    let host = text.split('/').next().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// TLS of an endpoint as it is configured.
pub fn tls(host: Option<&RegistryHost>) -> Tls {
    let Some(host) = host else { return Tls::default() };
    let file = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
    Tls {
        skip_verify: host.insecure_skip_verify.then_some(true),
        authorities: file(&host.ca_file).into_iter().collect(),
        clients: file(&host.cert_file).map(|cert| (cert, file(&host.key_file))).into_iter().collect(),
    }
}

/// Header fields of every request.
pub fn headers(registry: &Registry) -> Vec<(String, String)> {
    let each = |(name, values): (&String, &Vec<String>)| {
        values.iter().map(|value| (name.clone(), value.clone())).collect::<Vec<_>>()
    };
    registry.headers.iter().flat_map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(host: &str, mirrors: &[(&str, &[&str])]) -> Vec<String> {
        let each = mirrors.iter().map(|(host, endpoints)| {
            ((*host).to_owned(), endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect())
        });
        let registry = Registry { mirrors: each.collect(), ..Registry::default() };
        let found = endpoints(host, &registry).unwrap().unwrap_or_default();
        found.iter().map(|endpoint| format!("{}{}", endpoint.origin(), endpoint.path)).collect()
    }

    #[test]
    fn mirrors_come_in_order_and_the_registry_last() {
        let mirrors: &[(&str, &[&str])] = &[
            ("docker.io", &["https://a.io", "b.io:5000/prefix/", "localhost:5000"]),
            ("*", &["http://any.io"]),
            ("r.io", &["http://r.io"]),
        ];
        let own = "https://registry-1.docker.io/v2";
        let docker = ["https://a.io/v2", "https://b.io:5000/prefix", "http://localhost:5000/v2", own];
        assert_eq!(origins("docker.io", mirrors), docker);
        assert_eq!(origins("other.io", mirrors), ["http://any.io/v2", "https://other.io/v2"]);
        assert_eq!(origins("r.io", mirrors), ["http://r.io/v2"]);
        assert!(origins("r.io", &[]).is_empty());
    }

    #[test]
    fn an_endpoint_that_is_no_address_is_refused() {
        for text in ["ftp://a.io", "https://", "https://u:p@a.io", "https://a.io?x"] {
            let mirrors = [("*".to_owned(), vec![text.to_owned()])].into();
            let registry = Registry { mirrors, ..Registry::default() };
            let error = endpoints("a.io", &registry).unwrap_err();
            assert!(error.text().starts_with("parse registry endpoint"), "{error}");
        }
    }

    #[test]
    fn a_directory_of_hosts_files_counts_instead() {
        let mirrors = [("*".to_owned(), vec!["a.io".to_owned()])].into();
        let registry = Registry { mirrors, config_path: "/etc/x".into(), ..Registry::default() };
        assert!(endpoints("a.io", &registry).unwrap().is_none());
    }
}
