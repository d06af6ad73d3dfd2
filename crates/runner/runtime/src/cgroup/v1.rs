//! Making and limiting the directories of cgroup v1.

use std::path::{Path, PathBuf};

use spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources, LinuxThrottleDevice};

use super::{Cgroup, CgroupError, FreezerState, file, v2};

/// Makes every directory and notes in `made` those that were not there.
pub(super) fn make(cgroup: &Cgroup, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    if make_all(cgroup, made)? { check_unused(cgroup) } else { Ok(()) }
}

/// Makes the directories that systemd did not make around the process `pid` of its own.
pub(super) fn make_around(cgroup: &Cgroup, pid: i32) -> Result<(), CgroupError> {
    make_all(cgroup, &mut Vec::new())?;
    match cgroup.processes()?.iter().filter(|&&other| other != pid).count() {
        0 => Ok(()),
        count => Err(CgroupError::NotEmpty(count)),
    }
}

/// Whether any directory was there before.
fn make_all(cgroup: &Cgroup, made: &mut Vec<PathBuf>) -> Result<bool, CgroupError> {
    let mut found = false;
    for directory in cgroup.directories() {
        match file::make(directory)? {
            true => made.push(directory.to_owned()),
            false => found = true,
        }
    }
    if let Some(cpuset) = cgroup.path("cpuset") {
        inherit_cpuset(cpuset)?;
    }
    Ok(found)
}

/// A directory that was there may be another container's.
pub(super) fn check_unused(cgroup: &Cgroup) -> Result<(), CgroupError> {
    let count = cgroup.processes()?.len();
    if count > 0 {
        return Err(CgroupError::NotEmpty(count));
    }
    match cgroup.freezer_state()? {
        FreezerState::Frozen => Err(CgroupError::Frozen),
        FreezerState::Thawed | FreezerState::Unknown => Ok(()),
    }
}

/// A v1 cpuset begins with no CPU and no memory node, and then takes no task: give it its parent's.
fn inherit_cpuset(directory: &Path) -> Result<(), CgroupError> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        inherited(directory, name)?;
    }
    Ok(())
}

fn inherited(directory: &Path, name: &str) -> Result<String, CgroupError> {
    let own = file::read(&directory.join(name))?;
    let own = own.trim();
    match directory.parent().filter(|_| own.is_empty()) {
        None => Ok(own.to_owned()),
        Some(parent) => {
            let value = inherited(parent, name)?;
            file::write(directory, name, &value)?;
            Ok(value)
        }
    }
}

/// Sets what `resources` names.
pub(super) fn apply(cgroup: &Cgroup, resources: &LinuxResources) -> Result<(), CgroupError> {
    if !resources.unified.is_empty() {
        return Err(CgroupError::Value("invalid configuration: cannot use unified on cgroup v1".into()));
    }
    if let Some(memory) = &resources.memory {
        set_memory(cgroup, memory)?;
    }
    if let Some(cpu) = &resources.cpu {
        set_cpu(cgroup, cpu)?;
        set_cpuset(cgroup, cpu)?;
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        file::write(at(cgroup, "pids")?, "pids.max", &v2::pids_max(limit))?;
    }
    if let Some(block_io) = resources.block_io.as_ref().filter(|io| **io != LinuxBlockIo::default()) {
        set_block_io(at(cgroup, "blkio")?, block_io)?;
    }
    for huge in &resources.hugepage_limits {
        v2::set_hugetlb(at(cgroup, "hugetlb")?, huge, "limit_in_bytes")?;
    }
    if let Some(network) = &resources.network {
        set_network(cgroup, network)?;
    }
    for (device, limit) in &resources.rdma {
        file::write(at(cgroup, "rdma")?, "rdma.max", &v2::rdma_max(device, limit)?)?;
    }
    Ok(())
}

fn at<'a>(cgroup: &'a Cgroup, controller: &'static str) -> Result<&'a Path, CgroupError> {
    cgroup.path(controller).ok_or(CgroupError::NoController { controller })
}

