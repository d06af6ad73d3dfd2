//! Names, labels and help of every metric that is answered: cadvisor's, as containerd has them.

use api::runtime::v1::{MetricDescriptor, MetricType};

use MetricType::{Counter, Gauge};

/// Labels of every metric.
const BASE: &[&str] = &["pod", "namespace", "container", "id", "image"];

/// A metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub name: &'static str,
    pub kind: MetricType,
    /// Labels besides those of every metric.
    pub labels: &'static [&'static str],
    help: &'static str,
}

/// Makes a row without further labels, or with them.
const fn row(
    name: &'static str,
    kind: MetricType,
    labels: &'static [&'static str],
    help: &'static str,
) -> Row {
    Row { name, kind, labels, help }
}

const DEVICE: &[&str] = &["device"];
const INTERFACE: &[&str] = &["interface"];

/// Every metric.
pub(super) const ROWS: &[Row] = &[
    row("container_cpu_user_seconds_total", Counter, &[], "Seconds of CPU time spent in programs."),
    row("container_cpu_system_seconds_total", Counter, &[], "Seconds of CPU time spent in the kernel."),
    row("container_cpu_usage_seconds_total", Counter, &[], "Seconds of CPU time spent."),
    row("container_cpu_cfs_periods_total", Counter, &[], "Periods in which a CPU quota held."),
    row(
        "container_cpu_cfs_throttled_periods_total",
        Counter,
        &[],
        "Periods in which the CPU quota was used up.",
    ),
    row("container_cpu_cfs_throttled_seconds_total", Counter, &[], "Seconds spent waiting for a new period."),
    row("container_memory_cache", Gauge, &[], "Bytes of cached files."),
    row("container_memory_rss", Gauge, &[], "Bytes of anonymous memory."),
    row("container_memory_kernel_usage", Gauge, &[], "Bytes of the kernel's for the container."),
    row("container_memory_mapped_file", Gauge, &[], "Bytes of mapped files."),
    row("container_memory_swap", Gauge, &[], "Bytes on swap."),
    row("container_memory_failcnt", Counter, &[], "How often the memory limit was met."),
    row("container_memory_usage_bytes", Gauge, &[], "Bytes of memory in all."),
    row("container_memory_max_usage_bytes", Gauge, &[], "The most bytes of memory so far."),
    row(
        "container_memory_working_set_bytes",
        Gauge,
        &[],
        "Bytes of memory that cannot be given back at once.",
    ),
    row("container_memory_total_active_file_bytes", Gauge, &[], "Bytes of cached files used lately."),
    row("container_memory_total_inactive_file_bytes", Gauge, &[], "Bytes of cached files not used lately."),
    row("container_memory_failures_total", Counter, &["failure_type", "scope"], "Page faults."),
    row("container_oom_events_total", Counter, &[], "Processes killed for want of memory."),
    row("container_fs_inodes_total", Gauge, DEVICE, "Inodes of the writable layer."),
    row("container_fs_usage_bytes", Gauge, DEVICE, "Bytes of the writable layer."),
    row("container_fs_limit_bytes", Gauge, DEVICE, "Bytes of the file system of writable layers."),
    row("container_fs_inodes_free", Gauge, DEVICE, "Free inodes of the file system of writable layers."),
    row("container_fs_reads_bytes_total", Counter, DEVICE, "Bytes read."),
    row("container_fs_reads_total", Counter, DEVICE, "Reads."),
    row("container_fs_writes_bytes_total", Counter, DEVICE, "Bytes written."),
    row("container_fs_writes_total", Counter, DEVICE, "Writes."),
    row("container_network_receive_bytes_total", Counter, INTERFACE, "Bytes received."),
    row("container_network_receive_packets_total", Counter, INTERFACE, "Packets received."),
    row(
        "container_network_receive_packets_dropped_total",
        Counter,
        INTERFACE,
        "Packets dropped when received.",
    ),
    row("container_network_receive_errors_total", Counter, INTERFACE, "Errors while receiving."),
    row("container_network_transmit_bytes_total", Counter, INTERFACE, "Bytes sent."),
    row("container_network_transmit_packets_total", Counter, INTERFACE, "Packets sent."),
    row("container_network_transmit_packets_dropped_total", Counter, INTERFACE, "Packets dropped when sent."),
    row("container_network_transmit_errors_total", Counter, INTERFACE, "Errors while sending."),
    row("container_processes", Gauge, &[], "Processes in the container."),
    row("container_threads_max", Gauge, &[], "How many threads there may be; 0 without a limit."),
    row("container_threads", Gauge, &[], "Threads in the container."),
    row("container_file_descriptors", Gauge, &[], "Open descriptors of the container's processes."),
    row("container_sockets", Gauge, &[], "Open sockets of the container's processes."),
    row("container_last_seen", Gauge, &[], "When the container was last looked at, in seconds since 1970."),
    row("container_start_time_seconds", Gauge, &[], "When the container was started, in seconds since 1970."),
    row("container_spec_cpu_period", Gauge, &[], "The period of the CPU quota, in microseconds."),
    row("container_spec_cpu_shares", Gauge, &[], "The CPU shares."),
    row("container_spec_memory_limit_bytes", Gauge, &[], "The memory limit."),
    row("container_spec_memory_swap_limit_bytes", Gauge, &[], "The limit of memory and swap together."),
];

impl Row {
    /// The row as the kubelet wants it.
    pub fn describe(&self) -> MetricDescriptor {
        MetricDescriptor {
            name: self.name.to_owned(),
            help: self.help.to_owned(),
            label_keys: BASE.iter().chain(self.labels).map(|key| (*key).to_owned()).collect(),
        }
    }
}

/// The row of a name.
pub(super) fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}
