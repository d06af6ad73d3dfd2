//! What a shim's cgroup counted, of either version of cgroups, in one form.

use ::spec::Error;
use api::io::containerd::cgroups::{v1 as cg1, v2 as cg2};
use api::runtime::v1;
use api::{Message, Name};
use model::{Any, Result};

use super::now;

/// Limits from here on are none: the kernel's largest is just below 2^63, rounded to pages.
const UNLIMITED: u64 = 1 << 62;

/// What one cgroup counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// When, in nanoseconds since 1970.
    pub at: i64,
    /// Times in nanoseconds.
    pub cpu: Cpu,
    /// Sizes in bytes.
    pub memory: Memory,
    /// How many tasks there are.
    pub pids: u64,
    /// How many tasks there may be; none when there is no limit.
    pub pids_limit: Option<u64>,
    /// By device.
    pub io: Vec<Io>,
    /// How long tasks waited for the CPU, memory and I/O, where the kernel counts it.
    pub pressure: [Option<v1::PsiStats>; 3],
}

/// What a cgroup used of the CPU.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    /// In all.
    pub total: u64,
    /// In programs.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// Periods in which it had a quota.
    pub periods: u64,
    /// Those in which it used it up.
    pub throttled_periods: u64,
    /// How long it then waited.
    pub throttled: u64,
}

/// What a cgroup used of the memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    /// In all.
    pub usage: u64,
    /// How much it may be; none when there is no limit.
    pub limit: Option<u64>,
    /// The most it has been.
    pub max: u64,
    /// How often the limit was met.
    pub failures: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Of files.
    pub cache: u64,
    /// Of files that are mapped.
    pub mapped: u64,
    /// The kernel's for it.
    pub kernel: u64,
    /// Of files, used lately.
    pub active_file: u64,
    /// Of files, not used lately.
    pub inactive_file: u64,
    /// Page faults.
    pub faults: u64,
    /// Those that had to read.
    pub major_faults: u64,
    /// On swap.
    pub swap: u64,
    /// How much may be on swap; none when there is no limit.
    pub swap_limit: Option<u64>,
    /// How many processes were killed for want of it.
    pub oom_kills: u64,
}

/// What a cgroup read from and wrote to one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Io {
    /// The device's numbers.
    pub device: (u64, u64),
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

impl Memory {
    /// What could not be given back at once.
    pub fn working_set(&self) -> u64 {
        self.usage.saturating_sub(self.inactive_file)
    }
}

impl Usage {
    /// Reads the figures of the cgroup `path`; none where there is no such cgroup. It blocks.
    pub fn of_cgroup(path: &str) -> Option<Self> {
        let cgroup = shim::cgroup::at(path)?;
        let any = shim::metrics::of(&cgroup);
        let read = any.and_then(|any| Self::read(&Any { type_url: any.type_url, value: any.value }));
        read.inspect_err(|error| tracing::debug!(path, %error, "cannot read a pod's cgroup")).ok()
    }

    /// Reads what a shim answered.
    ///
    /// # Errors
    /// `InvalidArgument`: it is no metrics.
    pub fn read(any: &Any) -> Result<Self> {
        let name = any.type_url.rsplit('/').next().unwrap_or_default();
        if name == cg2::Metrics::full_name() {
            return cg2::Metrics::decode(any.value.as_slice()).map(of_v2).map_err(Error::invalid);
        }
        if name == cg1::Metrics::full_name() {
            return cg1::Metrics::decode(any.value.as_slice()).map(of_v1).map_err(Error::invalid);
        }
        Err(Error::invalid(format!("unexpected metrics type: {name:?}")))
    }

    /// Adds what another cgroup of the same pod counted.
    pub fn add(&mut self, other: &Self) {
        self.at = self.at.max(other.at);
        self.pids = self.pids.saturating_add(other.pids);
        let (cpu, more) = (&mut self.cpu, &other.cpu);
        cpu.total = cpu.total.saturating_add(more.total);
        cpu.user = cpu.user.saturating_add(more.user);
        cpu.system = cpu.system.saturating_add(more.system);
        let (memory, more) = (&mut self.memory, &other.memory);
        memory.usage = memory.usage.saturating_add(more.usage);
        memory.rss = memory.rss.saturating_add(more.rss);
        memory.inactive_file = memory.inactive_file.saturating_add(more.inactive_file);
        memory.faults = memory.faults.saturating_add(more.faults);
        memory.major_faults = memory.major_faults.saturating_add(more.major_faults);
        memory.swap = memory.swap.saturating_add(more.swap);
    }

