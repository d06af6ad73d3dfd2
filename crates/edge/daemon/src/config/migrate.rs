//! Older versions, entry by entry: where each key of versions 1 to 3 is at version 4.

use super::read::Entry;
use super::value::Value;

/// Plugins that version 1 names without their type.
const SHORT: &[(&str, &str)] = &[
    ("aufs", "io.containerd.snapshotter.v1.aufs"),
    ("bolt", "io.containerd.metadata.v1.bolt"),
    ("btrfs", "io.containerd.snapshotter.v1.btrfs"),
    ("cgroups", "io.containerd.monitor.task.v1.cgroups"),
    ("cri", "io.containerd.grpc.v1.cri"),
    ("devmapper", "io.containerd.snapshotter.v1.devmapper"),
    ("diff-service", "io.containerd.service.v1.diff-service"),
    ("linux", "io.containerd.runtime.v1.linux"),
    ("native", "io.containerd.snapshotter.v1.native"),
    ("opt", "io.containerd.internal.v1.opt"),
    ("overlayfs", "io.containerd.snapshotter.v1.overlayfs"),
    ("restart", "io.containerd.monitor.container.v1.restart"),
    ("scheduler", "io.containerd.gc.v1.scheduler"),
    ("zfs", "io.containerd.snapshotter.v1.zfs"),
];

/// Plugins that got another name between versions 2 and 4.
const RENAMED: &[(&str, &str)] = &[
    ("io.containerd.internal.v1.restart", "io.containerd.monitor.container.v1.restart"),
    ("io.containerd.monitor.v1.cgroups", "io.containerd.monitor.task.v1.cgroups"),
    ("io.containerd.runtime.v2.shim", "io.containerd.shim.v1.manager"),
];

/// Keys of the top level's tables that belong to server plugins since version 4.
const SERVERS: &[(&str, &str, &str, &str)] = &[
    ("grpc", "address", "io.containerd.server.v1.grpc", "address"),
    ("grpc", "uid", "io.containerd.server.v1.grpc", "uid"),
    ("grpc", "gid", "io.containerd.server.v1.grpc", "gid"),
    ("grpc", "max_recv_message_size", "io.containerd.server.v1.grpc", "max_recv_message_size"),
    ("grpc", "max_send_message_size", "io.containerd.server.v1.grpc", "max_send_message_size"),
    ("grpc", "tcp_address", "io.containerd.server.v1.grpc-tcp", "address"),
    ("grpc", "tcp_tls_ca", "io.containerd.server.v1.grpc-tcp", "tls_ca"),
    ("grpc", "tcp_tls_cert", "io.containerd.server.v1.grpc-tcp", "tls_cert"),
    ("grpc", "tcp_tls_key", "io.containerd.server.v1.grpc-tcp", "tls_key"),
    ("grpc", "tcp_tls_common_name", "io.containerd.server.v1.grpc-tcp", "tls_common_name"),
    ("ttrpc", "address", "io.containerd.server.v1.ttrpc", "address"),
    ("ttrpc", "uid", "io.containerd.server.v1.ttrpc", "uid"),
    ("ttrpc", "gid", "io.containerd.server.v1.ttrpc", "gid"),
    ("debug", "address", "io.containerd.server.v1.debug", "address"),
    ("debug", "uid", "io.containerd.server.v1.debug", "uid"),
    ("debug", "gid", "io.containerd.server.v1.debug", "gid"),
    ("metrics", "address", "io.containerd.server.v1.metrics", "address"),
    ("metrics", "grpc_histogram", "io.containerd.metrics.v1.grpc-prometheus", "grpc_histogram"),
];

fn lookup(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(from, _)| *from == name).map(|(_, to)| *to)
}

/// Where core scheduling was a key, and the plugin that is given its variable since version 4.
const TASKS: &str = "io.containerd.runtime.v2.task";
const SHIMS: &str = "io.containerd.shim.v1.manager";

