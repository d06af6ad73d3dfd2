//! What the client asked of the runtime: `containerd.runc.v1.Options` of a create request, and its copy in the bundle.

use std::path::{Path, PathBuf};

use api::containerd::runc::v1::Options;
use api::{Any, Message};
use serde::{Deserialize, Serialize};
use spec::error::{Error, Kind};

/// Where runc keeps the state of containerd's containers, unless the options say otherwise.
const DEFAULT_ROOT: &str = "/run/containerd/runc";

/// The type names under which runc's options travel; the second is of containerd 1.x.
const TYPE_NAMES: [&str; 2] = ["containerd.runc.v1.Options", "runc.v1.Options"];

/// Reads the options of a request; none at all means the defaults.
///
/// # Errors
/// They are of another type, or damaged.
pub fn decode(any: Option<&Any>) -> Result<Options, Error> {
    let Some(any) = any.filter(|any| !any.type_url.is_empty() || !any.value.is_empty()) else {
        return Ok(Options::default());
    };
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    if !TYPE_NAMES.contains(&name) {
        return Err(Error::invalid(format_args!("runtime options of type {name:?}")));
    }
    Options::decode(any.value.as_slice())
        .map_err(|error| Error::invalid(format_args!("runtime options: {error}")))
}

/// The state root of `namespace`: `<root>/<namespace>`.
pub fn state_root(options: &Options, namespace: &str) -> PathBuf {
    let root = if options.root.is_empty() { DEFAULT_ROOT } else { &options.root };
    Path::new(root).join(namespace)
}

/// Whether the containers are run by the library in this process rather than by another program.
pub fn in_process(options: &Options) -> bool {
    matches!(options.binary_name.as_str(), "" | "runc")
}

/// `options.json`: the options under the names that Go's encoder gives them.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Stored {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_pivot_root: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_new_keyring: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    shim_cgroup: String,
    #[serde(skip_serializing_if = "is_zero")]
    io_uid: u32,
    #[serde(skip_serializing_if = "is_zero")]
    io_gid: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    binary_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    root: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    systemd_cgroup: bool,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Writes `options.json` and `runtime` into the bundle, for the `delete` action that follows a dead shim.
///
/// # Errors
/// The bundle cannot be written.
pub fn store(bundle: &Path, options: &Options) -> Result<(), Error> {
    let stored = Stored {
        no_pivot_root: options.no_pivot_root,
        no_new_keyring: options.no_new_keyring,
        shim_cgroup: options.shim_cgroup.clone(),
        io_uid: options.io_uid,
        io_gid: options.io_gid,
        binary_name: options.binary_name.clone(),
        root: options.root.clone(),
        systemd_cgroup: options.systemd_cgroup,
    };
    let json = serde_json::to_vec(&stored).map_err(|error| Error::internal(error.to_string()))?;
    write(&bundle.join("options.json"), &json)?;
    write(&bundle.join("runtime"), options.binary_name.as_bytes())
}

/// Reads back what [`store`] wrote; a bundle without it has the defaults.
pub fn load(bundle: &Path) -> Options {
    let Ok(json) = std::fs::read(bundle.join("options.json")) else { return Options::default() };
    let stored: Stored = serde_json::from_slice(&json).unwrap_or_default();
    Options {
        no_pivot_root: stored.no_pivot_root,
        no_new_keyring: stored.no_new_keyring,
        shim_cgroup: stored.shim_cgroup,
        io_uid: stored.io_uid,
        io_gid: stored.io_gid,
        binary_name: stored.binary_name,
        root: stored.root,
        systemd_cgroup: stored.systemd_cgroup,
        ..Options::default()
    }
}

/// Writes a file of the bundle, readable by root alone.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|error| {
            let kind = Kind::from_errno(error.raw_os_error().unwrap_or(0));
            Error::new(kind, format!("cannot write {}: {error}", path.display()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_in_the_bundle() {
        let bundle = tempfile::tempdir().unwrap();
        let options = Options { binary_name: "/usr/bin/crun".into(), io_uid: 7, ..Options::default() };
        store(bundle.path(), &options).unwrap();
        assert_eq!(load(bundle.path()), options);
        let text = std::fs::read_to_string(bundle.path().join("options.json")).unwrap();
        assert_eq!(text, r#"{"io_uid":7,"binary_name":"/usr/bin/crun"}"#);
    }

    #[test]
    fn options_of_another_runtime_are_refused() {
        let any = Any { type_url: "runtimeoptions.v1.Options".into(), value: vec![] };
        assert_eq!(decode(Some(&any)).unwrap_err().kind(), Kind::InvalidArgument);
        assert_eq!(decode(None).unwrap(), Options::default());
    }
}
