//! Making and limiting the directory of cgroup v2.

use std::path::{Path, PathBuf};

use spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxRdma, LinuxResources, LinuxThrottleDevice,
};

use super::{Cgroup, CgroupError, Layout, UNIFIED, convert, file, v1};

/// Makes the directory, with every controller of the root passed down to it, and notes it in `made` if it is new.
pub(super) fn make(cgroup: &Cgroup, layout: &Layout, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    let is_new = make_path(cgroup, layout)?;
    made.extend(cgroup.path(UNIFIED).filter(|_| is_new).map(Path::to_owned));
    if is_new { Ok(()) } else { v1::check_unused(cgroup) }
}

/// Makes what is missing of the directory and its parents, and passes controllers down; whether it is new.
pub(super) fn make_path(cgroup: &Cgroup, layout: &Layout) -> Result<bool, CgroupError> {
    let mount = layout.mounts.iter().find(|(name, _)| name == UNIFIED).map(|(_, path)| path);
    let (Some(mount), Some(leaf)) = (mount, cgroup.path(UNIFIED)) else {
        return Err(CgroupError::NoHierarchy);
    };
    let below = leaf.strip_prefix(mount).map_err(|_| CgroupError::Path(leaf.display().to_string()))?;
    let mut directory = mount.clone();
    let mut is_new = false;
    for component in below.components() {
        pass_controllers(&directory)?;
        directory.push(component);
        is_new = file::make(&directory)?;
    }
    match file::read_optional(leaf, "cgroup.type")?.as_deref().map(str::trim) {
        None | Some("domain") => Ok(is_new),
        Some(other) => {
            if is_new {
                let _ = std::fs::remove_dir(leaf);
            }
            let leaf = leaf.display();
            Err(CgroupError::Value(format!("cannot enter cgroup {leaf}: it is in {other:?} mode")))
        }
    }
}

/// Gives children of `directory` every controller that it has. One that cannot be passed on (a real-time task stands
/// in the way of cpu, say) is missed only by a limit that needs it.
fn pass_controllers(directory: &Path) -> Result<(), CgroupError> {
    let has = file::read_optional(directory, "cgroup.controllers")?.unwrap_or_default();
    let passes = file::read_optional(directory, "cgroup.subtree_control")?.unwrap_or_default();
    let missing: Vec<String> = has
        .split_whitespace()
        .filter(|controller| !passes.split_whitespace().any(|passed| passed == *controller))
        .map(|controller| format!("+{controller}"))
        .collect();
    if !missing.is_empty() && file::write(directory, "cgroup.subtree_control", &missing.join(" ")).is_err() {
        for controller in missing {
            let _ = file::write(directory, "cgroup.subtree_control", &controller);
        }
    }
    Ok(())
}

/// Refuses what a caller asked to be refused: v2 takes any limit and then kills.
pub(super) fn check_update(directory: &Path, resources: &LinuxResources) -> Result<(), CgroupError> {
    match &resources.memory {
        Some(memory) if memory.check_before_update == Some(true) => {
            check_usage(directory, memory.limit.unwrap_or(0))
        }
        _ => Ok(()),
    }
}

/// Sets what `resources` names.
pub(super) fn apply(directory: &Path, resources: &LinuxResources) -> Result<(), CgroupError> {
    check_update(directory, resources)?;
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        file::write(directory, "pids.max", &pids_max(limit))?;
    }
    if let Some(memory) = &resources.memory {
        set_memory(directory, memory)?;
    }
    if let Some(block_io) = &resources.block_io {
        set_io(directory, block_io)?;
    }
    if let Some(cpu) = &resources.cpu {
        set_cpu(directory, cpu)?;
    }
    for huge in &resources.hugepage_limits {
        set_hugetlb(directory, huge, "max")?;
    }
    for (device, limit) in &resources.rdma {
        file::write(directory, "rdma.max", &rdma_max(device, limit)?)?;
    }
    set_unified(directory, resources)
}

/// The text of `pids.max`; 0, which systemd cannot express, is 1 as in runc.
pub(super) fn pids_max(limit: i64) -> String {
    match limit {
        0 => "1".into(),
        limit if limit < 0 => "max".into(),
        limit => limit.to_string(),
    }
}

