//! Plugins in other processes: the tables `proxy_plugins.NAME`.

use std::collections::BTreeMap;
use std::path::Path;

use super::handler::named;
use super::read::ConfigError;
use super::value::Values;
use crate::plugin::Proxied;

/// The short names of kinds.
const SHORT: &[(&str, &str)] = &[
    ("content", "io.containerd.content.v1"),
    ("diff", "io.containerd.differ.v1"),
    ("sandbox", "io.containerd.sandbox.controller.v1"),
    ("snapshot", "io.containerd.snapshotter.v1"),
];

/// Takes the plugins of other processes out of `values`.
///
/// # Errors
/// An address is no absolute path, or a name is no identifier.
pub(super) fn proxies(values: &Values) -> Result<Vec<Proxied>, ConfigError> {
    let mut found: BTreeMap<&str, Proxied> = BTreeMap::new();
    for (name, table) in named(values, "proxy_plugins") {
        match name.split_once('/') {
            None => {
                let wrong = |key: &str, reason: String| ConfigError::Value {
                    key: format!("proxy_plugins.{name}.{key}"),
                    reason,
                };
                let kind = table.text("type");
                let address = table.text("address");
                let address = address.strip_prefix("unix://").unwrap_or(&address);
                if !Path::new(address).is_absolute() {
                    return Err(wrong("address", format!("{address:?} is no absolute path of a socket")));
                }
                if spec::name::check_identifier(name).is_err() {
                    return Err(wrong("", format!("{name:?} is no name of a plugin")));
                }
                let proxy = found.entry(name).or_default();
                let full = SHORT.iter().find(|(short, _)| *short == kind).map(|(_, full)| (*full).to_owned());
                proxy.name = name.to_owned();
                proxy.kind = full.unwrap_or(kind);
                proxy.address = address.to_owned();
                proxy.platform = table.text("platform");
                proxy.capabilities = table.texts("capabilities");
            }
            Some((name, "exports")) => found.entry(name).or_default().exports = table.pairs(),
            Some(_) => {}
        }
    }
    found.retain(|_, proxy| !proxy.name.is_empty());
    Ok(found.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::super::load::load;
    use super::*;

    fn of(text: &str) -> Result<Vec<Proxied>, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, format!("version = 2\nimports = []\n{text}")).unwrap();
        proxies(&load(&path, true).unwrap().values)
    }

    #[test]
    fn a_remote_snapshotter_is_as_its_manual_says() {
        let found = of(concat!(
            "[proxy_plugins.stargz]\ntype = 'snapshot'\naddress = '/run/stargz.sock'\ncapabilities = ['rebase']\n",
            "[proxy_plugins.stargz.exports]\nroot = '/var/lib/stargz'\n",
        ));
        let found = found.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].uri(), "io.containerd.snapshotter.v1.stargz");
        assert_eq!(
            (found[0].address.as_str(), found[0].exports["root"].as_str()),
            ("/run/stargz.sock", "/var/lib/stargz")
        );
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        let error = of("[proxy_plugins.far]\ntype = 'snapshot'\naddress = 'tcp:1'\n").unwrap_err();
        assert!(error.to_string().starts_with("proxy_plugins.far.address: \"tcp:1\""), "{error}");
    }
}
