//! Older versions, entry by entry: where each key of versions 1 to 3 is at version 4.

use super::read::Entry;

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
