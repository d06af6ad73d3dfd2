//! Every key of the configuration at version 4, with its type and default.

use super::value::Value;

/// The type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A string that says a duration, such as `5s`.
    Duration,
    /// An integer.
    Integer,
    /// A float; an integer is one too.
    Float,
    /// A boolean.
    Boolean,
    /// A list of strings.
    Texts,
    /// A list of tables, whose keys are not looked at.
    Tables,
}

impl Kind {
    /// Its name, in TOML's words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Duration => "duration string",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::Texts => "array of strings",
            Self::Tables => "array of tables",
        }
    }

    /// Whether `value` is of this type.
    pub fn admits(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text, Value::Text(_))
            | (Self::Integer, Value::Integer(_))
            | (Self::Float, Value::Float(_) | Value::Integer(_))
            | (Self::Boolean, Value::Boolean(_)) => true,
            (Self::Duration, Value::Text(text)) => super::settings::duration(text).is_some(),
            (Self::Texts, Value::List(list)) => list.iter().all(|item| matches!(item, Value::Text(_))),
            (Self::Tables, Value::List(list)) => list.iter().all(|item| matches!(item, Value::Table(_))),
            _ => false,
        }
    }
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its table, segments joined by `/`.
    pub table: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its default, as TOML writes it.
    pub default: &'static str,
    /// Whether it has an effect in containerd and none here.
    pub is_idle: bool,
}

/// Makes keys of lines `table { name: kind = default, ... }`; `idle` behind one says that it has no effect here.
macro_rules! keys {
    ($($table:literal { $($name:literal: $kind:ident = $default:literal $($idle:ident)?),* $(,)? })*) => {
        &[$($(Key {
            table: $table,
            name: $name,
            kind: Kind::$kind,
            default: $default,
            is_idle: !concat!($(stringify!($idle))?).is_empty(),
        }),*),*]
    };
}