    /// The CPU as the kubelet sees it; `rate` in billionths of a core.
    pub fn cpu(&self, rate: Option<u64>) -> v1::CpuUsage {
        v1::CpuUsage {
            timestamp: self.at,
            usage_core_nano_seconds: value(self.cpu.total),
            usage_nano_cores: rate.and_then(value),
            psi: self.pressure[0],
        }
    }

    /// The memory as the kubelet sees it.
    pub fn memory(&self) -> v1::MemoryUsage {
        let memory = &self.memory;
        let available = memory.limit.map_or(0, |limit| limit.saturating_sub(memory.working_set()));
        v1::MemoryUsage {
            timestamp: self.at,
            working_set_bytes: value(memory.working_set()),
            available_bytes: value(available),
            usage_bytes: value(memory.usage),
            rss_bytes: value(memory.rss),
            page_faults: value(memory.faults),
            major_page_faults: value(memory.major_faults),
            psi: self.pressure[1],
        }
    }

    /// The swap as the kubelet sees it.
    pub fn swap(&self) -> v1::SwapUsage {
        let available = self.memory.swap_limit.map_or(0, |limit| limit.saturating_sub(self.memory.swap));
        v1::SwapUsage {
            timestamp: self.at,
            swap_available_bytes: value(available),
            swap_usage_bytes: value(self.memory.swap),
        }
    }

    /// I/O as the kubelet sees it.
    pub fn io(&self) -> Option<v1::IoUsage> {
        self.pressure[2].map(|psi| v1::IoUsage { timestamp: self.at, psi: Some(psi) })
    }
}

pub(super) fn value(value: u64) -> Option<v1::UInt64Value> {
    Some(v1::UInt64Value { value })
}

fn limit(value: u64) -> Option<u64> {
    (value != 0 && value < UNLIMITED).then_some(value)
}

fn pressure(psi: Option<cg2::PsiStats>) -> Option<v1::PsiStats> {
    let data = |data: cg2::PsiData| v1::PsiData {
        total: data.total,
        avg10: data.avg10,
        avg60: data.avg60,
        avg300: data.avg300,
    };
    psi.map(|psi| v1::PsiStats { full: psi.full.map(data), some: psi.some.map(data) })
}

fn of_v2(metrics: cg2::Metrics) -> Usage {
    let cpu = metrics.cpu.unwrap_or_default();
    let memory = metrics.memory.unwrap_or_default();
    let events = metrics.memory_events.unwrap_or_default();
    let pids = metrics.pids.unwrap_or_default();
    let io = metrics.io.unwrap_or_default();
    let devices = io.usage.iter().map(|entry| Io {
        device: (entry.major, entry.minor),
        read_bytes: entry.rbytes,
        written_bytes: entry.wbytes,
        reads: entry.rios,
        writes: entry.wios,
    });
    Usage {
        at: now(),
        cpu: Cpu {
            total: cpu.usage_usec.saturating_mul(1000),
            user: cpu.user_usec.saturating_mul(1000),
            system: cpu.system_usec.saturating_mul(1000),
            periods: cpu.nr_periods,
            throttled_periods: cpu.nr_throttled,
            throttled: cpu.throttled_usec.saturating_mul(1000),
        },
        memory: Memory {
            usage: memory.usage,
            limit: limit(memory.usage_limit),
            max: memory.max_usage,
            failures: events.max,
            rss: memory.anon,
            cache: memory.file,
            mapped: memory.file_mapped,
            kernel: memory.kernel_stack.saturating_add(memory.slab),
            active_file: memory.active_file,
            inactive_file: memory.inactive_file,
            faults: memory.pgfault,
            major_faults: memory.pgmajfault,
            swap: memory.swap_usage,
            swap_limit: limit(memory.swap_limit),
            oom_kills: events.oom_kill,
        },
        pids: pids.current,
        pids_limit: limit(pids.limit),
        io: devices.collect(),
        pressure: [pressure(cpu.psi), pressure(memory.psi), pressure(io.psi)],
    }
}

