//! What a container uses, under containerd's names: its cgroup's figures by the name of their file's line.

use api::io::containerd::cgroups::{v1, v2};
use api::{Any, decode_any};

use super::text::Text;

/// A name, its help, and where the figure is.
type Row<M> = (&'static str, &'static str, fn(&M) -> Option<u64>);

/// Figures of cgroup v2.
const UNIFIED: &[Row<v2::Metrics>] = &[
    ("container_cpu_usage_usec_microseconds", "Total cpu usage (cgroup v2)", |m| Some(m.cpu?.usage_usec)),
    ("container_cpu_user_usec_microseconds", "Current cpu usage in user space (cgroup v2)", |m| {
        Some(m.cpu?.user_usec)
    }),
    ("container_cpu_system_usec_microseconds", "Current cpu usage in kernel space (cgroup v2)", |m| {
        Some(m.cpu?.system_usec)
    }),
    (
        "container_cpu_nr_periods_total",
        "Current cpu number of periods (only if controller is enabled)",
        |m| Some(m.cpu?.nr_periods),
    ),
    ("container_cpu_nr_throttled_total", "Total number of times tasks have been throttled", |m| {
        Some(m.cpu?.nr_throttled)
    }),
    ("container_cpu_throttled_usec_microseconds", "Current cpu throttled time (cgroup v2)", |m| {
        Some(m.cpu?.throttled_usec)
    }),
    ("container_memory_usage_bytes", "Current memory usage (cgroup v2)", |m| Some(m.memory?.usage)),
    ("container_memory_usage_limit_bytes", "Current memory usage limit (cgroup v2)", |m| {
        Some(m.memory?.usage_limit)
    }),
    ("container_memory_swap_usage_bytes", "Current swap usage (cgroup v2)", |m| Some(m.memory?.swap_usage)),
    ("container_memory_swap_limit_bytes", "Current swap usage limit (cgroup v2)", |m| {
        Some(m.memory?.swap_limit)
    }),
    ("container_memory_anon_bytes", "The anon amount", |m| Some(m.memory?.anon)),
    ("container_memory_file_bytes", "The file amount", |m| Some(m.memory?.file)),
    ("container_memory_file_mapped_bytes", "The file_mapped amount", |m| Some(m.memory?.file_mapped)),
    ("container_memory_file_dirty_bytes", "The file_dirty amount", |m| Some(m.memory?.file_dirty)),
    ("container_memory_inactive_file_bytes", "The inactive_file amount", |m| Some(m.memory?.inactive_file)),
    ("container_memory_pgfault_bytes", "The pgfault amount", |m| Some(m.memory?.pgfault)),
    ("container_memory_pgmajfault_bytes", "The pgmajfault amount", |m| Some(m.memory?.pgmajfault)),
    ("container_memory_oom_total", "The number of times a container has received an oom kill", |m| {
        Some(m.memory_events?.oom_kill)
    }),
    ("container_pids_current", "Current number of pids (cgroup v2)", |m| Some(m.pids?.current)),
    ("container_pids_limit", "Current pids limit (cgroup v2)", |m| Some(m.pids?.limit)),
];