/// CRI's one table of versions 1 and 2, and the tables that it became.
const CRI: &str = "io.containerd.grpc.v1.cri";
const CRI_IMAGES: &str = "io.containerd.cri.v1.images";
const CRI_RUNTIME: &str = "io.containerd.cri.v1.runtime";

/// Keys of CRI's one table that are about images.
const CRI_IMAGE_KEYS: &[&str] = &[
    "max_concurrent_downloads",
    "image_pull_progress_timeout",
    "image_pull_with_sync_fs",
    "stats_collect_period",
];

/// Keys of its table `containerd` that are about images.
const CRI_SNAPSHOT_KEYS: &[&str] =
    &["snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers"];

/// Keys of its own that stay where they were: how streams are served.
const CRI_STREAM_KEYS: &[&str] = &[
    "disable_tcp_service",
    "stream_server_address",
    "stream_server_port",
    "stream_idle_timeout",
    "enable_tls_streaming",
];

/// Where an entry of CRI's one table is since version 3.
fn cri(entry: &mut Entry) {
    let below: Vec<String> = entry.table[2..].to_vec();
    let mut to = |plugin: &str, below: &[String]| {
        entry.table =
            ["plugins".to_owned(), plugin.to_owned()].into_iter().chain(below.iter().cloned()).collect();
    };
    match below.first().map(String::as_str) {
        None if entry.key == "sandbox_image" => {
            to(CRI_IMAGES, &["pinned_images".to_owned()]);
            entry.key = "sandbox".into();
        }
        None if CRI_IMAGE_KEYS.contains(&entry.key.as_str()) => to(CRI_IMAGES, &[]),
        None if CRI_STREAM_KEYS.contains(&entry.key.as_str()) => {}
        Some("x509_key_pair_streaming") => {}
        Some("containerd") if below.len() == 3 && below[1] == "runtimes" && entry.key == "sandbox_mode" => {
            to(CRI_RUNTIME, &below);
            entry.key = "sandboxer".into();
        }
        Some("registry" | "image_decryption") => to(CRI_IMAGES, &below),
        Some("containerd") if below.len() == 1 && CRI_SNAPSHOT_KEYS.contains(&entry.key.as_str()) => {
            to(CRI_IMAGES, &[]);
        }
        _ => to(CRI_RUNTIME, &below),
    }
}

/// The entry at version 4, of a file at `version`.
pub fn entry(mut entry: Entry, version: i64) -> Entry {
    if let [first, plugin, ..] = entry.table.as_mut_slice()
        && first == "plugins"
    {
        if version == 1
            && let Some(full) = lookup(SHORT, plugin)
        {
            *plugin = full.to_owned();
        }
        if version < 4
            && let Some(now) = lookup(RENAMED, plugin)
        {
            *plugin = now.to_owned();
        }
    }
    if version < 4 && entry.table.len() >= 2 && entry.table[0] == "plugins" && entry.table[1] == CRI {
        cri(&mut entry);
    }
    if version < 4
        && entry.key == "sched_core"
        && matches!(entry.table.as_slice(), [_, plugin] if plugin == TASKS)
        && let Value::Boolean(is_on) = entry.value
    {
        entry.table[1] = SHIMS.into();
        entry.key = "env".into();
        entry.value = Value::List(if is_on { vec![Value::Text("SCHED_CORE=1".into())] } else { Vec::new() });
    }
    // One directory of plugins has become several.
    if entry.key == "bin_dir"
        && entry.table.get(1).is_some_and(|plugin| plugin == CRI_RUNTIME)
        && let Value::Text(_) = &entry.value
    {
        entry.key = "bin_dirs".into();
        entry.value = Value::List(vec![entry.value]);
    }
    if version < 4
        && let [table] = entry.table.as_slice()
        && let Some((_, _, plugin, key)) =
            SERVERS.iter().find(|(from, key, ..)| from == table && *key == entry.key)
    {
        entry.table = vec!["plugins".into(), (*plugin).into()];
        entry.key = (*key).into();
    }
    entry
}
