//! The directories of hosts.toml: which one speaks for a host, and the endpoints that come of it.
//!
//! ```text
//! <root>/registry.example_5000_/hosts.toml    first
//! <root>/registry.example:5000/               second; without a hosts.toml its *.crt, *.cert and *.key count
//! <root>/_default/                            last
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::{debug, warn};

use super::endpoint::{Capabilities, Doubt, Endpoint, is_localhost, port};
use super::hosts::{self, Address, Host, Hosts};
use super::{Config, RequestError, Tls};

/// The longest hosts.toml, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The endpoints that serve `host`, best first.
pub fn endpoints(host: &str, config: &Config) -> Result<Vec<Endpoint>, RequestError> {
    if let Some(known) = &config.endpoints {
        return Ok(known.clone());
    }
    let found = match &config.hosts_dir {
        None => None,
        Some(roots) => find(roots, host),
    };
    let hosts = match found {
        None => Hosts { mirrors: Vec::new(), server: Host::itself() },
        Some(dir) => {
            debug!(dir = %dir.display(), "loading host directory");
            config.say(|| format!("loading host directory dir={}", dir.display()));
            load(&dir)?
        }
    };
    let mut endpoints: Vec<_> =
        hosts.mirrors.into_iter().filter_map(|mirror| addressed(mirror, host, config)).collect();
    let own = match hosts.server.address {
        Some(_) => addressed(hosts.server, host, config),
        None => Some(itself(hosts.server, host, config)),
    };
    endpoints.extend(own);
    Ok(endpoints)
}

/// The first directory that speaks for `host`: root by root, name by name.
fn find(roots: &str, host: &str) -> Option<PathBuf> {
    let mut names = Vec::new();
    if let Some((name, port)) = host.rsplit_once(':') {
        names.push(format!("{name}_{port}_"));
    }
    names.extend([host.to_owned(), "_default".to_owned()]);
    roots
        .split(':')
        .filter(|root| !root.is_empty())
        .flat_map(|root| names.iter().map(move |name| Path::new(root).join(name)))
        .find(|dir| dir.is_dir())
}

/// What a directory says. A hosts.toml with a fault is reported and then ignored, as containerd does.
fn load(dir: &Path) -> Result<Hosts, RequestError> {
    let file = dir.join("hosts.toml");
    let text = match fs::metadata(&file) {
        Ok(metadata) if metadata.len() > MAX_FILE => {
            warn!(file = %file.display(), "ignoring a hosts.toml of more than 1 MiB");
            String::new()
        }
        Ok(_) => {
            fs::read_to_string(&file).map_err(|source| RequestError::File { path: file.clone(), source })?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(RequestError::File { path: file, source }),
    };
    if !text.trim().is_empty() {
        match hosts::parse(&text) {
            Ok(mut hosts) => {
                hosts
                    .mirrors
                    .iter_mut()
                    .chain([&mut hosts.server])
                    .for_each(|host| absolute(&mut host.tls, dir));
                return Ok(hosts);
            }
            Err(error) => warn!("failed to decode {}: {error}", file.display()),
        }
    }
    Ok(Hosts { mirrors: Vec::new(), server: Host { tls: certificates(dir)?, ..Host::itself() } })
}

/// Certificate paths of a hosts.toml are relative to its directory.
fn absolute(tls: &mut Tls, dir: &Path) {
    let clients = tls
        .clients
        .iter_mut()
        .flat_map(|(certificate, key)| std::iter::once(certificate).chain(key.as_mut()));
    for path in tls.authorities.iter_mut().chain(clients) {
        *path = dir.join(&*path);
    }
}

/// Docker's layout: `*.crt` are authorities, `*.cert` with `*.key` are ours.
fn certificates(dir: &Path) -> Result<Tls, RequestError> {
    let fail = |source| RequestError::File { path: dir.into(), source };
    let mut tls = Tls::default();
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    for path in files {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls.authorities.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                tls.clients.push((path, key.exists().then_some(key)));
            }
            _ => {}
        }
    }
    Ok(tls)
}

/// An endpoint whose address is given.
fn addressed(host: Host, registry: &str, config: &Config) -> Option<Endpoint> {
    let Address { scheme, host: name, path } = host.address.clone()?;
    let upstream = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    let namespace = (name != upstream && name != registry).then(|| registry.to_owned());
    Some(finish(Endpoint {
        scheme,
        host: name,
        path,
        capabilities: host.capabilities,
        tls: merged(host.tls, config),
        headers: config.headers.iter().cloned().chain(host.headers).collect(),
        dial_timeout: host.dial_timeout,
        doubt: Doubt::None,
        namespace,
    }))
}

/// The registry itself, by the rules for hosts that nobody described.
fn itself(host: Host, registry: &str, config: &Config) -> Endpoint {
    let name = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    let mut tls = merged(host.tls, config);
    let mut doubt = Doubt::None;
    let scheme = match (&config.default_scheme, is_localhost(registry)) {
        (Some(_), _) | (None, false) if registry == "docker.io" => "https".to_owned(),
        (Some(scheme), _) => scheme.clone(),
        (None, false) => "https".to_owned(),
        (None, true) => {
            let port = port(registry);
            if port != Some("80") && tls.skip_verify.is_none() {
                doubt = if tls.is_set() { Doubt::None } else { Doubt::TlsIfNotPlain };
                tls.skip_verify = Some(true);
            }
            if matches!(port, None | Some("443")) {
                doubt = Doubt::None;
                "https".to_owned()
            } else {
                "http".to_owned()
            }
        }
    };
    finish(Endpoint {
        scheme,
        host: name.to_owned(),
        path: "/v2".to_owned(),
        capabilities: Capabilities::ALL,
        tls,
        headers: config.headers.iter().cloned().chain(host.headers).collect(),
        dial_timeout: host.dial_timeout,
        doubt,
        namespace: None,
    })
}

