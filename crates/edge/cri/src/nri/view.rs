//! Pods and containers as plugins see them.
//!
//! Pure.

use ::spec::runtime::{self as oci, Spec};
use api::nri::pkg::api::v1alpha1 as pb;
use api::runtime::v1;

use super::resources;
use crate::state::{ContainerRecord, ContainerState, Phase, PodRecord, PodState};

/// A pod; `spec` is its sandbox's, as far as it is known.
pub fn pod(record: &PodRecord, state: &PodState, spec: Option<&Spec>) -> pb::PodSandbox {
    let config = &record.config;
    let metadata = config.metadata.clone().unwrap_or_default();
    let linux = config.linux.clone().unwrap_or_default();
    let of_spec = spec.and_then(|spec| spec.linux.as_ref());
    let mut annotations = config.annotations.clone();
    annotations.extend(spec.into_iter().flat_map(|spec| spec.annotations.clone()));
    let mut namespaces = of_spec.map(|linux| namespaces(&linux.namespaces)).unwrap_or_default();
    // Its network is given back before the pod goes.
    namespaces.retain(|namespace| {
        namespace.r#type != "network" || (!namespace.path.is_empty() && !state.network_released)
    });
    pb::PodSandbox {
        id: record.id.clone(),
        name: metadata.name,
        uid: metadata.uid,
        namespace: metadata.namespace,
        labels: config.labels.clone(),
        annotations,
        runtime_handler: record.runtime_handler.clone(),
        linux: Some(pb::LinuxPodSandbox {
            pod_overhead: state.overhead.as_ref().or(linux.overhead.as_ref()).map(resources::from_cri),
            pod_resources: state.resources.as_ref().or(linux.resources.as_ref()).map(resources::from_cri),
            cgroup_parent: linux.cgroup_parent,
            cgroups_path: of_spec.map(|linux| linux.cgroups_path.clone()).unwrap_or_default(),
            namespaces,
            resources: of_spec.and_then(|linux| linux.resources.as_ref()).map(limits),
        }),
        pid: state.pid,
        ips: state.addresses.iter().map(ToString::to_string).collect(),
    }
}

/// A container; `state` is none while it is being made.
pub fn container(record: &ContainerRecord, state: Option<&ContainerState>, spec: &Spec) -> pb::Container {
    let config = &record.config;
    let process = spec.process.clone().unwrap_or_default();
    let mut annotations = spec.annotations.clone();
    annotations.extend(config.annotations.clone());
    let state = state.cloned();
    let stands = match state.as_ref().map(ContainerState::phase) {
        None | Some(Phase::Unknown) => pb::ContainerState::ContainerUnknown,
        Some(Phase::Created) => pb::ContainerState::ContainerCreated,
        Some(Phase::Running) => pb::ContainerState::ContainerRunning,
        Some(Phase::Exited) => pb::ContainerState::ContainerStopped,
    };
    let state = state.unwrap_or_default();
    pb::Container {
        id: record.id.clone(),
        pod_sandbox_id: record.pod_id.clone(),
        name: config.metadata.clone().unwrap_or_default().name,
        state: stands as i32,
        labels: config.labels.clone(),
        annotations,
        args: process.args.clone(),
        env: process.env.clone(),
        mounts: spec.mounts.iter().map(mount).collect(),
        hooks: spec.hooks.as_ref().map(hooks),
        linux: Some(linux(spec, &process, config)),
        pid: state.pid,
        rlimits: process.rlimits.iter().map(rlimit).collect(),
        created_at: state.created_at,
        started_at: state.started_at,
        finished_at: state.finished_at,
        exit_code: state.exit_code,
        status_reason: state.reason,
        status_message: state.message,
        cdi_devices: config
            .cdi_devices
            .iter()
            .map(|device| pb::CdiDevice { name: device.name.clone() })
            .collect(),
        user: Some(pb::User {
            uid: process.user.uid,
            gid: process.user.gid,
            additional_gids: process.user.additional_gids,
        }),
    }
}

fn linux(spec: &Spec, process: &oci::Process, config: &v1::ContainerConfig) -> pb::LinuxContainer {
    let linux = spec.linux.clone().unwrap_or_default();
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let seccomp = security.and_then(|security| security.seccomp.as_ref());
    let net_device =
        |(key, device): (String, oci::LinuxNetDevice)| (key, pb::LinuxNetDevice { name: device.name });
    pb::LinuxContainer {
        namespaces: namespaces(&linux.namespaces),
        devices: linux.devices.iter().map(device).collect(),
        resources: linux.resources.as_ref().map(limits),
        oom_score_adj: process.oom_score_adj.map(|score| pb::OptionalInt { value: score.into() }),
        cgroups_path: linux.cgroups_path,
        io_priority: process.io_priority.map(|priority| pb::LinuxIoPriority {
            class: match priority.class {
                oci::IoPriorityClass::RealTime => pb::IoPrioClass::IoprioClassRt,
                oci::IoPriorityClass::BestEffort => pb::IoPrioClass::IoprioClassBe,
                oci::IoPriorityClass::Idle => pb::IoPrioClass::IoprioClassIdle,
            } as i32,
            priority: priority.priority,
        }),
        seccomp_profile: seccomp.map(|profile| pb::SecurityProfile {
            profile_type: profile.profile_type,
            localhost_ref: profile.localhost_ref.clone(),
        }),
        seccomp_policy: linux.seccomp.as_ref().map(seccomp_policy),
        sysctl: linux.sysctl,
        net_devices: linux.net_devices.into_iter().map(net_device).collect(),
        scheduler: process.scheduler.as_ref().map(scheduler),
        rdt: linux.intel_rdt.map(|rdt| pb::LinuxRdt {
            clos_id: Some(pb::OptionalString { value: rdt.clos_id }),
            schemata: Some(pb::OptionalRepeatedString { value: rdt.schemata }),
            enable_monitoring: Some(pb::OptionalBool { value: rdt.enable_monitoring }),
            remove: false,
        }),
    }
}

