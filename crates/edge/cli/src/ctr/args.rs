//! Flag groups that several commands share, with Go ctr's names and defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use crate::failure::{Failure, Result};

/// Flags of everything that speaks to a registry.
#[derive(Args, Debug, Default, Clone)]
pub struct Registry {
    /// Skip SSL certificate validation
    #[arg(long, short = 'k')]
    pub skip_verify: bool,
    /// Allow connections using plain HTTP
    #[arg(long)]
    pub plain_http: bool,
    /// User[:password] Registry user and password
    #[arg(long, short = 'u', value_name = "USER[:PASSWORD]")]
    pub user: Option<String>,
    /// Refresh token for authorization server
    #[arg(long)]
    pub refresh: Option<String>,
    /// Custom hosts configuration directory
    #[arg(long, value_name = "DIR")]
    pub hosts_dir: Option<PathBuf>,
    /// Path to TLS root CA
    #[arg(long, value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,
    /// Path to TLS client certificate
    #[arg(long, value_name = "FILE")]
    pub tlscert: Option<PathBuf>,
    /// Path to TLS client key
    #[arg(long, value_name = "FILE")]
    pub tlskey: Option<PathBuf>,
    /// Dump all HTTP request/responses when interacting with container registry
    #[arg(long)]
    pub http_dump: bool,
    /// Enable HTTP tracing for registry interactions
    #[arg(long)]
    pub http_trace: bool,
}

/// The snapshotter to use.
#[derive(Args, Debug, Default, Clone)]
pub struct Snapshotter {
    /// Snapshotter name. Empty value stands for the default value of the namespace, or overlayfs
    #[arg(long, env = "CONTAINERD_SNAPSHOTTER")]
    pub snapshotter: Option<String>,
}

/// Go ctr's choice between its own code and the daemon's.
#[derive(Args, Debug, Default, Clone)]
pub struct Local {
    /// Accepted for scripts: the transfer service takes every flag, so there is no second way of doing it
    #[arg(long = "local")]
    _local: bool,
}

/// Labels for what is made.
#[derive(Args, Debug, Default, Clone)]
pub struct Label {
    /// Labels to attach to the image or container (KEY=VALUE, repeatable)
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
}

/// Which shim runs a container, and how.
#[derive(Args, Debug, Clone)]
pub struct Runtime {
    /// Runtime name or absolute path to runtime binary
    #[arg(long, default_value = "io.containerd.runc.v2")]
    pub runtime: String,
    /// Optional runtime config path
    #[arg(long)]
    pub runtime_config_path: Option<String>,
    /// Specify runc-compatible binary
    #[arg(long)]
    pub runc_binary: Option<String>,
    /// Specify runc-compatible root
    #[arg(long)]
    pub runc_root: Option<String>,
    /// Start runc with systemd cgroup manager
    #[arg(long)]
    pub runc_systemd_cgroup: bool,
}

impl Runtime {
    /// The shim's options, as the Any that the container record keeps.
    ///
    /// # Errors
    /// runc's flags were given for another shim.
    pub fn options(&self) -> Result<Option<api::Any>> {
        if self.runtime == "io.containerd.runc.v2" {
            let options = api::containerd::runc::v1::Options {
                binary_name: self.runc_binary.clone().unwrap_or_default(),
                root: self.runc_root.clone().unwrap_or_default(),
                systemd_cgroup: self.runc_systemd_cgroup,
                ..Default::default()
            };
            return Ok(Some(api::encode_any(&options)));
        }
        if self.runc_binary.is_some() || self.runc_root.is_some() || self.runc_systemd_cgroup {
            return Err(Failure::new(format!(
                "--runc-* flags are not supported by runtime {:?}",
                self.runtime
            )));
        }
        Ok(self.runtime_config_path.as_ref().map(|path| {
            let options =
                api::runtimeoptions::v1::Options { config_path: path.clone(), ..Default::default() };
            api::encode_any(&options)
        }))
    }
}

/// Reads `KEY=VALUE` words; a key alone has the value `true`. An empty value deletes the key in an update.
pub fn labels(words: &[String]) -> BTreeMap<String, String> {
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (word.clone(), "true".to_owned()),
        })
        .collect()
}

/// Reads `KEY=VALUE` words of annotations, which all have a value.
///
/// # Errors
/// One has none.
pub fn annotations(words: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |word: &String| match word.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(Failure::new(format!("invalid key=value format annotation: {word}"))),
    };
    words.iter().map(pair).collect()
}

/// `labels.KEY` for each key: the field mask of a label update.
pub fn label_mask(labels: &BTreeMap<String, String>) -> Option<api::FieldMask> {
    Some(api::FieldMask { paths: labels.keys().map(|key| format!("labels.{key}")).collect() })
}

/// `a=b,c=d`, sorted; `empty` when there is none.
pub fn join_labels(labels: &BTreeMap<String, String>, empty: &str) -> String {
    if labels.is_empty() {
        return empty.to_owned();
    }
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Reads `24h`, `1m30s`, `0s`: Go's durations.
///
/// # Errors
/// The text is none.
pub fn duration(text: &str) -> std::result::Result<std::time::Duration, String> {
    if text == "0" {
        return Ok(std::time::Duration::ZERO);
    }
    // humantime reads `1h 30m`; Go writes `1h30m`, which it reads too.
    humantime::parse_duration(text).map_err(|error| format!("invalid duration {text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_without_a_value_is_true_and_an_annotation_needs_one() {
        let words = ["a".to_owned(), "b=".to_owned(), "c=d=e".to_owned()];
        let pairs = [("a", "true"), ("b", ""), ("c", "d=e")];
        assert_eq!(labels(&words), pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        assert_eq!(annotations(&words[1..]).unwrap().len(), 2);
        let error = annotations(&words).unwrap_err().to_string();
        assert_eq!(error, "invalid key=value format annotation: a");
    }
}