fn set_memory(cgroup: &Cgroup, memory: &LinuxMemory) -> Result<(), CgroupError> {
    if *memory == LinuxMemory::default() {
        return Ok(());
    }
    let directory = at(cgroup, "memory")?;
    set_memory_and_swap(directory, memory)?;
    if let Some(reservation) = memory.reservation.filter(|&value| value != 0) {
        file::write(directory, "memory.soft_limit_in_bytes", &reservation.to_string())?;
    }
    if let Some(disable) = memory.disable_oom_killer {
        file::write(directory, "memory.oom_control", if disable { "1" } else { "0" })?;
    }
    match memory.swappiness {
        None | Some(u64::MAX) => Ok(()),
        Some(value @ 0..=100) => Ok(file::write(directory, "memory.swappiness", &value.to_string())?),
        Some(value) => Err(CgroupError::Value(format!(
            "invalid memory swappiness value: {value} (valid range is 0-100)"
        ))),
    }
}

const MEMORY_AND_SWAP: &str = "memory.memsw.limit_in_bytes";

/// The kernel keeps memory <= memory+swap at every step, so a raise begins with the one and a cut with the other.
fn set_memory_and_swap(directory: &Path, memory: &LinuxMemory) -> Result<(), CgroupError> {
    let limit = memory.limit.unwrap_or(0);
    let mut swap = memory.swap.unwrap_or(0);
    if limit == -1 && swap == 0 && directory.join(MEMORY_AND_SWAP).exists() {
        swap = -1;
    }
    let set_swap = || match swap {
        0 => Ok(()),
        value => file::write(directory, MEMORY_AND_SWAP, &value.to_string()).map_err(CgroupError::from),
    };
    if limit != 0 && swap != 0 {
        let present = file::read_number(directory, "memory.limit_in_bytes")?;
        if swap == -1 || present < swap as u64 {
            set_swap()?;
            return set_memory_limit(directory, limit);
        }
    }
    set_memory_limit(directory, limit)?;
    set_swap()
}

fn set_memory_limit(directory: &Path, limit: i64) -> Result<(), CgroupError> {
    if limit == 0 {
        return Ok(());
    }
    match file::write(directory, "memory.limit_in_bytes", &limit.to_string()) {
        Err(error) if error.is(file::EBUSY) => {
            let usage = file::read_number(directory, "memory.usage_in_bytes")?;
            let peak = file::read_number(directory, "memory.max_usage_in_bytes")?;
            Err(CgroupError::Value(format!(
                "unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})"
            )))
        }
        result => Ok(result?),
    }
}

fn set_cpu(cgroup: &Cgroup, cpu: &LinuxCpu) -> Result<(), CgroupError> {
    let placement_only = LinuxCpu { cpus: cpu.cpus.clone(), mems: cpu.mems.clone(), ..LinuxCpu::default() };
    if *cpu == placement_only {
        return Ok(());
    }
    let directory = at(cgroup, "cpu")?;
    set_realtime(directory, cpu)?;
    if let Some(shares) = cpu.shares.filter(|&shares| shares != 0) {
        file::write(directory, "cpu.shares", &shares.to_string())?;
        // The kernel clamps silently.
        let set = file::read_number(directory, "cpu.shares")?;
        if set != shares {
            let bound = if shares > set { "maximum" } else { "minimum" };
            return Err(CgroupError::Value(format!("the {bound} allowed cpu-shares is {set}")));
        }
    }
    set_bandwidth(directory, cpu)?;
    if let Some(idle) = cpu.idle {
        file::write(directory, "cpu.idle", &idle.to_string())?;
    }
    Ok(())
}

/// Period and runtime are checked against each other; whichever order the present values allow is right.
fn set_realtime(directory: &Path, cpu: &LinuxCpu) -> Result<(), CgroupError> {
    let period =
        cpu.realtime_period.filter(|&value| value != 0).map(|value| ("cpu.rt_period_us", value.to_string()));
    let runtime = cpu
        .realtime_runtime
        .filter(|&value| value != 0)
        .map(|value| ("cpu.rt_runtime_us", value.to_string()));
    write_in_either_order(directory, &[period], runtime)
}

