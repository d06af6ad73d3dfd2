//! `io.containerd.cgroups.v2.Metrics`.

use api::io::containerd::cgroups::v2::{
    CpuStat, HugeTlbStat, IoEntry, IoStat, MemoryEvents, MemoryStat, Metrics, PidsStat, PsiData, PsiStats,
    RdmaEntry, RdmaStat,
};
use runtime::cgroup::stats;

/// The message of `stats`.
pub fn metrics(stats: &stats::StatsV2) -> Metrics {
    let cpu = &stats.cpu;
    let events = &stats.memory_events;
    Metrics {
        pids: Some(PidsStat { current: stats.pids.current, limit: stats.pids.limit }),
        cpu: Some(CpuStat {
            usage_usec: cpu.usage_usec,
            user_usec: cpu.user_usec,
            system_usec: cpu.system_usec,
            nr_periods: cpu.nr_periods,
            nr_throttled: cpu.nr_throttled,
            throttled_usec: cpu.throttled_usec,
            psi: pressure(cpu.pressure.as_ref()),
            nr_bursts: cpu.nr_bursts,
            burst_usec: cpu.burst_usec,
        }),
        memory: Some(memory(&stats.memory)),
        rdma: Some(RdmaStat { current: rdma(&stats.rdma.current), limit: rdma(&stats.rdma.limit) }),
        io: Some(IoStat {
            usage: stats.io.usage.iter().map(io_entry).collect(),
            psi: pressure(stats.io.pressure.as_ref()),
        }),
        hugetlb: stats.hugetlb.iter().map(hugetlb).collect(),
        memory_events: Some(MemoryEvents {
            low: events.low,
            high: events.high,
            max: events.max,
            oom: events.oom,
            oom_kill: events.oom_kill,
            oom_group_kill: events.oom_group_kill,
        }),
        network: Vec::new(),
    }
}

fn pressure(pressure: Option<&stats::Pressure>) -> Option<PsiStats> {
    let line = |line: &stats::PressureLine| PsiData {
        avg10: line.avg10,
        avg60: line.avg60,
        avg300: line.avg300,
        total: line.total,
    };
    pressure.map(|pressure| PsiStats { some: Some(line(&pressure.some)), full: Some(line(&pressure.full)) })
}

fn hugetlb(page: &stats::HugeTlb) -> HugeTlbStat {
    HugeTlbStat {
        current: page.usage,
        max: page.max,
        pagesize: page.page_size.clone(),
        failcnt: page.failures,
    }
}

fn rdma(entries: &[stats::RdmaEntry]) -> Vec<RdmaEntry> {
    let entry = |entry: &stats::RdmaEntry| RdmaEntry {
        device: entry.device.clone(),
        hca_handles: entry.hca_handles,
        hca_objects: entry.hca_objects,
    };
    entries.iter().map(entry).collect()
}

fn io_entry(entry: &stats::IoEntry) -> IoEntry {
    IoEntry {
        major: entry.major,
        minor: entry.minor,
        rbytes: entry.rbytes,
        wbytes: entry.wbytes,
        rios: entry.rios,
        wios: entry.wios,
    }
}

fn memory(memory: &stats::MemoryV2) -> MemoryStat {
    let stat = |key| memory.stat(key);
    MemoryStat {
        anon: stat("anon"),
        file: stat("file"),
        kernel_stack: stat("kernel_stack"),
        slab: stat("slab"),
        sock: stat("sock"),
        shmem: stat("shmem"),
        file_mapped: stat("file_mapped"),
        file_dirty: stat("file_dirty"),
        file_writeback: stat("file_writeback"),
        anon_thp: stat("anon_thp"),
        inactive_anon: stat("inactive_anon"),
        active_anon: stat("active_anon"),
        inactive_file: stat("inactive_file"),
        active_file: stat("active_file"),
        unevictable: stat("unevictable"),
        slab_reclaimable: stat("slab_reclaimable"),
        slab_unreclaimable: stat("slab_unreclaimable"),
        pgfault: stat("pgfault"),
        pgmajfault: stat("pgmajfault"),
        workingset_refault: stat("workingset_refault"),
        workingset_activate: stat("workingset_activate"),
        workingset_nodereclaim: stat("workingset_nodereclaim"),
        pgrefill: stat("pgrefill"),
        pgscan: stat("pgscan"),
        pgsteal: stat("pgsteal"),
        pgactivate: stat("pgactivate"),
        pgdeactivate: stat("pgdeactivate"),
        pglazyfree: stat("pglazyfree"),
        pglazyfreed: stat("pglazyfreed"),
        thp_fault_alloc: stat("thp_fault_alloc"),
        thp_collapse_alloc: stat("thp_collapse_alloc"),
        usage: memory.usage,
        usage_limit: memory.usage_limit,
        swap_usage: memory.swap_usage,
        swap_limit: memory.swap_limit,
        max_usage: memory.max_usage,
        swap_max_usage: memory.swap_max_usage,
        psi: pressure(memory.pressure.as_ref()),
    }
}
