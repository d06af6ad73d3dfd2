//! Limits in the plugins' words: who claims which, one put over another, to and from the kubelet's words.

use api::nri::pkg::api::v1alpha1::{self as pb, Field};
use api::runtime::v1;
use model::Result;

use super::owners::Owners;

/// `plugin` sets whatever `wanted` sets.
///
/// # Errors
/// Another plugin has set some of it.
pub fn claim(owners: &mut Owners, id: &str, plugin: &str, wanted: &pb::LinuxResources) -> Result<()> {
    let memory = wanted.memory.unwrap_or_default();
    let cpu = wanted.cpu.clone().unwrap_or_default();
    let fields = [
        (memory.limit.is_some(), Field::MemLimit),
        (memory.reservation.is_some(), Field::MemReservation),
        (memory.swap.is_some(), Field::MemSwapLimit),
        (memory.kernel.is_some(), Field::MemKernelLimit),
        (memory.kernel_tcp.is_some(), Field::MemTcpLimit),
        (memory.swappiness.is_some(), Field::MemSwappiness),
        (memory.disable_oom_killer.is_some(), Field::MemDisableOomKiller),
        (memory.use_hierarchy.is_some(), Field::MemUseHierarchy),
        (cpu.shares.is_some(), Field::CpuShares),
        (cpu.quota.is_some(), Field::CpuQuota),
        (cpu.period.is_some(), Field::CpuPeriod),
        (cpu.realtime_runtime.is_some(), Field::CpuRealtimeRuntime),
        (cpu.realtime_period.is_some(), Field::CpuRealtimePeriod),
        (!cpu.cpus.is_empty(), Field::CpuSetCpUs),
        (!cpu.mems.is_empty(), Field::CpuSetMems),
        (wanted.blockio_class.is_some(), Field::BlockioClass),
        (wanted.rdt_class.is_some(), Field::RdtClass),
        (wanted.pids.is_some(), Field::PidsLimit),
    ];
    for (_, field) in fields.into_iter().filter(|(set, _)| *set) {
        owners.claim(id, field, plugin)?;
    }
    for limit in &wanted.hugepage_limits {
        owners.claim_key(id, Field::HugepageLimits, &limit.page_size, plugin)?;
    }
    wanted.unified.keys().try_for_each(|file| owners.claim_key(id, Field::CgroupsUnified, file, plugin))
}

/// Puts what `over` sets over what is there.
pub fn overlay(into: &mut pb::LinuxResources, over: &pb::LinuxResources) {
    macro_rules! take {
        ($into:expr, $over:expr; $($field:ident)*) => {
            $(if $over.$field.is_some() { $into.$field.clone_from(&$over.$field); })*
        };
    }
    if let Some(over) = &over.memory {
        let into = into.memory.get_or_insert_default();
        take!(into, over; limit reservation swap kernel kernel_tcp swappiness disable_oom_killer use_hierarchy);
    }
    if let Some(over) = &over.cpu {
        let into = into.cpu.get_or_insert_default();
        take!(into, over; shares quota period realtime_runtime realtime_period);
        if !over.cpus.is_empty() {
            into.cpus.clone_from(&over.cpus);
        }
        if !over.mems.is_empty() {
            into.mems.clone_from(&over.mems);
        }
    }
    take!(into, over; blockio_class rdt_class pids);
    for limit in &over.hugepage_limits {
        into.hugepage_limits.retain(|known| known.page_size != limit.page_size);
        into.hugepage_limits.push(limit.clone());
    }
    into.devices.extend(over.devices.iter().cloned());
    into.unified.extend(over.unified.clone());
}

/// The kubelet's limits in the plugins' words.
pub fn from_cri(wanted: &v1::LinuxContainerResources) -> pb::LinuxResources {
    let unsigned = |number: i64| Some(pb::OptionalUInt64 { value: u64::try_from(number).unwrap_or(0) });
    pb::LinuxResources {
        cpu: Some(pb::LinuxCpu {
            shares: unsigned(wanted.cpu_shares),
            quota: Some(pb::OptionalInt64 { value: wanted.cpu_quota }),
            period: unsigned(wanted.cpu_period),
            cpus: wanted.cpuset_cpus.clone(),
            mems: wanted.cpuset_mems.clone(),
            ..pb::LinuxCpu::default()
        }),
        memory: Some(pb::LinuxMemory {
            limit: Some(pb::OptionalInt64 { value: wanted.memory_limit_in_bytes }),
            ..pb::LinuxMemory::default()
        }),
        hugepage_limits: wanted
            .hugepage_limits
            .iter()
            .map(|limit| pb::HugepageLimit { page_size: limit.page_size.clone(), limit: limit.limit })
            .collect(),
        unified: wanted.unified.clone(),
        ..pb::LinuxResources::default()
    }
}

/// Limits in the kubelet's words, as far as it has any for them.
pub fn to_cri(limits: &pb::LinuxResources) -> v1::LinuxContainerResources {
    let cpu = limits.cpu.clone().unwrap_or_default();
    let signed = |number: Option<pb::OptionalUInt64>| {
        number.map_or(0, |number| i64::try_from(number.value).unwrap_or(i64::MAX))
    };
    v1::LinuxContainerResources {
        cpu_shares: signed(cpu.shares),
        cpu_quota: cpu.quota.map_or(0, |quota| quota.value),
        cpu_period: signed(cpu.period),
        cpuset_cpus: cpu.cpus,
        cpuset_mems: cpu.mems,
        memory_limit_in_bytes: limits.memory.as_ref().and_then(|memory| memory.limit).map_or(0, |l| l.value),
        memory_swap_limit_in_bytes: limits
            .memory
            .as_ref()
            .and_then(|memory| memory.swap)
            .map_or(0, |swap| swap.value),
        hugepage_limits: limits
            .hugepage_limits
            .iter()
            .map(|limit| v1::HugepageLimit { page_size: limit.page_size.clone(), limit: limit.limit })
            .collect(),
        unified: limits.unified.clone(),
        ..v1::LinuxContainerResources::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelets_limits_survive_the_round_trip() {
        let wanted = v1::LinuxContainerResources {
            cpu_shares: 512,
            cpu_quota: -1,
            cpu_period: 100_000,
            cpuset_cpus: "0-1".into(),
            memory_limit_in_bytes: 1 << 20,
            unified: [("memory.high".to_owned(), "5".to_owned())].into(),
            hugepage_limits: vec![v1::HugepageLimit { page_size: "2MB".into(), limit: 4 }],
            ..v1::LinuxContainerResources::default()
        };
        assert_eq!(to_cri(&from_cri(&wanted)), wanted);
    }

    #[test]
    fn what_is_not_set_stays() {
        let mut into = from_cri(&v1::LinuxContainerResources {
            cpu_shares: 512,
            memory_limit_in_bytes: 7,
            ..v1::LinuxContainerResources::default()
        });
        let memory =
            pb::LinuxMemory { limit: Some(pb::OptionalInt64 { value: 9 }), ..pb::LinuxMemory::default() };
        overlay(&mut into, &pb::LinuxResources { memory: Some(memory), ..pb::LinuxResources::default() });
        let seen = to_cri(&into);
        assert_eq!((seen.cpu_shares, seen.memory_limit_in_bytes), (512, 9));
    }
}
