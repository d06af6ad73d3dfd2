//! Limits: what the kubelet says of CPU, memory, huge pages and cgroup files, put into a spec.

use ::spec::Error;
use ::spec::runtime::{LinuxHugepageLimit, Spec};
use api::runtime::v1;
use model::Result;

use super::Host;
use crate::config::Runtime;

/// Puts `wanted` over the limits of `spec`: zero and empty leave what is there.
///
/// # Errors
/// A number is negative where none can be; huge pages are limited where the controller is missing and the
/// configuration minds.
pub fn merge_resources(
    spec: &mut Spec,
    wanted: &v1::LinuxContainerResources,
    host: &Host,
    runtime: &Runtime,
) -> Result<()> {
    let resources = spec.linux_mut().resources.get_or_insert_default();
    let cpu = resources.cpu.get_or_insert_default();
    if wanted.cpu_period != 0 {
        cpu.period = Some(positive(wanted.cpu_period, "cpu_period")?);
    }
    if wanted.cpu_quota != 0 {
        cpu.quota = Some(wanted.cpu_quota);
    }
    if wanted.cpu_shares != 0 {
        cpu.shares = Some(positive(wanted.cpu_shares, "cpu_shares")?);
    }
    if !wanted.cpuset_cpus.is_empty() {
        cpu.cpus.clone_from(&wanted.cpuset_cpus);
    }
    if !wanted.cpuset_mems.is_empty() {
        cpu.mems.clone_from(&wanted.cpuset_mems);
    }
    let memory = resources.memory.get_or_insert_default();
    if wanted.memory_limit_in_bytes != 0 {
        memory.limit = Some(wanted.memory_limit_in_bytes);
    }
    if host.swap_controller {
        // Memory and swap together: the same number keeps a container that says nothing of swap from using any.
        match (wanted.memory_swap_limit_in_bytes, wanted.memory_limit_in_bytes) {
            (0, 0) => {}
            (0, limit) => memory.swap = Some(limit),
            (swap, _) => memory.swap = Some(swap),
        }
    }
    let unified = wanted.unified.iter().map(|(file, value)| (file.clone(), value.clone()));
    resources.unified.extend(unified);
    if !wanted.hugepage_limits.is_empty() && !runtime.disable_hugetlb_controller {
        if host.hugetlb_controller {
            let limits = wanted.hugepage_limits.iter();
            for limit in limits {
                let known = resources.hugepage_limits.iter_mut().find(|one| one.page_size == limit.page_size);
                match known {
                    Some(known) => known.limit = limit.limit,
                    None => resources
                        .hugepage_limits
                        .push(LinuxHugepageLimit { page_size: limit.page_size.clone(), limit: limit.limit }),
                }
            }
        } else if !runtime.tolerate_missing_hugetlb_controller {
            return Err(Error::failed_precondition(
                "huge pages limits are specified but hugetlb cgroup controller is missing. Please set \
                 tolerate_missing_hugetlb_controller to `true` to ignore this error",
            ));
        }
    }
    Ok(())
}

/// The limits of `spec` in the kubelet's words.
pub fn told(spec: &Spec) -> v1::LinuxContainerResources {
    let oom_score_adj = spec.process.as_ref().and_then(|process| process.oom_score_adj).map_or(0, i64::from);
    let Some(resources) = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref()) else {
        return v1::LinuxContainerResources { oom_score_adj, ..v1::LinuxContainerResources::default() };
    };
    let cpu = resources.cpu.clone().unwrap_or_default();
    let memory = resources.memory.clone().unwrap_or_default();
    let number = |number: Option<u64>| number.and_then(|number| i64::try_from(number).ok()).unwrap_or(0);
    let limits = resources.hugepage_limits.iter();
    v1::LinuxContainerResources {
        cpu_period: number(cpu.period),
        cpu_quota: cpu.quota.unwrap_or(0),
        cpu_shares: number(cpu.shares),
        memory_limit_in_bytes: memory.limit.unwrap_or(0),
        oom_score_adj,
        cpuset_cpus: cpu.cpus,
        cpuset_mems: cpu.mems,
        hugepage_limits: limits
            .map(|one| v1::HugepageLimit { page_size: one.page_size.clone(), limit: one.limit })
            .collect(),
        unified: resources.unified.clone().into_iter().collect(),
        memory_swap_limit_in_bytes: memory.swap.unwrap_or(0),
    }
}

/// The `oom_score_adj` of a process that is to have `wanted`: where the configuration restricts it, never below the
/// daemon's own.
///
/// # Errors
/// The kernel knows no such value.
pub fn oom_score_adj(wanted: i64, host: &Host, runtime: &Runtime) -> Result<i32> {
    let wanted = i32::try_from(wanted).ok().filter(|wanted| (-1000..=1000).contains(wanted));
    let wanted = wanted.ok_or_else(|| Error::invalid("oom_score_adj must be between -1000 and 1000"))?;
    Ok(if runtime.restrict_oom_score_adj { wanted.max(host.oom_score_adj) } else { wanted })
}

fn positive(number: i64, field: &str) -> Result<u64> {
    u64::try_from(number).map_err(|_| Error::invalid(format_args!("{field} must not be negative: {number}")))
}

#[cfg(test)]
#[path = "resources_tests.rs"]
mod tests;
