//! What is Linux's own: limits, devices, namespaces, sysctls, seccomp, scheduling.

use ::spec::Error;
use ::spec::runtime::{
    IntelRdt, IoPriority, IoPriorityClass, LinuxDevice, LinuxDeviceCgroup, LinuxNetDevice, LinuxPids,
    LinuxSeccomp, MemoryPolicy, Namespace, Scheduler, SeccompArg, SeccompSyscall, Spec,
};
use api::nri::pkg::api::v1alpha1 as pb;
use model::Result;
use serde::de::DeserializeOwned;

use super::{absolute, name, settings, text};
use crate::config::Runtime;
use crate::nri::{mark, resources};
use crate::spec::{Host, merge_resources};

/// Puts `wanted` into `spec`.
pub(super) fn apply(
    spec: &mut Spec,
    wanted: &pb::LinuxContainerAdjustment,
    host: &Host,
    runtime: &Runtime,
) -> Result<()> {
    devices(spec, &wanted.devices)?;
    if let Some(limits) = &wanted.resources {
        limit(spec, limits, host, runtime)?;
    }
    if !wanted.cgroups_path.is_empty() {
        text("a cgroup's path", &wanted.cgroups_path)?;
        spec.linux_mut().cgroups_path.clone_from(&wanted.cgroups_path);
    }
    if let Some(score) = &wanted.oom_score_adj {
        let score = crate::spec::resources::oom_score_adj(score.value, host, runtime)?;
        spec.process_mut().oom_score_adj = Some(score);
    }
    if let Some(priority) = &wanted.io_priority {
        spec.process_mut().io_priority = io_priority(priority)?;
    }
    if let Some(scheduler) = &wanted.scheduler {
        spec.process_mut().scheduler = self::scheduler(scheduler)?;
    }
    if let Some(policy) = &wanted.seccomp_policy {
        spec.linux_mut().seccomp = Some(seccomp(policy)?);
    }
    namespaces(spec, &wanted.namespaces)?;
    settings("a sysctl", &mut spec.linux_mut().sysctl, &wanted.sysctl)?;
    let devices = &mut spec.linux_mut().net_devices;
    devices.retain(|key, _| !wanted.net_devices.contains_key(&mark::removal(key)));
    for (key, device) in wanted.net_devices.iter().filter(|(key, _)| !mark::is_removal(key)) {
        name("a network device", key)?;
        text("a network device", &device.name)?;
        devices.insert(key.clone(), LinuxNetDevice { name: device.name.clone() });
    }
    if let Some(policy) = &wanted.memory_policy {
        spec.linux_mut().memory_policy = Some(memory_policy(policy)?);
    }
    if let Some(wanted) = &wanted.rdt {
        rdt(spec, wanted)?;
    }
    Ok(())
}

fn limit(spec: &mut Spec, wanted: &pb::LinuxResources, host: &Host, runtime: &Runtime) -> Result<()> {
    let cpu = wanted.cpu.clone().unwrap_or_default();
    text("a list of CPUs", &cpu.cpus)?;
    text("a list of memory nodes", &cpu.mems)?;
    for (file, value) in &wanted.unified {
        name("a cgroup's file", file)?;
        text("a cgroup's file", value)?;
        if file.contains('/') {
            return Err(Error::invalid(format!("NRI: {file:?} cannot be the name of a cgroup's file")));
        }
    }
    merge_resources(spec, &resources::to_cri(wanted), host, runtime)?;
    let into = spec.linux_mut().resources.get_or_insert_default();
    let time = into.cpu.get_or_insert_default();
    time.realtime_runtime = cpu.realtime_runtime.map(|number| number.value).or(time.realtime_runtime);
    time.realtime_period = cpu.realtime_period.map(|number| number.value).or(time.realtime_period);
    if let Some(reservation) = wanted.memory.as_ref().and_then(|memory| memory.reservation) {
        into.memory.get_or_insert_default().reservation = Some(reservation.value);
    }
    if let Some(pids) = wanted.pids {
        into.pids = Some(LinuxPids { limit: Some(pids.limit) });
    }
    for rule in &wanted.devices {
        into.devices.push(LinuxDeviceCgroup {
            allow: rule.allow,
            kind: rule.r#type.clone(),
            major: rule.major.map(|number| number.value),
            minor: rule.minor.map(|number| number.value),
            access: rule.access.clone(),
        });
    }
    if let Some(class) = wanted.blockio_class.as_ref().filter(|class| !class.value.is_empty())
        && !runtime.ignore_blockio_not_enabled_errors
    {
        return Err(Error::unimplemented(format_args!("NRI: blockio class {:?}", class.value)));
    }
    if let Some(class) = &wanted.rdt_class {
        text("an RDT class", &class.value)?;
        let of = |class: &str| IntelRdt { clos_id: class.to_owned(), ..IntelRdt::default() };
        spec.linux_mut().intel_rdt = (!class.value.is_empty()).then(|| of(&class.value));
    }
    Ok(())
}

fn devices(spec: &mut Spec, wanted: &[pb::LinuxDevice]) -> Result<()> {
    let linux = spec.linux_mut();
    linux.devices.retain(|device| !wanted.iter().any(|wanted| mark::split(&wanted.path).0 == device.path));
    for device in wanted.iter().filter(|device| !mark::is_removal(&device.path)) {
        absolute("a device", &device.path)?;
        if !matches!(device.r#type.as_str(), "b" | "c" | "u" | "p") {
            return Err(Error::invalid(format!(
                "NRI: device {:?} has type {:?}",
                device.path, device.r#type
            )));
        }
        linux.devices.push(LinuxDevice {
            path: device.path.clone(),
            kind: device.r#type.clone(),
            major: device.major,
            minor: device.minor,
            file_mode: device.file_mode.map(|mode| mode.value),
            uid: device.uid.map(|uid| uid.value),
            gid: device.gid.map(|gid| gid.value),
        });
        if device.r#type != "p" {
            linux.resources.get_or_insert_default().devices.push(LinuxDeviceCgroup {
                allow: true,
                kind: device.r#type.clone(),
                major: Some(device.major),
                minor: Some(device.minor),
                access: if device.r#type == "b" { "rwm" } else { "rw" }.into(),
            });
        }
    }
    Ok(())
}