/// Figures of cgroup v1.
const DIVIDED: &[Row<v1::Metrics>] = &[
    ("container_cpu_total_nanoseconds", "The total cpu time", |m| {
        Some(m.cpu.as_ref()?.usage.as_ref()?.total)
    }),
    ("container_cpu_kernel_nanoseconds", "The total kernel cpu time", |m| {
        Some(m.cpu.as_ref()?.usage.as_ref()?.kernel)
    }),
    ("container_cpu_user_nanoseconds", "The total user cpu time", |m| {
        Some(m.cpu.as_ref()?.usage.as_ref()?.user)
    }),
    ("container_memory_usage_usage_bytes", "The usage amount", |m| {
        Some(m.memory.as_ref()?.usage.as_ref()?.usage)
    }),
    ("container_memory_usage_limit_bytes", "The usage limit", |m| {
        Some(m.memory.as_ref()?.usage.as_ref()?.limit)
    }),
    ("container_memory_usage_max_bytes", "The usage maximum", |m| {
        Some(m.memory.as_ref()?.usage.as_ref()?.max)
    }),
    ("container_memory_usage_failcnt_total", "The usage failcnt", |m| {
        Some(m.memory.as_ref()?.usage.as_ref()?.failcnt)
    }),
    ("container_memory_total_cache_bytes", "The total_cache amount", |m| {
        Some(m.memory.as_ref()?.total_cache)
    }),
    ("container_memory_total_rss_bytes", "The total_rss amount", |m| Some(m.memory.as_ref()?.total_rss)),
    ("container_memory_total_inactive_file_bytes", "The total_inactive_file amount", |m| {
        Some(m.memory.as_ref()?.total_inactive_file)
    }),
    ("container_memory_oom_total", "The number of times a container has received an oom event", |m| {
        Some(m.memory_oom_control.as_ref()?.oom_kill)
    }),
    ("container_pids_current", "The current number of pids", |m| Some(m.pids.as_ref()?.current)),
    ("container_pids_limit", "The limit to the number of pids allowed", |m| Some(m.pids.as_ref()?.limit)),
];

/// Adds what a shim told of a container, whichever cgroups the machine has.
pub(super) fn tell(text: &mut Text, labels: &[(&str, &str)], stats: &Any) {
    if let Ok(Some(metrics)) = decode_any::<v2::Metrics>(stats) {
        rows(text, labels, UNIFIED, &metrics);
        for io in metrics.io.iter().flat_map(|io| &io.usage) {
            let (major, minor) = (io.major.to_string(), io.minor.to_string());
            let labels: Vec<(&str, &str)> = labels
                .iter()
                .copied()
                .chain([("major", major.as_str()), ("minor", minor.as_str())])
                .collect();
            text.gauge("container_io_rbytes_bytes", "IO bytes read", &labels, io.rbytes as f64);
            text.gauge("container_io_wbytes_bytes", "IO bytes written", &labels, io.wbytes as f64);
            text.gauge("container_io_rios_total", "Number of read IOs", &labels, io.rios as f64);
            text.gauge("container_io_wios_total", "Number of write IOs", &labels, io.wios as f64);
        }
    } else if let Ok(Some(metrics)) = decode_any::<v1::Metrics>(stats) {
        rows(text, labels, DIVIDED, &metrics);
    }
}

fn rows<M>(text: &mut Text, labels: &[(&str, &str)], rows: &[Row<M>], metrics: &M) {
    for (name, help, figure) in rows {
        if let Some(value) = figure(metrics) {
            text.gauge(name, help, labels, value as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_containerds_names_whatever_the_cgroups() {
        let mut text = Text::default();
        let labels = [("container_id", "a"), ("namespace", "ns")];
        let unified = v2::Metrics {
            cpu: Some(v2::CpuStat { usage_usec: 7, ..Default::default() }),
            io: Some(v2::IoStat {
                usage: vec![v2::IoEntry { major: 8, rbytes: 512, ..Default::default() }],
                psi: None,
            }),
            ..Default::default()
        };
        tell(&mut text, &labels, &api::encode_any(&unified));
        let divided = v1::Metrics { pids: Some(v1::PidsStat { current: 3, limit: 0 }), ..Default::default() };
        tell(&mut text, &labels, &api::encode_any(&divided));
        let text = text.finish();
        for line in [
            "container_cpu_usage_usec_microseconds{container_id=\"a\",namespace=\"ns\"} 7\n",
            "container_io_rbytes_bytes{container_id=\"a\",namespace=\"ns\",major=\"8\",minor=\"0\"} 512\n",
            "container_pids_current{container_id=\"a\",namespace=\"ns\"} 3\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