/// Every key, in the order in which `config default` prints them.
pub const KEYS: &[Key] = keys! {
    "" {
        "version": Integer = "4",
        "root": Text = "'/var/lib/containerd'",
        "state": Text = "'/run/containerd'",
        "temp": Text = "''",
        "disabled_plugins": Texts = "[]",
        "required_plugins": Texts = "[]",
        "oom_score": Integer = "0",
        "imports": Texts = "['/etc/containerd/conf.d/*.toml']",
    }
    "debug" { "level": Text = "''", "format": Text = "''", "log_trace_id": Boolean = "false" idle }
    "cgroup" { "path": Text = "''" }
    "timeouts" {
        "io.containerd.timeout.bolt.open": Duration = "'0s'" idle,
        "io.containerd.timeout.cri.defercleanup": Duration = "'1m0s'",
        "io.containerd.timeout.metrics.shimstats": Duration = "'2s'",
        "io.containerd.timeout.shim.cleanup": Duration = "'5s'",
        "io.containerd.timeout.shim.load": Duration = "'5s'",
        "io.containerd.timeout.shim.shutdown": Duration = "'3s'",
        "io.containerd.timeout.task.state": Duration = "'2s'",
    }
    "plugins/io.containerd.cri.v1.images" {
        "snapshotter": Text = "'overlayfs'",
        "disable_snapshot_annotations": Boolean = "true",
        "discard_unpacked_layers": Boolean = "false",
        "max_concurrent_downloads": Integer = "3",
        "concurrent_layer_fetch_buffer": Integer = "0" idle,
        "image_pull_progress_timeout": Duration = "'5m0s'",
        "image_pull_with_sync_fs": Boolean = "false",
        "stats_collect_period": Integer = "10",
        "use_local_image_pull": Boolean = "false" idle,
    }
    "plugins/io.containerd.cri.v1.images/pinned_images" { "sandbox": Text = "''" }
    "plugins/io.containerd.cri.v1.images/registry" { "config_path": Text = "''" }
    "plugins/io.containerd.cri.v1.images/image_decryption" { "key_model": Text = "'node'" idle }
    "plugins/io.containerd.cri.v1.runtime" {
        "enable_selinux": Boolean = "false",
        "selinux_category_range": Integer = "1024",
        "max_container_log_line_size": Integer = "16384",
        "disable_apparmor": Boolean = "false",
        "restrict_oom_score_adj": Boolean = "false",
        "disable_proc_mount": Boolean = "false",
        "unset_seccomp_profile": Text = "''",
        "tolerate_missing_hugetlb_controller": Boolean = "true",
        "disable_hugetlb_controller": Boolean = "true",
        "device_ownership_from_security_context": Boolean = "false",
        "ignore_image_defined_volumes": Boolean = "false",
        "netns_mounts_under_state_dir": Boolean = "false",
        "enable_unprivileged_ports": Boolean = "true",
        "enable_unprivileged_icmp": Boolean = "true",
        "enable_cdi": Boolean = "true",
        "cdi_spec_dirs": Texts = "['/etc/cdi', '/var/run/cdi']",
        "drain_exec_sync_io_timeout": Duration = "'0s'",
        "ignore_deprecation_warnings": Texts = "[]" idle,
        "stats_collect_period": Duration = "''",
        "stats_retention_period": Duration = "''",
        "enable_criu": Boolean = "true" idle,
    }
    "plugins/io.containerd.cri.v1.runtime/containerd" {
        "default_runtime_name": Text = "'runc'",
        "ignore_blockio_not_enabled_errors": Boolean = "false",
        "ignore_rdt_not_enabled_errors": Boolean = "false",
    }
    "plugins/io.containerd.cri.v1.runtime/cni" {
        "bin_dirs": Texts = "['/opt/cni/bin']",
        "conf_dir": Text = "'/etc/cni/net.d'",
        "max_conf_num": Integer = "1",
        "setup_serially": Boolean = "false",
        "conf_template": Text = "''",
        "ip_pref": Text = "''",
        "use_internal_loopback": Boolean = "false" idle,
    }
    "plugins/io.containerd.cri.v1.runtime/containerd/runtimes/runc" {
        "runtime_type": Text = "'io.containerd.runc.v2'",
        "runtime_path": Text = "''",
        "pod_annotations": Texts = "[]",
        "container_annotations": Texts = "[]",
        "privileged_without_host_devices": Boolean = "false",
        "privileged_without_host_devices_all_devices_allowed": Boolean = "false",
        "cgroup_writable": Boolean = "false",
        "base_runtime_spec": Text = "''",
        "cni_conf_dir": Text = "''",
        "cni_max_conf_num": Integer = "0",
        "snapshotter": Text = "''",
        "sandboxer": Text = "'podsandbox'" idle,
        "disable_pause_image_pull": Boolean = "false" idle,
        "io_type": Text = "''" idle,
    }
    "plugins/io.containerd.cri.v1.runtime/containerd/runtimes/runc/options" {
        "BinaryName": Text = "''",
        "CriuImagePath": Text = "''",
        "CriuWorkPath": Text = "''",
        "IoGid": Integer = "0",
        "IoUid": Integer = "0",
        "NoNewKeyring": Boolean = "false",
        "Root": Text = "''",
        "ShimCgroup": Text = "''",
        "SystemdCgroup": Boolean = "false",
    }
    "plugins/io.containerd.differ.v1.erofs" {
        "mkfs_options": Texts = "[]" idle, "enable_tar_index": Boolean = "false" idle, "enable_dmverity": Boolean = "false" idle,
    }
    "plugins/io.containerd.gc.v1.scheduler" {
        "pause_threshold": Float = "0.02",
        "deletion_threshold": Integer = "0",
        "mutation_threshold": Integer = "100",
        "schedule_delay": Duration = "'0s'",
        "startup_delay": Duration = "'100ms'",
    }
    "plugins/io.containerd.grpc.v1.cri" {
        "disable_tcp_service": Boolean = "true" idle,
        "stream_server_address": Text = "'127.0.0.1'",
        "stream_server_port": Text = "'0'",
        "stream_idle_timeout": Duration = "'4h0m0s'",
        "enable_tls_streaming": Boolean = "false",
    }
    "plugins/io.containerd.grpc.v1.cri/x509_key_pair_streaming" {
        "tls_cert_file": Text = "''", "tls_key_file": Text = "''",
    }
    "plugins/io.containerd.image-verifier.v1.bindir" {
        "bin_dir": Text = "'/opt/containerd/image-verifier/bin'",
        "max_verifiers": Integer = "10",
        "per_verifier_timeout": Duration = "'10s'",
    }
    "plugins/io.containerd.internal.v1.opt" { "path": Text = "'/opt/containerd'" idle }
    "plugins/io.containerd.metadata.v1.bolt" {
        "content_sharing_policy": Text = "'shared'", "no_sync": Boolean = "false" idle,
    }
    "plugins/io.containerd.metrics.v1.grpc-prometheus" { "grpc_histogram": Boolean = "false" idle }
    "plugins/io.containerd.monitor.container.v1.restart" { "interval": Duration = "'10s'" idle }
    "plugins/io.containerd.monitor.task.v1.cgroups" { "no_prometheus": Boolean = "false" }
    "plugins/io.containerd.nri.v1.nri" {
        "disable": Boolean = "false",
        "socket_path": Text = "'/var/run/nri/nri.sock'",
        "plugin_path": Text = "'/opt/nri/plugins'",
        "plugin_config_path": Text = "'/etc/nri/conf.d'",
        "plugin_registration_timeout": Duration = "'5s'",
        "plugin_request_timeout": Duration = "'2s'",
        "disable_connections": Boolean = "false",
    }
    "plugins/io.containerd.nri.v1.nri/default_validator" {
        "enable": Boolean = "false",
        "reject_oci_hook_adjustment": Boolean = "false",
        "reject_runtime_default_seccomp_adjustment": Boolean = "false",
        "reject_unconfined_seccomp_adjustment": Boolean = "false",
        "reject_custom_seccomp_adjustment": Boolean = "false",
        "reject_namespace_adjustment": Boolean = "false",
        "reject_sysctl_adjustment": Boolean = "false",
        "required_plugins": Texts = "[]",
        "tolerate_missing_plugins_annotation": Text = "''",
    }
    "plugins/io.containerd.runtime.v2.task" { "platforms": Texts = "['linux/amd64']" idle }
    "plugins/io.containerd.server.v1.debug" { "address": Text = "''" idle, "uid": Integer = "0" idle, "gid": Integer = "0" idle }
    "plugins/io.containerd.server.v1.grpc" {
        "address": Text = "'/run/containerd/containerd.sock'",
        "uid": Integer = "0",
        "gid": Integer = "0",
        "max_recv_message_size": Integer = "16777216",
        "max_send_message_size": Integer = "16777216",
    }
    "plugins/io.containerd.server.v1.grpc-tcp" {
        "address": Text = "''" idle,
        "tls_ca": Text = "''" idle,
        "tls_cert": Text = "''" idle,
        "tls_key": Text = "''" idle,
        "tls_common_name": Text = "''" idle,
        "max_recv_message_size": Integer = "16777216" idle,
        "max_send_message_size": Integer = "16777216" idle,
    }
    "plugins/io.containerd.server.v1.metrics" { "address": Text = "''" }
    "plugins/io.containerd.server.v1.ttrpc" { "address": Text = "''", "uid": Integer = "0", "gid": Integer = "0" }
    "plugins/io.containerd.service.v1.diff-service" {
        "default": Texts = "['walking']" idle, "sync_fs": Boolean = "false" idle,
    }
    "plugins/io.containerd.service.v1.tasks-service" {
        "blockio_config_file": Text = "''" idle, "rdt_config_file": Text = "''" idle,
    }
    "plugins/io.containerd.shim.v1.manager" { "env": Texts = "[]", "socket_dir": Text = "''" }
    "plugins/io.containerd.snapshotter.v1.native" { "root_path": Text = "''" }
    "plugins/io.containerd.snapshotter.v1.overlayfs" {
        "root_path": Text = "''",
        "upperdir_label": Boolean = "false",
        "sync_remove": Boolean = "false",
        "slow_chown": Boolean = "false" idle,
        "mount_options": Texts = "[]",
    }
    "plugins/io.containerd.transfer.v1.local" {
        "max_concurrent_downloads": Integer = "3",
        "concurrent_layer_fetch_buffer": Integer = "0" idle,
        "max_concurrent_uploaded_layers": Integer = "3",
        "max_concurrent_unpacks": Integer = "1" idle,
        "check_platform_supported": Boolean = "false" idle,
        "config_path": Text = "''",
        "unpack_config": Tables = "[]" idle,
    }
};

