//! Figures of cgroup v2.

use std::collections::BTreeMap;
use std::path::Path;

use super::{HugeTlb, Pids, Rdma, huge_page_sizes, parse_rdma};
use crate::cgroup::{CgroupError, file};

/// All figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatsV2 {
    /// Number of tasks.
    pub pids: Pids,
    /// CPU time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// RDMA devices.
    pub rdma: Rdma,
    /// Block devices.
    pub io: Io,
    /// Huge pages by size.
    pub hugetlb: Vec<HugeTlb>,
    /// How often memory ran short.
    pub memory_events: MemoryEvents,
}

/// CPU time in microseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cpu {
    /// All of it.
    pub usage_usec: u64,
    /// In user mode.
    pub user_usec: u64,
    /// In the kernel.
    pub system_usec: u64,
    /// Periods with something to run.
    pub nr_periods: u64,
    /// Periods in which the quota ran out.
    pub nr_throttled: u64,
    /// Time withheld.
    pub throttled_usec: u64,
    /// Periods that used time saved up.
    pub nr_bursts: u64,
    /// Time saved up that was used.
    pub burst_usec: u64,
    /// Time lost waiting for a CPU.
    pub pressure: Option<Pressure>,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// `memory.stat` by its keys.
    pub stat: BTreeMap<String, u64>,
    /// Memory now.
    pub usage: u64,
    /// Its limit; all ones is unlimited.
    pub usage_limit: u64,
    /// Most memory so far.
    pub max_usage: u64,
    /// Swap now.
    pub swap_usage: u64,
    /// Its limit; all ones is unlimited.
    pub swap_limit: u64,
    /// Most swap so far.
    pub swap_max_usage: u64,
    /// Time lost waiting for memory.
    pub pressure: Option<Pressure>,
}

impl Memory {
    /// The figure `key` of `memory.stat`; 0 if the kernel has none.
    pub fn stat(&self, key: &str) -> u64 {
        self.stat.get(key).copied().unwrap_or(0)
    }
}

/// How often memory ran short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// Reclaimed although below the protected amount.
    pub low: u64,
    /// Throttled above the high mark.
    pub high: u64,
    /// Stopped at the limit.
    pub max: u64,
    /// Reclaim failed at the limit.
    pub oom: u64,
    /// Processes killed.
    pub oom_kill: u64,
    /// Times the whole group was killed.
    pub oom_group_kill: u64,
}

/// Block devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Io {
    /// By device.
    pub usage: Vec<IoEntry>,
    /// Time lost waiting for devices.
    pub pressure: Option<Pressure>,
}

/// One block device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoEntry {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// Bytes read.
    pub rbytes: u64,
    /// Bytes written.
    pub wbytes: u64,
    /// Reads.
    pub rios: u64,
    /// Writes.
    pub wios: u64,
}

/// Time lost waiting for a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// While some task waited.
    pub some: PressureLine,
    /// While all tasks waited.
    pub full: PressureLine,
}

/// Shares of time lost in percent, and the sum in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PressureLine {
    /// Over 10 seconds.
    pub avg10: f64,
    /// Over a minute.
    pub avg60: f64,
    /// Over five minutes.
    pub avg300: f64,
    /// Microseconds.
    pub total: u64,
}

pub(super) fn read(path: &Path) -> Result<StatsV2, CgroupError> {
    Ok(StatsV2 {
        pids: pids(path)?,
        cpu: cpu(path)?,
        memory: memory(path)?,
        rdma: Rdma {
            current: parse_rdma(&file::read_optional(path, "rdma.current")?.unwrap_or_default()),
            limit: parse_rdma(&file::read_optional(path, "rdma.max")?.unwrap_or_default()),
        },
        io: Io {
            usage: io_entries(&file::read_optional(path, "io.stat")?.unwrap_or_default()),
            pressure: pressure(path, "io.pressure")?,
        },
        hugetlb: hugetlb(path)?,
        memory_events: memory_events(&file::read_optional(path, "memory.events")?.unwrap_or_default()),
    })
}

fn pids(path: &Path) -> Result<Pids, CgroupError> {
    Ok(Pids {
        current: file::read_number(path, "pids.current")?,
        limit: file::read_number(path, "pids.max")?,
    })
}