fn set_memory(directory: &Path, memory: &LinuxMemory) -> Result<(), CgroupError> {
    let limit = memory.limit.unwrap_or(0);
    let value_error = |text: &str| CgroupError::Value(text.to_owned());
    if let Some(swap) = convert::swap(memory.swap.unwrap_or(0), limit).map_err(value_error)? {
        match file::write(directory, "memory.swap.max", &or_max(swap)) {
            // Without swap there is nothing to limit.
            Err(error) if error.is(file::ENOENT) && matches!(swap, 0 | -1) => {}
            result => result?,
        }
    }
    if limit != 0 {
        file::write(directory, "memory.max", &or_max(limit))?;
    }
    if let Some(reservation) = memory.reservation.filter(|&value| value != 0) {
        file::write(directory, "memory.low", &or_max(reservation))?;
    }
    Ok(())
}

fn check_usage(directory: &Path, limit: i64) -> Result<(), CgroupError> {
    let usage = file::read_number(directory, "memory.current")?;
    match u64::try_from(limit) {
        Ok(limit) if limit != 0 && limit < usage => Err(CgroupError::Value(format!(
            "rejecting memory limit {limit} below current usage {usage} (checkBeforeUpdate is set)"
        ))),
        _ => Ok(()),
    }
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

fn set_cpu(directory: &Path, cpu: &LinuxCpu) -> Result<(), CgroupError> {
    if let Some(idle) = cpu.idle {
        file::write(directory, "cpu.idle", &idle.to_string())?;
    }
    if let Some(shares) = cpu.shares.filter(|&shares| shares != 0) {
        file::write(directory, "cpu.weight", &convert::cpu_weight(shares).to_string())?;
    }
    let quota = cpu.quota.filter(|&quota| quota != 0);
    let period = cpu.period.filter(|&period| period != 0);
    let mut burst = cpu.burst.map(|burst| burst.to_string());
    if let Some(value) = &burst {
        // A burst above the present quota is invalid until the new quota stands.
        match file::write(directory, "cpu.max.burst", value) {
            Err(error) if error.is(file::EINVAL) && quota.is_some() => {}
            result => {
                result?;
                burst = None;
            }
        }
    }
    if quota.is_some() || period.is_some() {
        // One file holds both: what is not given stays as it is.
        let present = file::read_optional(directory, "cpu.max")?.unwrap_or_default();
        let (present_quota, present_period) = present.trim().split_once(' ').unwrap_or(("max", "100000"));
        let quota = quota.map_or_else(|| present_quota.to_owned(), or_max);
        let period = period.map_or_else(|| present_period.to_owned(), |period| period.to_string());
        file::write(directory, "cpu.max", &format!("{quota} {period}"))?;
    }
    if let Some(value) = burst {
        file::write(directory, "cpu.max.burst", &value)?;
    }
    for (name, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if !value.is_empty() {
            file::write(directory, name, value)?;
        }
    }
    Ok(())
}

fn set_io(directory: &Path, block_io: &LinuxBlockIo) -> Result<(), CgroupError> {
    let bfq = directory.join("io.bfq.weight").exists();
    if let Some(weight) = block_io.weight.filter(|&weight| weight != 0) {
        match bfq {
            true => file::write(directory, "io.bfq.weight", &weight.to_string())?,
            false => file::write(directory, "io.weight", &convert::io_weight(weight).to_string())?,
        }
    }
    for device in block_io.weight_device.iter().filter(|_| bfq) {
        if let Some(weight) = device.weight.filter(|&weight| weight != 0) {
            file::write(
                directory,
                "io.bfq.weight",
                &format!("{}:{} {weight}\n", device.major, device.minor),
            )?;
        }
    }
    let throttles: [(&str, &[LinuxThrottleDevice]); 4] = [
        ("rbps", &block_io.throttle_read_bps_device),
        ("wbps", &block_io.throttle_write_bps_device),
        ("riops", &block_io.throttle_read_iops_device),
        ("wiops", &block_io.throttle_write_iops_device),
    ];
    for (key, devices) in throttles {
        for device in devices {
            file::write(
                directory,
                "io.max",
                &format!("{}:{} {key}={}", device.major, device.minor, device.rate),
            )?;
        }
    }
    Ok(())
}

/// Limits huge pages, and their reservations where the kernel can.
pub(super) fn set_hugetlb(
    directory: &Path,
    huge: &LinuxHugepageLimit,
    suffix: &str,
) -> Result<(), CgroupError> {
    let size = &huge.page_size;
    if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(CgroupError::Value(format!("invalid huge page size {size:?}")));
    }
    let limit = huge.limit.to_string();
    file::write(directory, &format!("hugetlb.{size}.{suffix}"), &limit)?;
    match file::write(directory, &format!("hugetlb.{size}.rsvd.{suffix}"), &limit) {
        Err(error) if !error.is(file::ENOENT) => Err(error.into()),
        _ => Ok(()),
    }
}