/// The table of CRI's one default handler, whose keys every handler has, and the tables of all handlers.
const HANDLER: &str = "plugins/io.containerd.cri.v1.runtime/containerd/runtimes/runc";
const HANDLERS: &str = "plugins/io.containerd.cri.v1.runtime/containerd/runtimes/";

/// Tables whose keys are the user's own words, or another program's: taken as they are.
pub const FOREIGN: &[&str] = &[
    "proxy_plugins",
    "stream_processors",
    "plugins/io.containerd.content.v1.content",
    "plugins/io.containerd.cri.v1.images/pinned_images",
    "plugins/io.containerd.cri.v1.images/registry/auths",
    "plugins/io.containerd.cri.v1.images/registry/configs",
    "plugins/io.containerd.cri.v1.images/registry/headers",
    "plugins/io.containerd.cri.v1.images/registry/mirrors",
    "plugins/io.containerd.cri.v1.images/runtime_platforms",
    "plugins/io.containerd.internal.v1.tracing",
    "plugins/io.containerd.snapshotter.v1.blockfile",
    "plugins/io.containerd.snapshotter.v1.btrfs",
    "plugins/io.containerd.snapshotter.v1.devmapper",
    "plugins/io.containerd.snapshotter.v1.erofs",
    "plugins/io.containerd.snapshotter.v1.zfs",
    "plugins/io.containerd.tracing.processor.v1.otlp",
];