fn namespaces(namespaces: &[oci::Namespace]) -> Vec<pb::LinuxNamespace> {
    let view = |namespace: &oci::Namespace| pb::LinuxNamespace {
        r#type: namespace.kind.name().into(),
        path: namespace.path.clone(),
    };
    namespaces.iter().map(view).collect()
}

fn mount(mount: &oci::Mount) -> pb::Mount {
    pb::Mount {
        destination: mount.destination.clone(),
        r#type: mount.kind.clone(),
        source: mount.source.clone(),
        options: mount.options.clone(),
    }
}

fn rlimit(limit: &oci::Rlimit) -> pb::PosixRlimit {
    pb::PosixRlimit { r#type: limit.kind.clone(), hard: limit.hard, soft: limit.soft }
}

fn device(device: &oci::LinuxDevice) -> pb::LinuxDevice {
    let id = |id: Option<u32>| id.map(|value| pb::OptionalUInt32 { value });
    pb::LinuxDevice {
        path: device.path.clone(),
        r#type: device.kind.clone(),
        major: device.major,
        minor: device.minor,
        file_mode: device.file_mode.map(|value| pb::OptionalFileMode { value }),
        uid: id(device.uid),
        gid: id(device.gid),
    }
}

fn hooks(hooks: &oci::Hooks) -> pb::Hooks {
    let view = |hooks: &[oci::Hook]| {
        let view = |hook: &oci::Hook| pb::Hook {
            path: hook.path.clone(),
            args: hook.args.clone(),
            env: hook.env.clone(),
            timeout: hook.timeout.map(|value| pb::OptionalInt { value }),
        };
        hooks.iter().map(view).collect()
    };
    pb::Hooks {
        prestart: view(&hooks.prestart),
        create_runtime: view(&hooks.create_runtime),
        create_container: view(&hooks.create_container),
        start_container: view(&hooks.start_container),
        poststart: view(&hooks.poststart),
        poststop: view(&hooks.poststop),
    }
}

fn limits(limits: &oci::LinuxResources) -> pb::LinuxResources {
    let signed = |value: Option<i64>| value.map(|value| pb::OptionalInt64 { value });
    let unsigned = |value: Option<u64>| value.map(|value| pb::OptionalUInt64 { value });
    let truth = |value: Option<bool>| value.map(|value| pb::OptionalBool { value });
    pb::LinuxResources {
        memory: limits.memory.as_ref().map(|memory| pb::LinuxMemory {
            limit: signed(memory.limit),
            reservation: signed(memory.reservation),
            swap: signed(memory.swap),
            kernel: signed(memory.kernel),
            kernel_tcp: signed(memory.kernel_tcp),
            swappiness: unsigned(memory.swappiness),
            disable_oom_killer: truth(memory.disable_oom_killer),
            use_hierarchy: truth(memory.use_hierarchy),
        }),
        cpu: limits.cpu.as_ref().map(|cpu| pb::LinuxCpu {
            shares: unsigned(cpu.shares),
            quota: signed(cpu.quota),
            period: unsigned(cpu.period),
            realtime_runtime: signed(cpu.realtime_runtime),
            realtime_period: unsigned(cpu.realtime_period),
            cpus: cpu.cpus.clone(),
            mems: cpu.mems.clone(),
        }),
        hugepage_limits: limits
            .hugepage_limits
            .iter()
            .map(|limit| pb::HugepageLimit { page_size: limit.page_size.clone(), limit: limit.limit })
            .collect(),
        unified: limits.unified.clone(),
        devices: limits.devices.iter().map(device_rule).collect(),
        pids: limits.pids.as_ref().and_then(|pids| pids.limit).map(|limit| pb::LinuxPids { limit }),
        ..pb::LinuxResources::default()
    }
}

fn device_rule(rule: &oci::LinuxDeviceCgroup) -> pb::LinuxDeviceCgroup {
    pb::LinuxDeviceCgroup {
        allow: rule.allow,
        r#type: rule.kind.clone(),
        major: rule.major.map(|value| pb::OptionalInt64 { value }),
        minor: rule.minor.map(|value| pb::OptionalInt64 { value }),
        access: rule.access.clone(),
    }
}

/// A word of the runtime specification.
fn word(word: &impl serde::Serialize) -> String {
    match serde_json::to_value(word) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn seccomp_policy(policy: &oci::LinuxSeccomp) -> pb::LinuxSeccomp {
    let errno = |errno: Option<u32>| errno.map(|value| pb::OptionalUInt32 { value });
    let arg = |arg: &oci::SeccompArg| pb::LinuxSeccompArg {
        index: arg.index,
        value: arg.value,
        value_two: arg.value_two,
        op: word(&arg.op),
    };
    let rule = |rule: &oci::SeccompSyscall| pb::LinuxSyscall {
        names: rule.names.clone(),
        action: word(&rule.action),
        errno_ret: errno(rule.errno_ret),
        args: rule.args.iter().map(arg).collect(),
    };
    pb::LinuxSeccomp {
        default_action: word(&policy.default_action),
        default_errno: errno(policy.default_errno_ret),
        architectures: policy.architectures.iter().map(word).collect(),
        flags: policy.flags.clone().unwrap_or_default(),
        listener_path: policy.listener_path.clone(),
        listener_metadata: policy.listener_metadata.clone(),
        syscalls: policy.syscalls.iter().map(rule).collect(),
    }
}

fn scheduler(scheduler: &oci::Scheduler) -> pb::LinuxScheduler {
    let flag = |flag: &String| pb::LinuxSchedulerFlag::from_str_name(flag).map(|flag| flag as i32);
    pb::LinuxScheduler {
        policy: pb::LinuxSchedulerPolicy::from_str_name(&scheduler.policy).unwrap_or_default() as i32,
        nice: scheduler.nice,
        priority: scheduler.priority,
        flags: scheduler.flags.iter().filter_map(flag).collect(),
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn map(key: &str, value: &str) -> BTreeMap<String, String> {
        [(key.to_owned(), value.to_owned())].into()
    }

    #[test]
    fn a_pod_is_seen_with_its_addresses_and_namespaces() {
        let mut spec = oci::default_unix_spec("k8s.io", "p");
        spec.annotations = map("io.kubernetes.cri.sandbox-id", "p");
        let netns = oci::Namespace { kind: oci::NamespaceKind::Network, path: "/run/netns/x".into() };
        spec.linux_mut().namespaces = vec![netns];
        let config = v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata { name: "n".into(), ..Default::default() }),
            annotations: map("mine", "x"),
            ..v1::PodSandboxConfig::default()
        };
        let record = PodRecord { id: "p".into(), config, ..PodRecord::default() };
        let mut state =
            PodState { pid: 7, addresses: vec!["10.0.0.2".parse().unwrap()], ..PodState::default() };
        let seen = pod(&record, &state, Some(&spec));
        assert_eq!(
            (seen.name.as_str(), seen.pid, seen.ips.as_slice()),
            ("n", 7, &["10.0.0.2".to_owned()][..])
        );
        assert_eq!(seen.annotations.len(), 2);
        assert_eq!(seen.linux.unwrap().namespaces[0].path, "/run/netns/x");
        state.network_released = true;
        assert!(pod(&record, &state, Some(&spec)).linux.unwrap().namespaces.is_empty());
    }

    #[test]
    fn a_container_is_seen_as_its_spec_has_it() {
        let mut spec = oci::default_unix_spec("k8s.io", "c");
        spec.process_mut().env = vec!["A=1".into()];
        spec.process_mut().io_priority =
            Some(oci::IoPriority { class: oci::IoPriorityClass::Idle, priority: 2 });
        let filter = oci::LinuxSeccomp {
            default_action: oci::SeccompAction::Errno,
            default_errno_ret: None,
            architectures: vec![oci::Arch::X86_64],
            flags: None,
            listener_path: String::new(),
            listener_metadata: String::new(),
            syscalls: Vec::new(),
        };
        spec.linux_mut().seccomp = Some(filter);
        let record = ContainerRecord { id: "c".into(), pod_id: "p".into(), ..ContainerRecord::default() };
        let made = container(&record, None, &spec);
        assert_eq!(made.state(), pb::ContainerState::ContainerUnknown);
        assert_eq!(made.env, ["A=1"]);
        let linux = made.linux.unwrap();
        assert_eq!(linux.io_priority.unwrap().class(), pb::IoPrioClass::IoprioClassIdle);
        let policy = linux.seccomp_policy.unwrap();
        assert_eq!(policy.default_action, "SCMP_ACT_ERRNO");
        assert_eq!(policy.architectures, ["SCMP_ARCH_X86_64"]);
        let state = ContainerState { started_at: 2, pid: 9, ..ContainerState::default() };
        let runs = container(&record, Some(&state), &spec);
        assert_eq!((runs.state(), runs.pid), (pb::ContainerState::ContainerRunning, 9));
    }
}
