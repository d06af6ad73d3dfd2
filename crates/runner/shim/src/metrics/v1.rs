//! `io.containerd.cgroups.v1.Metrics`.

use api::io::containerd::cgroups::v1::{
    BlkIoEntry, BlkIoStat, CpuStat, CpuUsage, HugetlbStat, MemoryEntry, MemoryOomControl, MemoryStat,
    Metrics, PidsStat, RdmaEntry, RdmaStat, Throttle,
};
use runtime::cgroup::stats;

/// The message of `stats`.
pub fn metrics(stats: &stats::StatsV1) -> Metrics {
    let cpu = &stats.cpu;
    let oom = &stats.oom;
    Metrics {
        hugetlb: stats.hugetlb.iter().map(hugetlb).collect(),
        pids: Some(PidsStat { current: stats.pids.current, limit: limit(stats.pids.limit) }),
        cpu: Some(CpuStat {
            usage: Some(CpuUsage {
                total: cpu.total,
                kernel: cpu.kernel,
                user: cpu.user,
                per_cpu: cpu.per_cpu.clone(),
            }),
            throttling: Some(Throttle {
                periods: cpu.throttling.periods,
                throttled_periods: cpu.throttling.throttled_periods,
                throttled_time: cpu.throttling.throttled_time,
            }),
        }),
        memory: Some(memory(&stats.memory)),
        blkio: Some(block_io(&stats.block_io)),
        rdma: Some(RdmaStat { current: rdma(&stats.rdma.current), limit: rdma(&stats.rdma.limit) }),
        network: Vec::new(),
        cgroup_stats: None,
        memory_oom_control: Some(MemoryOomControl {
            oom_kill_disable: oom.oom_kill_disable,
            under_oom: oom.under_oom,
            oom_kill: oom.oom_kill,
        }),
    }
}

/// Without a limit containerd says 0, the kernel "max".
fn limit(value: u64) -> u64 {
    if value == u64::MAX { 0 } else { value }
}

fn hugetlb(page: &stats::HugeTlb) -> HugetlbStat {
    HugetlbStat { usage: page.usage, max: page.max, failcnt: page.failures, pagesize: page.page_size.clone() }
}

fn rdma(entries: &[stats::RdmaEntry]) -> Vec<RdmaEntry> {
    let entry = |entry: &stats::RdmaEntry| RdmaEntry {
        device: entry.device.clone(),
        hca_handles: entry.hca_handles,
        hca_objects: entry.hca_objects,
    };
    entries.iter().map(entry).collect()
}

fn block_io(stats: &stats::BlockIo) -> BlkIoStat {
    let entries = |list: &[stats::BlockIoEntry]| {
        let entry = |entry: &stats::BlockIoEntry| BlkIoEntry {
            op: entry.op.clone(),
            device: entry.device.clone(),
            major: entry.major,
            minor: entry.minor,
            value: entry.value,
        };
        list.iter().map(entry).collect()
    };
    BlkIoStat {
        io_service_bytes_recursive: entries(&stats.service_bytes),
        io_serviced_recursive: entries(&stats.serviced),
        io_queued_recursive: entries(&stats.queued),
        io_service_time_recursive: entries(&stats.service_time),
        io_wait_time_recursive: entries(&stats.wait_time),
        io_merged_recursive: entries(&stats.merged),
        io_time_recursive: entries(&stats.time),
        sectors_recursive: entries(&stats.sectors),
    }
}

fn entry(entry: &stats::MemoryEntry) -> Option<MemoryEntry> {
    Some(MemoryEntry { limit: entry.limit, usage: entry.usage, max: entry.max, failcnt: entry.failures })
}

fn memory(memory: &stats::MemoryV1) -> MemoryStat {
    let stat = |key| memory.stat(key);
    MemoryStat {
        cache: stat("cache"),
        rss: stat("rss"),
        rss_huge: stat("rss_huge"),
        mapped_file: stat("mapped_file"),
        dirty: stat("dirty"),
        writeback: stat("writeback"),
        pg_pg_in: stat("pgpgin"),
        pg_pg_out: stat("pgpgout"),
        pg_fault: stat("pgfault"),
        pg_maj_fault: stat("pgmajfault"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        hierarchical_memory_limit: stat("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat("hierarchical_memsw_limit"),
        total_cache: stat("total_cache"),
        total_rss: stat("total_rss"),
        total_rss_huge: stat("total_rss_huge"),
        total_mapped_file: stat("total_mapped_file"),
        total_dirty: stat("total_dirty"),
        total_writeback: stat("total_writeback"),
        total_pg_pg_in: stat("total_pgpgin"),
        total_pg_pg_out: stat("total_pgpgout"),
        total_pg_fault: stat("total_pgfault"),
        total_pg_maj_fault: stat("total_pgmajfault"),
        total_inactive_anon: stat("total_inactive_anon"),
        total_active_anon: stat("total_active_anon"),
        total_inactive_file: stat("total_inactive_file"),
        total_active_file: stat("total_active_file"),
        total_unevictable: stat("total_unevictable"),
        usage: entry(&memory.usage),
        swap: entry(&memory.swap),
        kernel: entry(&memory.kernel),
        kernel_tcp: entry(&memory.kernel_tcp),
    }
}