/// An http endpoint for which somebody configured TLS is tried by https first.
fn finish(mut endpoint: Endpoint) -> Endpoint {
    let configured = endpoint.tls.is_set() && endpoint.doubt == Doubt::None;
    if endpoint.scheme == "http" && configured && port(&endpoint.host) != Some("80") {
        endpoint.doubt = Doubt::PlainIfNoTls;
    }
    endpoint
}

/// The host's own TLS settings over those of the transfer.
fn merged(own: Tls, config: &Config) -> Tls {
    Tls {
        skip_verify: own.skip_verify.or(config.tls.skip_verify),
        authorities: config.tls.authorities.iter().cloned().chain(own.authorities).collect(),
        clients: config.tls.clients.iter().cloned().chain(own.clients).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(host: &str, config: &Config) -> Vec<String> {
        let endpoints = endpoints(host, config).unwrap();
        endpoints.iter().map(|endpoint| format!("{}{}", endpoint.origin(), endpoint.path)).collect()
    }

    fn dir_with(name: &str, text: &str) -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("hosts.toml"), text).unwrap();
        let hosts_dir = Some(format!("/nowhere:{}", dir.path().display()));
        (dir, Config { hosts_dir, ..Config::default() })
    }

    #[test]
    fn a_host_that_nobody_described_follows_the_rules() {
        let plain = Config { default_scheme: Some("http".into()), ..Config::default() };
        assert_eq!(origins("docker.io", &Config::default()), ["https://registry-1.docker.io/v2"]);
        assert_eq!(origins("docker.io", &plain), ["https://registry-1.docker.io/v2"]);
        assert_eq!(origins("quay.io", &Config::default()), ["https://quay.io/v2"]);
        assert_eq!(origins("quay.io", &plain), ["http://quay.io/v2"]);
        assert_eq!(origins("localhost", &Config::default()), ["https://localhost/v2"]);
        assert_eq!(origins("localhost:443", &Config::default()), ["https://localhost:443/v2"]);
        assert_eq!(origins("127.0.0.1:5000", &Config::default()), ["http://127.0.0.1:5000/v2"]);
        let doubt = |host: &str, config: &Config| endpoints(host, config).unwrap()[0].doubt;
        assert_eq!(doubt("localhost:5000", &Config::default()), Doubt::TlsIfNotPlain);
        assert_eq!(doubt("localhost:5000", &plain), Doubt::None);
        assert_eq!(doubt("localhost:80", &Config::default()), Doubt::None);
    }

    #[test]
    fn mirrors_come_first_and_know_whom_they_mirror() {
        let (_dir, config) =
            dir_with("docker.io", "[host.\"http://m.example:5000\"]\ncapabilities = [\"pull\"]");
        assert_eq!(
            origins("docker.io", &config),
            ["http://m.example:5000/v2", "https://registry-1.docker.io/v2"]
        );
        let found = endpoints("docker.io", &config).unwrap();
        assert_eq!(found[0].namespace.as_deref(), Some("docker.io"));
        assert_eq!(found[1].namespace, None);
        let (_dir, config) = dir_with("docker.io", "server = \"https://docker.io\"");
        assert_eq!(origins("docker.io", &config), ["https://docker.io/v2"]);
    }

    #[test]
    fn a_directory_is_found_by_port_name_and_default() {
        let text = "server = \"https://up.example\"";
        for name in ["r.example_5000_", "r.example:5000", "_default"] {
            let (_dir, config) = dir_with(name, text);
            assert_eq!(origins("r.example:5000", &config), ["https://up.example/v2"], "{name}");
        }
    }

    #[test]
    fn without_a_good_file_dockers_certificates_count() {
        let (dir, config) = dir_with("r.example", "server = [");
        for name in ["a.crt", "b.cert", "b.key", "c.cert", "other"] {
            fs::write(dir.path().join("r.example").join(name), "").unwrap();
        }
        let found = endpoints("r.example", &config).unwrap();
        let at = |name: &str| dir.path().join("r.example").join(name);
        assert_eq!(found[0].tls.authorities, [at("a.crt")]);
        assert_eq!(found[0].tls.clients, [(at("b.cert"), Some(at("b.key"))), (at("c.cert"), None)]);
    }

    #[test]
    fn http_with_tls_settings_is_tried_by_tls_first() {
        let (_dir, config) = dir_with("r.example", "server = \"http://r.example:5000\"\nskip_verify = true");
        assert_eq!(endpoints("r.example", &config).unwrap()[0].doubt, Doubt::PlainIfNoTls);
        let (_dir, config) = dir_with("r.example", "server = \"http://r.example:80\"\nskip_verify = true");
        assert_eq!(endpoints("r.example", &config).unwrap()[0].doubt, Doubt::None);
    }
}