fn cpu(path: &Path) -> Result<Cpu, CgroupError> {
    let text = file::read_optional(path, "cpu.stat")?.unwrap_or_default();
    let value = |key| file::value_of(&text, key).unwrap_or(0);
    Ok(Cpu {
        usage_usec: value("usage_usec"),
        user_usec: value("user_usec"),
        system_usec: value("system_usec"),
        nr_periods: value("nr_periods"),
        nr_throttled: value("nr_throttled"),
        throttled_usec: value("throttled_usec"),
        nr_bursts: value("nr_bursts"),
        burst_usec: value("burst_usec"),
        pressure: pressure(path, "cpu.pressure")?,
    })
}

fn memory(path: &Path) -> Result<Memory, CgroupError> {
    let text = file::read_optional(path, "memory.stat")?.unwrap_or_default();
    Ok(Memory {
        stat: file::pairs(&text).map(|(key, value)| (key.to_owned(), value)).collect(),
        usage: file::read_number(path, "memory.current")?,
        usage_limit: file::read_number(path, "memory.max")?,
        max_usage: file::read_number(path, "memory.peak")?,
        swap_usage: file::read_number(path, "memory.swap.current")?,
        swap_limit: file::read_number(path, "memory.swap.max")?,
        swap_max_usage: file::read_number(path, "memory.swap.peak")?,
        pressure: pressure(path, "memory.pressure")?,
    })
}

fn memory_events(text: &str) -> MemoryEvents {
    let value = |key| file::value_of(text, key).unwrap_or(0);
    MemoryEvents {
        low: value("low"),
        high: value("high"),
        max: value("max"),
        oom: value("oom"),
        oom_kill: value("oom_kill"),
        oom_group_kill: value("oom_group_kill"),
    }
}

/// Lines such as `254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
fn io_entries(text: &str) -> Vec<IoEntry> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let mut entry =
            IoEntry { major: major.parse().ok()?, minor: minor.parse().ok()?, ..IoEntry::default() };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => entry.rbytes = value,
                "wbytes" => entry.wbytes = value,
                "rios" => entry.rios = value,
                "wios" => entry.wios = value,
                _ => {}
            }
        }
        Some(entry)
    };
    text.lines().filter_map(parse).collect()
}

fn hugetlb(path: &Path) -> Result<Vec<HugeTlb>, CgroupError> {
    if !path.join("hugetlb.2MB.max").exists() {
        return Ok(Vec::new());
    }
    let read = |page_size: String| {
        let number = |what: &str| file::read_number(path, &format!("hugetlb.{page_size}.{what}"));
        let (usage, max) = (number("current")?, number("max")?);
        let events = file::read_optional(path, &format!("hugetlb.{page_size}.events"))?.unwrap_or_default();
        Ok(HugeTlb { page_size, usage, max, failures: file::value_of(&events, "max").unwrap_or(0) })
    };
    huge_page_sizes().into_iter().map(read).collect()
}

fn pressure(path: &Path, name: &str) -> Result<Option<Pressure>, CgroupError> {
    Ok(file::read_optional(path, name)?.map(|text| parse_pressure(&text)))
}

/// Lines such as `some avg10=0.12 avg60=0.00 avg300=0.00 total=1234`.
fn parse_pressure(text: &str) -> Pressure {
    let line = |which: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(which)).unwrap_or_default();
        let mut found = PressureLine::default();
        for (key, value) in rest.split_whitespace().filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => found.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => found.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => found.avg300 = value.parse().unwrap_or(0.0),
                "total" => found.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        found
    };
    Pressure { some: line("some "), full: line("full ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_has_two_lines() {
        let text = "some avg10=0.12 avg60=1.00 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.50 total=9\n";
        let pressure = parse_pressure(text);
        assert_eq!((pressure.some.avg10, pressure.some.total), (0.12, 1234));
        assert_eq!((pressure.full.avg300, pressure.full.total), (0.5, 9));
    }

    #[test]
    fn io_lines_keep_what_has_a_field() {
        let entries = io_entries("254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:0 \n");
        assert_eq!(entries[0], IoEntry { major: 254, minor: 0, rbytes: 1, wbytes: 2, rios: 3, wios: 4 });
        assert_eq!(entries.len(), 2);
    }
}