/// Those of them that nothing here reads.
const IDLE: &[&str] = &[
    "stream_processors",
    "plugins/io.containerd.internal.v1.tracing",
    "plugins/io.containerd.snapshotter.v1.blockfile",
    "plugins/io.containerd.snapshotter.v1.btrfs",
    "plugins/io.containerd.snapshotter.v1.devmapper",
    "plugins/io.containerd.snapshotter.v1.erofs",
    "plugins/io.containerd.snapshotter.v1.zfs",
    "plugins/io.containerd.tracing.processor.v1.otlp",
];

/// Whether `table`, which is taken as it is, has an effect in containerd and none here.
pub fn is_idle(table: &str) -> bool {
    IDLE.iter()
        .any(|idle| table.strip_prefix(idle).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// The key `name` of `table`; the tables of runtime handlers share theirs.
pub fn find(table: &str, name: &str) -> Option<&'static Key> {
    let below = table.strip_prefix(HANDLERS).filter(|handler| !handler.contains('/'));
    let table = if below.is_some() { HANDLER } else { table };
    KEYS.iter().find(|key| key.table == table && key.name == name)
}

/// Whether `table`, or one above it, is taken as it is.
pub fn is_foreign(table: &str) -> bool {
    // A handler's options are its shim's.
    let options = table.strip_prefix(HANDLERS).is_some_and(|below| below.contains("/options"));
    options
        || FOREIGN.iter().any(|foreign| {
            table.strip_prefix(foreign).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The rows of docs/config.md: default and meaning by table and key.
    fn reference() -> BTreeMap<(String, String), (String, String)> {
        let text = include_str!("../../../../../docs/config.md");
        let (mut rows, mut table) = (BTreeMap::new(), String::new());
        for line in text.lines() {
            if let Some(heading) = line.strip_prefix("## ") {
                let name = heading.trim_matches(['[', ']']);
                let parts = name.split('\'').map(|part| part.trim_matches('.'));
                let joined: Vec<String> = parts
                    .enumerate()
                    // Only what is not in quotes is divided by its dots.
                    .map(|(at, part)| if at % 2 == 0 { part.replace('.', "/") } else { part.to_owned() })
                    .filter(|part| !part.is_empty())
                    .collect();
                table = if heading == "Top level" { String::new() } else { joined.join("/") };
            }
            let Some(cells) = line.strip_prefix("| `") else { continue };
            let cells: Vec<&str> = cells.split('|').map(str::trim).collect();
            for name in cells[0].split(',') {
                let key = name.trim().trim_matches('`').to_owned();
                rows.insert((table.clone(), key), (cells[1].to_owned(), cells[2].to_owned()));
            }
        }
        rows
    }

    #[test]
    fn the_reference_has_every_key_with_its_default() {
        let mut rows = reference();
        for key in KEYS {
            let row = rows.remove(&(key.table.to_owned(), key.name.to_owned()));
            let (default, meaning) = row.unwrap_or_else(|| panic!("no row: {} {}", key.table, key.name));
            assert_eq!(default, key.default.trim_matches('\''), "{} {}", key.table, key.name);
            assert_eq!(meaning.starts_with('-'), key.is_idle, "{} {}: {meaning}", key.table, key.name);
        }
        assert_eq!(rows.keys().collect::<Vec<_>>(), Vec::<&(String, String)>::new());
    }

    #[test]
    fn a_handler_of_any_name_has_a_handlers_keys() {
        let kata = "plugins/io.containerd.cri.v1.runtime/containerd/runtimes/kata";
        assert_eq!(find(kata, "runtime_type").map(|key| key.kind), Some(Kind::Text));
        assert!(find(kata, "SystemdCgroup").is_none() && !is_foreign(kata));
        assert!(is_foreign(&format!("{kata}/options")));
    }
}
