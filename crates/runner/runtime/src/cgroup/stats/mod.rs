//! Usage figures of a cgroup, with everything that containerd's metrics messages have fields for.
//!
//! A figure whose controller or kernel option is missing is 0 or absent: metrics never fail for want of one file.

mod v1;
mod v2;

use super::{Cgroup, CgroupError, UNIFIED};

pub use v1::{
    BlockIo, BlockIoEntry, Cpu as CpuV1, Memory as MemoryV1, MemoryEntry, MemoryOomControl, StatsV1,
    Throttling,
};
pub use v2::{Cpu as CpuV2, Io, IoEntry, Memory as MemoryV2, MemoryEvents, Pressure, PressureLine, StatsV2};

/// The figures of a cgroup, in its version's terms.
#[derive(Clone, Debug, PartialEq)]
pub enum Stats {
    /// Cgroup v1 or hybrid.
    V1(Box<StatsV1>),
    /// Cgroup v2.
    V2(Box<StatsV2>),
}

/// Number of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pids {
    /// Tasks now.
    pub current: u64,
    /// Limit; all ones is unlimited.
    pub limit: u64,
}

/// Huge pages of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugeTlb {
    /// Page size as the kernel writes it: `2MB`.
    pub page_size: String,
    /// Bytes used.
    pub usage: u64,
    /// Most bytes used so far (v1), or the limit (v2), as containerd reports it.
    pub max: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

/// One RDMA device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RdmaEntry {
    /// Its name.
    pub device: String,
    /// Handles; all ones is unlimited.
    pub hca_handles: u32,
    /// Objects; all ones is unlimited.
    pub hca_objects: u32,
}

/// RDMA devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rdma {
    /// In use.
    pub current: Vec<RdmaEntry>,
    /// Limits.
    pub limit: Vec<RdmaEntry>,
}

pub(super) fn read(cgroup: &Cgroup) -> Result<Stats, CgroupError> {
    match cgroup.path(UNIFIED).filter(|_| cgroup.is_v2()) {
        Some(directory) => Ok(Stats::V2(Box::new(v2::read(directory)?))),
        None => Ok(Stats::V1(Box::new(v1::read(cgroup)?))),
    }
}

/// Lines such as `mlx4_0 hca_handle=2 hca_object=max`.
fn parse_rdma(text: &str) -> Vec<RdmaEntry> {
    let count = |value: &str| value.parse().unwrap_or(u32::MAX);
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(device) = words.next() else { continue };
        let mut entry = RdmaEntry { device: device.to_owned(), ..RdmaEntry::default() };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "hca_handle" => entry.hca_handles = count(value),
                "hca_object" => entry.hca_objects = count(value),
                _ => {}
            }
        }
        entries.push(entry);
    }
    entries
}

/// The huge page sizes of this machine, as cgroup files name them.
fn huge_page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<_> = entries.filter_map(|entry| huge_page_size(entry.file_name().to_str()?)).collect();
    sizes.sort();
    sizes
}

/// `hugepages-2048kB` is `2MB`.
fn huge_page_size(name: &str) -> Option<String> {
    let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kib {
        0..1024 => format!("{kib}KB"),
        1024..1_048_576 => format!("{}MB", kib >> 10),
        _ => format!("{}GB", kib >> 20),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_page_sizes_are_named_as_cgroup_files_name_them() {
        let sizes = ["hugepages-64kB", "hugepages-2048kB", "hugepages-1048576kB"].map(huge_page_size);
        assert_eq!(sizes.map(Option::unwrap), ["64KB", "2MB", "1GB"]);
        assert_eq!(huge_page_size("hugepages-x"), None);
    }

    #[test]
    fn rdma_lines_may_be_unlimited() {
        let entries = parse_rdma("mlx4_0 hca_handle=2 hca_object=max\n");
        assert_eq!((entries[0].hca_handles, entries[0].hca_objects), (2, u32::MAX));
    }
}