fn of_v1(metrics: cg1::Metrics) -> Usage {
    let cpu = metrics.cpu.unwrap_or_default();
    let (used, throttling) = (cpu.usage.unwrap_or_default(), cpu.throttling.unwrap_or_default());
    let memory = metrics.memory.unwrap_or_default();
    let (own, kernel) = (memory.usage.unwrap_or_default(), memory.kernel.unwrap_or_default());
    let both = memory.swap.unwrap_or_default();
    let pids = metrics.pids.unwrap_or_default();
    Usage {
        at: now(),
        cpu: Cpu {
            total: used.total,
            user: used.user,
            system: used.kernel,
            periods: throttling.periods,
            throttled_periods: throttling.throttled_periods,
            throttled: throttling.throttled_time,
        },
        memory: Memory {
            usage: own.usage,
            limit: limit(own.limit),
            max: own.max,
            failures: own.failcnt,
            rss: memory.total_rss,
            cache: memory.total_cache,
            mapped: memory.total_mapped_file,
            kernel: kernel.usage,
            active_file: memory.total_active_file,
            inactive_file: memory.total_inactive_file,
            faults: memory.total_pg_fault,
            major_faults: memory.total_pg_maj_fault,
            // This version counts memory and swap together.
            swap: both.usage.saturating_sub(own.usage),
            swap_limit: limit(both.limit).map(|limit| limit.saturating_sub(own.limit)),
            oom_kills: metrics.memory_oom_control.unwrap_or_default().oom_kill,
        },
        pids: pids.current,
        pids_limit: limit(pids.limit),
        io: metrics.blkio.map(|blkio| blkio_devices(&blkio)).unwrap_or_default(),
        pressure: [None, None, None],
    }
}

fn blkio_devices(blkio: &cg1::BlkIoStat) -> Vec<Io> {
    let mut devices: std::collections::BTreeMap<(u64, u64), Io> = std::collections::BTreeMap::new();
    let bytes = blkio.io_service_bytes_recursive.iter().map(|entry| (entry, true));
    let counts = blkio.io_serviced_recursive.iter().map(|entry| (entry, false));
    for (entry, is_bytes) in bytes.chain(counts) {
        let key = (entry.major, entry.minor);
        let device = devices.entry(key).or_insert(Io { device: key, ..Io::default() });
        match (entry.op.as_str(), is_bytes) {
            ("Read" | "read", true) => device.read_bytes = entry.value,
            ("Write" | "write", true) => device.written_bytes = entry.value,
            ("Read" | "read", false) => device.reads = entry.value,
            ("Write" | "write", false) => device.writes = entry.value,
            _ => {}
        }
    }
    devices.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_working_set_is_what_cannot_be_given_back() {
        let memory = cg2::MemoryStat {
            usage: 100,
            inactive_file: 30,
            usage_limit: 200,
            swap_limit: u64::MAX,
            ..cg2::MemoryStat::default()
        };
        let metrics = cg2::Metrics { memory: Some(memory), ..cg2::Metrics::default() };
        let any = api::encode_any(&metrics);
        let usage = Usage::read(&Any { type_url: any.type_url, value: any.value }).unwrap();
        let seen = usage.memory();
        assert_eq!(seen.working_set_bytes, value(70));
        assert_eq!(seen.available_bytes, value(130));
        assert_eq!(usage.memory.swap_limit, None);
        assert!(Usage::read(&Any::default()).is_err());
    }

    #[test]
    fn the_first_version_counts_swap_with_memory() {
        let entry = |usage, limit| Some(cg1::MemoryEntry { usage, limit, ..cg1::MemoryEntry::default() });
        let memory =
            cg1::MemoryStat { usage: entry(10, 50), swap: entry(15, 80), ..cg1::MemoryStat::default() };
        let usage = of_v1(cg1::Metrics { memory: Some(memory), ..cg1::Metrics::default() });
        assert_eq!((usage.memory.swap, usage.memory.swap_limit), (5, Some(30)));
    }
}
