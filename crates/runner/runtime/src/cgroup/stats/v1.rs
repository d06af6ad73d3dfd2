//! Figures of cgroup v1.

use std::collections::BTreeMap;
use std::path::Path;

use super::{HugeTlb, Pids, Rdma, huge_page_sizes, parse_rdma};
use crate::cgroup::{Cgroup, CgroupError, file};

/// Nanoseconds of one USER_HZ tick, in which `cpuacct.stat` counts; it is 100 a second on every architecture we build
/// for.
const TICK_NS: u64 = 10_000_000;

/// All figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatsV1 {
    /// Huge pages by size.
    pub hugetlb: Vec<HugeTlb>,
    /// Number of tasks.
    pub pids: Pids,
    /// CPU time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Block devices.
    pub block_io: BlockIo,
    /// RDMA devices.
    pub rdma: Rdma,
    /// The out-of-memory killer.
    pub oom: MemoryOomControl,
}

/// CPU time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// All of it.
    pub total: u64,
    /// In the kernel.
    pub kernel: u64,
    /// In user mode.
    pub user: u64,
    /// By CPU.
    pub per_cpu: Vec<u64>,
    /// Time withheld by the quota.
    pub throttling: Throttling,
}

/// Time withheld by the quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods with something to run.
    pub periods: u64,
    /// Periods in which the quota ran out.
    pub throttled_periods: u64,
    /// Nanoseconds withheld.
    pub throttled_time: u64,
}

/// Memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// `memory.stat` by its keys, in the kernel's words (`pgpgin`, `total_rss`, `hierarchical_memsw_limit`, ...).
    pub stat: BTreeMap<String, u64>,
    /// Memory.
    pub usage: MemoryEntry,
    /// Memory and swap together.
    pub swap: MemoryEntry,
    /// Kernel memory.
    pub kernel: MemoryEntry,
    /// TCP buffers.
    pub kernel_tcp: MemoryEntry,
}

impl Memory {
    /// The figure `key` of `memory.stat`; 0 if the kernel has none.
    pub fn stat(&self, key: &str) -> u64 {
        self.stat.get(key).copied().unwrap_or(0)
    }
}

/// Use of one kind of memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryEntry {
    /// Limit.
    pub limit: u64,
    /// Now.
    pub usage: u64,
    /// Most so far.
    pub max: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

/// The out-of-memory killer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryOomControl {
    /// Whether it is off.
    pub oom_kill_disable: u64,
    /// Whether tasks wait for memory now.
    pub under_oom: u64,
    /// How many it killed.
    pub oom_kill: u64,
}

/// Block devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockIo {
    /// Bytes.
    pub service_bytes: Vec<BlockIoEntry>,
    /// Operations.
    pub serviced: Vec<BlockIoEntry>,
    /// Operations queued.
    pub queued: Vec<BlockIoEntry>,
    /// Nanoseconds from dispatch to completion.
    pub service_time: Vec<BlockIoEntry>,
    /// Nanoseconds in queues.
    pub wait_time: Vec<BlockIoEntry>,
    /// Requests merged.
    pub merged: Vec<BlockIoEntry>,
    /// Milliseconds of disk time.
    pub time: Vec<BlockIoEntry>,
    /// Sectors.
    pub sectors: Vec<BlockIoEntry>,
}

/// One figure of one block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockIoEntry {
    /// `Read`, `Write`, ..., `Total`; empty where the kernel does not tell them apart.
    pub op: String,
    /// Path of the device node, if the device is known.
    pub device: String,
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// The figure.
    pub value: u64,
}

pub(super) fn read(cgroup: &Cgroup) -> Result<StatsV1, CgroupError> {
    let mut stats = StatsV1::default();
    if let Some(path) = cgroup.path("hugetlb") {
        stats.hugetlb = hugetlb(path)?;
    }
    if let Some(path) = cgroup.path("pids") {
        stats.pids = Pids {
            current: file::read_number(path, "pids.current")?,
            limit: file::read_number(path, "pids.max")?,
        };
    }
    if let Some(path) = cgroup.path("cpuacct") {
        cpu_usage(path, &mut stats.cpu)?;
    }
    if let Some(path) = cgroup.path("cpu") {
        stats.cpu.throttling = throttling(path)?;
    }
    if let Some(path) = cgroup.path("memory") {
        stats.memory = memory(path)?;
        stats.oom = oom_control(path)?;
    }
    if let Some(path) = cgroup.path("blkio") {
        stats.block_io = block_io(path)?;
    }
    if let Some(path) = cgroup.path("rdma") {
        stats.rdma = Rdma {
            current: parse_rdma(&file::read_optional(path, "rdma.current")?.unwrap_or_default()),
            limit: parse_rdma(&file::read_optional(path, "rdma.max")?.unwrap_or_default()),
        };
    }
    Ok(stats)
}

fn hugetlb(path: &Path) -> Result<Vec<HugeTlb>, CgroupError> {
    let read = |page_size: String| {
        let number = |what: &str| file::read_number(path, &format!("hugetlb.{page_size}.{what}"));
        let (usage, max, failures) =
            (number("usage_in_bytes")?, number("max_usage_in_bytes")?, number("failcnt")?);
        Ok(HugeTlb { page_size, usage, max, failures })
    };
    huge_page_sizes().into_iter().map(read).collect()
}