fn set_bandwidth(directory: &Path, cpu: &LinuxCpu) -> Result<(), CgroupError> {
    let period = cpu.period.filter(|&value| value != 0).map(|value| ("cpu.cfs_period_us", value.to_string()));
    let has_burst = |_: &u64| directory.join("cpu.cfs_burst_us").exists();
    let burst = cpu.burst.filter(has_burst).map(|value| ("cpu.cfs_burst_us", value.to_string()));
    let quota = cpu.quota.filter(|&value| value != 0).map(|value| ("cpu.cfs_quota_us", value.to_string()));
    write_in_either_order(directory, &[period, burst], quota)
}

type Setting = Option<(&'static str, String)>;

/// Writes `first`, then `second`; what of `first` the kernel calls invalid is written again after `second`.
fn write_in_either_order(directory: &Path, first: &[Setting], second: Setting) -> Result<(), CgroupError> {
    let mut again = Vec::new();
    for (name, value) in first.iter().flatten() {
        match file::write(directory, name, value) {
            Err(error) if error.is(file::EINVAL) && second.is_some() => again.push((name, value)),
            result => result?,
        }
    }
    if let Some((name, value)) = second {
        file::write(directory, name, &value)?;
    }
    for (name, value) in again {
        file::write(directory, name, value)?;
    }
    Ok(())
}

fn set_cpuset(cgroup: &Cgroup, cpu: &LinuxCpu) -> Result<(), CgroupError> {
    for (name, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if !value.is_empty() {
            file::write(at(cgroup, "cpuset")?, name, value)?;
        }
    }
    Ok(())
}

fn set_block_io(directory: &Path, block_io: &LinuxBlockIo) -> Result<(), CgroupError> {
    // With the BFQ scheduler, the only one that has weights today, the files carry its name.
    let infix = if directory.join("blkio.weight").exists() { "" } else { "bfq." };
    if let Some(weight) = block_io.weight.filter(|&weight| weight != 0) {
        file::write(directory, &format!("blkio.{infix}weight"), &weight.to_string())?;
    }
    if let Some(weight) = block_io.leaf_weight.filter(|&weight| weight != 0) {
        file::write(directory, "blkio.leaf_weight", &weight.to_string())?;
    }
    for device in &block_io.weight_device {
        let line = |weight: u16| format!("{}:{} {weight}", device.major, device.minor);
        if let Some(weight) = device.weight.filter(|&weight| weight != 0) {
            file::write(directory, &format!("blkio.{infix}weight_device"), &line(weight))?;
        }
        if let Some(weight) = device.leaf_weight.filter(|&weight| weight != 0) {
            file::write(directory, "blkio.leaf_weight_device", &line(weight))?;
        }
    }
    let throttles: [(&str, &[LinuxThrottleDevice]); 4] = [
        ("blkio.throttle.read_bps_device", &block_io.throttle_read_bps_device),
        ("blkio.throttle.write_bps_device", &block_io.throttle_write_bps_device),
        ("blkio.throttle.read_iops_device", &block_io.throttle_read_iops_device),
        ("blkio.throttle.write_iops_device", &block_io.throttle_write_iops_device),
    ];
    for (name, devices) in throttles {
        for device in devices {
            file::write(directory, name, &format!("{}:{} {}", device.major, device.minor, device.rate))?;
        }
    }
    Ok(())
}

fn set_network(cgroup: &Cgroup, network: &LinuxNetwork) -> Result<(), CgroupError> {
    if let Some(class) = network.class_id.filter(|&class| class != 0) {
        file::write(at(cgroup, "net_cls")?, "net_cls.classid", &class.to_string())?;
    }
    for priority in &network.priorities {
        let line = format!("{} {}", priority.name, priority.priority);
        file::write(at(cgroup, "net_prio")?, "net_prio.ifpriomap", &line)?;
    }
    Ok(())
}