/// The line of `rdma.max` for one device.
pub(super) fn rdma_max(device: &str, limit: &LinuxRdma) -> Result<String, CgroupError> {
    if device.is_empty() || device.contains(char::is_whitespace) {
        return Err(CgroupError::Value(format!("invalid RDMA device {device:?}")));
    }
    let or_max = |value: Option<u32>| value.map_or_else(|| "max".to_owned(), |value| value.to_string());
    Ok(format!("{device} hca_handle={} hca_object={}", or_max(limit.hca_handles), or_max(limit.hca_objects)))
}

fn set_unified(directory: &Path, resources: &LinuxResources) -> Result<(), CgroupError> {
    for (name, value) in &resources.unified {
        if name.contains('/') || !name.contains('.') {
            return Err(CgroupError::Value(format!(
                "unified resource {name:?} must be a file name (no slashes)"
            )));
        }
        // Line by line: files such as io.max take one device a write.
        for line in value.lines() {
            match file::write(directory, name, line) {
                Err(error) if error.is(file::ENOENT) => {
                    let text = format!("unified resource {name:?} can't be set: controller not available");
                    return Err(CgroupError::Value(text));
                }
                result => result?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{FreezerState, Mode, Stats, layout};

    /// The v2 tree of a hybrid host has no controllers, but all that cgroups themselves can do.
    #[test]
    fn a_v2_cgroup_is_made_frozen_killed_and_removed() {
        let Some(layout) = v2_layout() else {
            println!("SKIP a_v2_cgroup_is_made_frozen_killed_and_removed: no v2 hierarchy, or not root");
            return;
        };
        let parent = layout.mounts[0].1.join(format!("berth-v2-{}", std::process::id()));
        let leaf = parent.join("a/b");
        let cgroup = Cgroup::open([(UNIFIED.to_owned(), leaf.clone())].into());
        let mut made = Vec::new();
        make(&cgroup, &layout, &mut made).unwrap();
        assert_eq!(made, std::slice::from_ref(&leaf));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        cgroup.add(child.id() as i32).unwrap();
        cgroup.freeze().unwrap();
        assert_eq!(cgroup.freezer_state().unwrap(), FreezerState::Frozen);
        assert_eq!(cgroup.processes().unwrap(), [child.id() as i32]);
        let again = make(&cgroup, &layout, &mut made);
        assert!(matches!(again, Err(CgroupError::NotEmpty(1))), "{again:?}");
        assert!(matches!(cgroup.stats().unwrap(), Stats::V2(_)));
        let beside = cgroup.joiner_beside(child.id() as i32).unwrap();
        assert!(beside.clone_into().is_some());
        cgroup.kill(9).unwrap();
        child.wait().unwrap();
        cgroup.destroy().unwrap();
        std::fs::remove_dir(parent.join("a")).unwrap();
        std::fs::remove_dir(parent).unwrap();
    }

    #[test]
    fn a_missing_controller_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let unified =
            |name: &str| LinuxResources { unified: [(name.into(), "1".into())].into(), ..Default::default() };
        let error = apply(dir.path(), &unified("memory.high")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unified resource \"memory.high\" can't be set: controller not available"
        );
        assert!(apply(dir.path(), &unified("../x.y")).is_err());
    }

    fn v2_layout() -> Option<Layout> {
        let layout = layout().ok()?;
        let mounts: Vec<_> = layout.mounts.iter().filter(|(name, _)| name == UNIFIED).cloned().collect();
        let probe = mounts.first()?.1.join(format!("berth-v2-probe-{}", std::process::id()));
        std::fs::create_dir(&probe).ok()?;
        std::fs::remove_dir(&probe).ok()?;
        Some(Layout { mode: Mode::V2, mounts })
    }

    #[test]
    fn limits_are_words_where_the_kernel_wants_words() {
        assert_eq!((pids_max(-1), pids_max(0), pids_max(7)), ("max".into(), "1".into(), "7".into()));
        let limit = LinuxRdma { hca_handles: Some(3), hca_objects: None };
        assert_eq!(rdma_max("mlx5_1", &limit).unwrap(), "mlx5_1 hca_handle=3 hca_object=max");
        assert!(rdma_max("a b", &limit).is_err());
    }
}