fn cpu_usage(path: &Path, cpu: &mut Cpu) -> Result<(), CgroupError> {
    cpu.total = file::read_number(path, "cpuacct.usage")?;
    let ticks = file::read_optional(path, "cpuacct.stat")?.unwrap_or_default();
    let ns = |key| file::value_of(&ticks, key).unwrap_or(0).saturating_mul(TICK_NS);
    (cpu.user, cpu.kernel) = (ns("user"), ns("system"));
    let per_cpu = file::read_optional(path, "cpuacct.usage_percpu")?.unwrap_or_default();
    cpu.per_cpu = per_cpu.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    Ok(())
}

fn throttling(path: &Path) -> Result<Throttling, CgroupError> {
    let text = file::read_optional(path, "cpu.stat")?.unwrap_or_default();
    let value = |key| file::value_of(&text, key).unwrap_or(0);
    Ok(Throttling {
        periods: value("nr_periods"),
        throttled_periods: value("nr_throttled"),
        throttled_time: value("throttled_time"),
    })
}

fn memory(path: &Path) -> Result<Memory, CgroupError> {
    let text = file::read_optional(path, "memory.stat")?.unwrap_or_default();
    Ok(Memory {
        stat: file::pairs(&text).map(|(key, value)| (key.to_owned(), value)).collect(),
        usage: memory_entry(path, "memory")?,
        swap: memory_entry(path, "memory.memsw")?,
        kernel: memory_entry(path, "memory.kmem")?,
        kernel_tcp: memory_entry(path, "memory.kmem.tcp")?,
    })
}

fn memory_entry(path: &Path, prefix: &str) -> Result<MemoryEntry, CgroupError> {
    let number = |what: &str| file::read_number(path, &format!("{prefix}.{what}"));
    Ok(MemoryEntry {
        limit: number("limit_in_bytes")?,
        usage: number("usage_in_bytes")?,
        max: number("max_usage_in_bytes")?,
        failures: number("failcnt")?,
    })
}

fn oom_control(path: &Path) -> Result<MemoryOomControl, CgroupError> {
    let text = file::read_optional(path, "memory.oom_control")?.unwrap_or_default();
    let value = |key| file::value_of(&text, key).unwrap_or(0);
    Ok(MemoryOomControl {
        oom_kill_disable: value("oom_kill_disable"),
        under_oom: value("under_oom"),
        oom_kill: value("oom_kill"),
    })
}

fn block_io(path: &Path) -> Result<BlockIo, CgroupError> {
    let read = |name: &str| -> Result<Vec<BlockIoEntry>, CgroupError> {
        Ok(block_entries(&file::read_optional(path, name)?.unwrap_or_default()))
    };
    let mut stats = BlockIo {
        service_bytes: read("blkio.io_service_bytes_recursive")?,
        serviced: read("blkio.io_serviced_recursive")?,
        queued: read("blkio.io_queued_recursive")?,
        service_time: read("blkio.io_service_time_recursive")?,
        wait_time: read("blkio.io_wait_time_recursive")?,
        merged: read("blkio.io_merged_recursive")?,
        time: read("blkio.time_recursive")?,
        sectors: read("blkio.sectors_recursive")?,
    };
    // The files above went with the CFQ scheduler; the throttling layer counts for any scheduler.
    if stats.service_bytes.is_empty() && stats.serviced.is_empty() {
        stats.serviced = read("blkio.throttle.io_serviced_recursive")?;
        stats.service_bytes = read("blkio.throttle.io_service_bytes_recursive")?;
    }
    name_devices(&mut stats)?;
    Ok(stats)
}

/// Lines such as `8:0 Read 1282048` and `8:0 6792`; the line `Total 3477504` is the sum of all.
fn block_entries(text: &str) -> Vec<BlockIoEntry> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let second = words.next()?;
        let (op, value) = words.next().map_or(("", second), |third| (second, third));
        Some(BlockIoEntry {
            op: op.to_owned(),
            device: String::new(),
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(parse).collect()
}

fn name_devices(stats: &mut BlockIo) -> Result<(), CgroupError> {
    let lists = [
        &mut stats.service_bytes,
        &mut stats.serviced,
        &mut stats.queued,
        &mut stats.service_time,
        &mut stats.wait_time,
        &mut stats.merged,
        &mut stats.time,
        &mut stats.sectors,
    ];
    if lists.iter().all(|list| list.is_empty()) {
        return Ok(());
    }
    let names = partitions(&file::read(Path::new("/proc/partitions"))?);
    for entry in lists.into_iter().flatten() {
        entry.device = names.get(&(entry.major, entry.minor)).cloned().unwrap_or_default();
    }
    Ok(())
}

/// Device nodes by number from the text of `/proc/partitions`.
fn partitions(text: &str) -> BTreeMap<(u64, u64), String> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(((major, minor), format!("/dev/{}", words.nth(1)?)))
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_lines_have_an_operation_or_none_and_sums_are_skipped() {
        let entries = block_entries("8:0 Read 12\n253:16 7\nTotal 19\n");
        assert_eq!((entries[0].op.as_str(), entries[0].major, entries[0].value), ("Read", 8, 12));
        assert_eq!((entries[1].op.as_str(), entries[1].minor, entries[1].value), ("", 16, 7));
        assert_eq!(entries.len(), 2);
    }

    #[test]
    fn partitions_are_named_by_number() {
        let names = partitions("major minor  #blocks  name\n\n 254        0   33554432 vda\n");
        assert_eq!(names[&(254, 0)], "/dev/vda");
    }
}