fn namespaces(spec: &mut Spec, wanted: &[pb::LinuxNamespace]) -> Result<()> {
    let namespaces = &mut spec.linux_mut().namespaces;
    for namespace in wanted {
        let (kind, removed) = mark::split(&namespace.r#type);
        let kind = word("namespace", kind)?;
        namespaces.retain(|known| known.kind != kind);
        if !removed {
            text("a namespace's path", &namespace.path)?;
            namespaces.push(Namespace { kind, path: namespace.path.clone() });
        }
    }
    Ok(())
}

/// A word of the runtime specification.
fn word<T: DeserializeOwned>(what: &str, word: &str) -> Result<T> {
    serde_json::from_value(word.into())
        .map_err(|_| Error::invalid(format!("NRI: there is no {what} called {word:?}")))
}

fn seccomp(wanted: &pb::LinuxSeccomp) -> Result<LinuxSeccomp> {
    let action = |action: &str| word("seccomp action", action);
    let mut syscalls = Vec::with_capacity(wanted.syscalls.len());
    for rule in &wanted.syscalls {
        rule.names.iter().try_for_each(|call| name("a system call", call))?;
        let args = rule.args.iter().map(|arg| {
            let op = word("seccomp operator", &arg.op)?;
            Ok(SeccompArg { index: arg.index, value: arg.value, value_two: arg.value_two, op })
        });
        syscalls.push(SeccompSyscall {
            names: rule.names.clone(),
            action: action(&rule.action)?,
            errno_ret: rule.errno_ret.map(|errno| errno.value),
            args: args.collect::<Result<_>>()?,
        });
    }
    let architectures = wanted.architectures.iter().map(|arch| word("seccomp architecture", arch));
    Ok(LinuxSeccomp {
        default_action: action(&wanted.default_action)?,
        default_errno_ret: wanted.default_errno.map(|errno| errno.value),
        architectures: architectures.collect::<Result<_>>()?,
        flags: Some(wanted.flags.clone()).filter(|flags| !flags.is_empty()),
        listener_path: wanted.listener_path.clone(),
        listener_metadata: wanted.listener_metadata.clone(),
        syscalls,
    })
}

fn number<T: TryFrom<i32>>(what: &str, number: i32) -> Result<T> {
    T::try_from(number).map_err(|_| Error::invalid(format!("NRI: there is no {what} {number}")))
}

fn io_priority(wanted: &pb::LinuxIoPriority) -> Result<Option<IoPriority>> {
    let class = match number::<pb::IoPrioClass>("class of I/O priority", wanted.class)? {
        pb::IoPrioClass::IoprioClassNone => return Ok(None),
        pb::IoPrioClass::IoprioClassRt => IoPriorityClass::RealTime,
        pb::IoPrioClass::IoprioClassBe => IoPriorityClass::BestEffort,
        pb::IoPrioClass::IoprioClassIdle => IoPriorityClass::Idle,
    };
    Ok(Some(IoPriority { class, priority: wanted.priority }))
}

fn scheduler(wanted: &pb::LinuxScheduler) -> Result<Option<Scheduler>> {
    let policy: pb::LinuxSchedulerPolicy = number("scheduling policy", wanted.policy)?;
    if policy == pb::LinuxSchedulerPolicy::SchedNone {
        return Ok(None);
    }
    let flags = wanted.flags.iter().map(|&flag| {
        let flag: pb::LinuxSchedulerFlag = number("scheduling flag", flag)?;
        Ok(flag.as_str_name().to_owned())
    });
    Ok(Some(Scheduler {
        policy: policy.as_str_name().into(),
        nice: wanted.nice,
        priority: wanted.priority,
        flags: flags.collect::<Result<_>>()?,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
    }))
}

fn memory_policy(wanted: &pb::LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    let mode: pb::MpolMode = number("memory policy", wanted.mode)?;
    let flags = wanted.flags.iter().map(|&flag| {
        let flag: pb::MpolFlag = number("flag of memory policy", flag)?;
        Ok(flag.as_str_name().to_owned())
    });
    text("a list of memory nodes", &wanted.nodes)?;
    Ok(MemoryPolicy {
        mode: mode.as_str_name().into(),
        nodes: wanted.nodes.clone(),
        flags: flags.collect::<Result<_>>()?,
    })
}

fn rdt(spec: &mut Spec, wanted: &pb::LinuxRdt) -> Result<()> {
    if wanted.remove {
        spec.linux_mut().intel_rdt = None;
    }
    if let Some(class) = &wanted.clos_id {
        text("an RDT class", &class.value)?;
        spec.linux_mut().intel_rdt.get_or_insert_default().clos_id.clone_from(&class.value);
    }
    if let Some(schemata) = &wanted.schemata {
        schemata.value.iter().try_for_each(|line| text("an RDT schema", line))?;
        spec.linux_mut().intel_rdt.get_or_insert_default().schemata.clone_from(&schemata.value);
    }
    if let Some(enable) = wanted.enable_monitoring {
        spec.linux_mut().intel_rdt.get_or_insert_default().enable_monitoring = enable.value;
    }
    Ok(())
}
