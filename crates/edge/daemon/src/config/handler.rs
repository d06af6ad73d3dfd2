//! Runtime handlers: CRI's tables `containerd.runtimes.NAME`, and the options that their shims take.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::Message as _;
use api::containerd::runc::v1::Options;
use api::runtimeoptions::v1 as generic;
use cri::config::Handler;
use model::Any;

use super::value::{Value, Values};

const HANDLERS: &str = "plugins/io.containerd.cri.v1.runtime/containerd/runtimes";
const RUNC: &str = "io.containerd.runc.v2";

/// One table whose name holds a part of the user's choice, with readers for its keys.
pub(super) struct Named<'a>(BTreeMap<&'a str, &'a Value>);

impl Named<'_> {
    pub fn text(&self, key: &str) -> String {
        match self.0.get(key) {
            Some(Value::Text(text)) => text.clone(),
            _ => String::new(),
        }
    }

    pub fn truth(&self, key: &str) -> bool {
        matches!(self.0.get(key), Some(Value::Boolean(true)))
    }

    /// Every text by its key.
    pub fn pairs(&self) -> BTreeMap<String, String> {
        let pair = |(key, value): (&&str, &&Value)| match value {
            Value::Text(text) => Some(((*key).to_owned(), text.clone())),
            _ => None,
        };
        self.0.iter().filter_map(pair).collect()
    }

    fn number(&self, key: &str) -> i64 {
        match self.0.get(key) {
            Some(Value::Integer(number)) => *number,
            _ => 0,
        }
    }

    pub fn texts(&self, key: &str) -> Vec<String> {
        self.0.get(key).map_or_else(Vec::new, |value| value.texts())
    }
}

/// The tables below `prefix`, by the part behind it.
pub(super) fn named<'a>(values: &'a Values, prefix: &str) -> Vec<(&'a str, Named<'a>)> {
    let tables = values.tables().into_iter();
    tables
        .filter_map(|(table, keys)| Some((table.strip_prefix(prefix)?.strip_prefix('/')?, Named(keys))))
        .collect()
}

/// Every handler.
pub(super) fn handlers(values: &Values) -> BTreeMap<String, Handler> {
    let mut handlers: BTreeMap<String, Handler> = BTreeMap::new();
    let tables = named(values, HANDLERS);
    for (name, table) in &tables {
        match name.split_once('/') {
            None => fill(handlers.entry((*name).to_owned()).or_default(), table),
            // A handler may have options and nothing else.
            Some((name, _)) => drop(handlers.entry(name.to_owned()).or_default()),
        }
    }
    for handler in handlers.values_mut() {
        if handler.runtime_type.is_empty() {
            handler.runtime_type = RUNC.into();
        }
        if handler.sandboxer.is_empty() {
            handler.sandboxer = "podsandbox".into();
        }
    }
    for (name, table) in &tables {
        let Some(handler) = name.strip_suffix("/options").and_then(|name| handlers.get_mut(name)) else {
            continue;
        };
        if table.0.values().all(|value| value.is_zero()) {
            continue;
        }
        match handler.runtime_type.as_str() {
            RUNC => runc(handler, table),
            _ => other(handler, table),
        }
    }
    handlers
}

fn fill(handler: &mut Handler, table: &Named<'_>) {
    let file = |key: &str| Some(table.text(key)).filter(|text| !text.is_empty()).map(PathBuf::from);
    // The runtime of containerd 1.0 is gone; its successor does the same.
    handler.runtime_type = match table.text("runtime_type").as_str() {
        "io.containerd.runtime.v1.linux" | "io.containerd.runc.v1" => RUNC.into(),
        other => other.to_owned(),
    };
    handler.runtime_path = table.text("runtime_path");
    handler.pod_annotations = table.texts("pod_annotations");
    handler.container_annotations = table.texts("container_annotations");
    handler.privileged_without_host_devices = table.truth("privileged_without_host_devices");
    handler.privileged_without_host_devices_all_devices_allowed =
        table.truth("privileged_without_host_devices_all_devices_allowed");
    handler.cgroup_writable = table.truth("cgroup_writable");
    handler.base_runtime_spec = file("base_runtime_spec");
    handler.cni_conf_dir = file("cni_conf_dir");
    handler.cni_max_conf_num = usize::try_from(table.number("cni_max_conf_num")).unwrap_or(0);
    handler.snapshotter = table.text("snapshotter");
    handler.sandboxer = table.text("sandboxer");
    handler.io_type = table.text("io_type");
}

fn runc(handler: &mut Handler, table: &Named<'_>) {
    let id = |key: &str| u32::try_from(table.number(key)).unwrap_or(0);
    let options = Options {
        binary_name: table.text("BinaryName"),
        root: table.text("Root"),
        systemd_cgroup: table.truth("SystemdCgroup"),
        no_new_keyring: table.truth("NoNewKeyring"),
        shim_cgroup: table.text("ShimCgroup"),
        criu_image_path: table.text("CriuImagePath"),
        criu_work_path: table.text("CriuWorkPath"),
        io_uid: id("IoUid"),
        io_gid: id("IoGid"),
        ..Options::default()
    };
    handler.systemd_cgroup = options.systemd_cgroup;
    handler.options =
        Some(Any { type_url: "containerd.runc.v1.Options".into(), value: options.encode_to_vec() });
}

/// Options of a shim that is not runc's: the path of its own file, else the table itself.
fn other(handler: &mut Handler, table: &Named<'_>) {
    let config_path = table.text("ConfigPath");
    let config_body = if config_path.is_empty() {
        let line = |(key, value): (&&str, &&Value)| super::print::line(key, value);
        table.0.iter().map(line).collect::<String>().into_bytes()
    } else {
        Vec::new()
    };
    let options = generic::Options { type_url: table.text("TypeUrl"), config_path, config_body };
    handler.systemd_cgroup = table.truth("SystemdCgroup");
    handler.options =
        Some(Any { type_url: "runtimeoptions.v1.Options".into(), value: options.encode_to_vec() });
}

#[cfg(test)]
mod tests {
    use super::super::load::load;
    use super::*;

    #[test]
    fn options_are_the_shims_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let text = concat!(
            "version = 3\nimports = []\n",
            "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes]\n",
            "kata = { runtime_type = 'io.containerd.kata.v2', options = { ConfigPath = '/etc/kata.toml' } }\n",
            "runsc = { runtime_type = 'io.containerd.runsc.v1', options = { net-raw = 'true', n = 3 } }\n",
            "crun = { options = { BinaryName = '/usr/bin/crun', SystemdCgroup = true } }\n",
        );
        std::fs::write(&path, text).unwrap();
        let handlers = handlers(&load(&path, true).unwrap().values);
        let options = |name: &str| handlers[name].options.clone().unwrap();
        let kata = generic::Options::decode(options("kata").value.as_slice()).unwrap();
        assert_eq!((kata.config_path.as_str(), kata.config_body.len()), ("/etc/kata.toml", 0));
        let runsc = generic::Options::decode(options("runsc").value.as_slice()).unwrap();
        assert_eq!(runsc.config_body, b"n = 3\nnet-raw = 'true'\n");
        let crun = Options::decode(options("crun").value.as_slice()).unwrap();
        assert_eq!(
            (crun.binary_name.as_str(), handlers["crun"].runtime_type.as_str()),
            ("/usr/bin/crun", RUNC)
        );
        assert!(handlers["crun"].systemd_cgroup && handlers["runc"].options.is_none());
    }
}
