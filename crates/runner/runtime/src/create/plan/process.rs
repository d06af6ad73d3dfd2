//! The process of a container, or one that joins it.

use std::ffi::CString;
use std::path::PathBuf;

use spec::runtime::{ConsoleSize, IoPriorityClass, Personality};
use sys::capability::{self, Set};
use sys::process::schedule::Policy;
use sys::rlimit::{self, Resource};

use super::PlanError;
use super::memory_policy::MemoryPolicy;
use crate::seccomp::Program;

/// The most arguments and environment bytes that a plan holds; the kernel's own bound on one `execve(2)` is lower.
const MOST_BYTES: usize = 8 << 20;

/// The capability sets of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Bounding set.
    pub bounding: Set,
    /// Effective set.
    pub effective: Set,
    /// Inheritable set.
    pub inheritable: Set,
    /// Permitted set.
    pub permitted: Set,
    /// Ambient set.
    pub ambient: Set,
}

/// A resource limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Of what.
    pub resource: Resource,
    /// Its name in the specification.
    pub name: String,
    /// What holds now.
    pub soft: u64,
    /// What the soft limit may be raised to.
    pub hard: u64,
}

/// CPUs that a joining process runs on before and after it has entered the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartCpus {
    /// Until the container's cgroup is joined; empty for no change.
    pub initial: Vec<usize>,
    /// From then on; empty for no change.
    pub last: Vec<usize>,
}

/// A process, ready to be made.
#[derive(Debug, Default)]
pub struct Process {
    /// Arguments; the first names the program.
    pub args: Vec<CString>,
    /// Environment, `NAME=value`.
    pub env: Vec<CString>,
    /// Current directory.
    pub cwd: PathBuf,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Size of the terminal.
    pub console_size: Option<ConsoleSize>,
    /// Whether the terminal leaves line ends as the program writes them, for a caller that shows them on one of its own.
    pub keep_line_ends: bool,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// Capabilities.
    pub capabilities: Capabilities,
    /// Limits.
    pub limits: Vec<Limit>,
    /// Whether `execve(2)` may not grant privileges.
    pub no_new_privs: bool,
    /// AppArmor profile; empty for none.
    pub apparmor_profile: String,
    /// SELinux label; empty for none.
    pub selinux_label: String,
    /// How willing the kernel is to kill it.
    pub oom_score_adj: Option<i32>,
    /// Scheduling policy.
    pub scheduler: Option<Policy>,
    /// Whether the container's cgroup has a set of CPUs of its own.
    pub limited_cpus: bool,
    /// Class and priority of its I/O.
    pub io_priority: Option<(u32, u32)>,
    /// CPUs of a joining process.
    pub cpus: StartCpus,
    /// System call filter.
    pub seccomp: Option<Program>,
    /// Execution domain.
    pub personality: Option<u64>,
    /// Where its memory comes to lie.
    pub memory_policy: Option<MemoryPolicy>,
    /// Whether a joining process takes in its orphaned descendants.
    pub child_subreaper: bool,
}

impl Process {
    /// Refuses more descriptors than `most`, which the kernel gives no process whatever its rights (`fs.nr_open`).
    pub fn check_descriptors(&self, most: u64) -> Result<(), PlanError> {
        match self.limits.iter().find(|limit| limit.name == "RLIMIT_NOFILE" && limit.hard > most) {
            Some(limit) => {
                let why = format!("error setting rlimit type 7: {} is above fs.nr_open {most}", limit.hard);
                Err(PlanError::field("process.rlimits", why))
            }
            None => Ok(()),
        }
    }

    /// What is asked for and will not be, in words for the user; the process starts all the same.
    pub fn warnings(&self) -> Vec<String> {
        let sets = &self.capabilities;
        // The kernel raises a capability only when it is permitted and inheritable.
        let unraisable = sets.ambient.0 & !(sets.permitted.0 & sets.inheritable.0);
        (0..64)
            .filter(|number| unraisable >> number & 1 == 1)
            .map(|number| {
                let name = capability::names().nth(number).unwrap_or_default();
                format!("can't raise ambient capability {name}: operation not permitted")
            })
            .collect()
    }

    /// Whether its execution takes on a label of AppArmor or SELinux.
    pub fn is_labelled(&self) -> bool {
        !self.apparmor_profile.is_empty() || !self.selinux_label.is_empty()
    }
}

/// Checks and converts a process of the specification.
pub(super) fn plan(wanted: &spec::runtime::Process) -> Result<Process, PlanError> {
    if wanted.args.first().is_none_or(String::is_empty) {
        return Err(PlanError::field("process.args", "is empty"));
    }
    let mut process = Process {
        args: strings("process.args", &wanted.args)?,
        env: strings("process.env", &environment(&wanted.env)?)?,
        cwd: super::absolute("process.cwd", &wanted.cwd)?,
        terminal: wanted.terminal,
        console_size: wanted.console_size.filter(|size| size.width > 0 || size.height > 0),
        uid: wanted.user.uid,
        gid: wanted.user.gid,
        groups: wanted.user.additional_gids.clone(),
        umask: wanted.user.umask.unwrap_or(0o022),
        capabilities: wanted.capabilities.as_ref().map(capabilities).unwrap_or_default(),
        limits: limits(&wanted.rlimits)?,
        no_new_privs: wanted.no_new_privileges,
        apparmor_profile: text("process.apparmorProfile", &wanted.apparmor_profile)?,
        selinux_label: text("process.selinuxLabel", &wanted.selinux_label)?,
        oom_score_adj: wanted.oom_score_adj,
        child_subreaper: wanted.child_subreaper,
        ..Process::default()
    };
    // The kernel's "no change" value would leave the caller's root in place.
    if process.uid == u32::MAX || process.gid == u32::MAX || process.groups.contains(&u32::MAX) {
        return Err(PlanError::field("process.user", "4294967295 is not an id"));
    }
    if process.umask > 0o777 {
        return Err(PlanError::field("process.user.umask", format!("{:o} is out of range", process.umask)));
    }
    process.scheduler = wanted.scheduler.as_ref().map(scheduler).transpose()?;
    process.io_priority = wanted.io_priority.map(io_priority).transpose()?;
    if let Some(affinity) = &wanted.exec_cpu_affinity {
        process.cpus = StartCpus { initial: cpus(&affinity.initial)?, last: cpus(&affinity.last)? };
    }
    Ok(process)
}

/// The environment as a program gets it: each variable once, the last value counts. An empty `HOME` counts as none, so
/// that the user's own is filled in.
fn environment(wanted: &[String]) -> Result<Vec<String>, PlanError> {
    let refuse = |why: &str| PlanError::field("process.env", format!("invalid environment variable: {why}"));
    let mut seen = std::collections::HashSet::new();
    let mut env = Vec::with_capacity(wanted.len());
    for entry in wanted.iter().rev() {
        let (name, value) = entry.split_once('=').ok_or_else(|| refuse("missing '='"))?;
        if name.is_empty() {
            return Err(refuse("name cannot be empty"));
        }
        if seen.insert(name) && !(name == "HOME" && value.is_empty()) {
            env.push(entry.clone());
        }
    }
    env.reverse();
    Ok(env)
}

fn strings(field: &str, texts: &[String]) -> Result<Vec<CString>, PlanError> {
    if texts.iter().map(|text| text.len() + 1).sum::<usize>() > MOST_BYTES {
        return Err(PlanError::field(field, "is longer than the kernel takes"));
    }
    texts
        .iter()
        .map(|text| CString::new(text.as_str()).map_err(|_| PlanError::field(field, "holds a zero byte")))
        .collect()
}

fn text(field: &str, value: &str) -> Result<String, PlanError> {
    if value.contains(['\0', '\n']) {
        return Err(PlanError::field(field, "holds a zero byte or a line break"));
    }
    Ok(value.to_owned())
}

/// Names that no kernel knows are left out, as runc leaves them out.
fn capabilities(wanted: &spec::runtime::Capabilities) -> Capabilities {
    let set = |names: &[String]| {
        names
            .iter()
            .filter_map(|name| capability::number(name))
            .fold(Set::default(), |set, number| Set(set.0 | 1 << number))
    };
    Capabilities {
        bounding: set(&wanted.bounding),
        effective: set(&wanted.effective),
        inheritable: set(&wanted.inheritable),
        permitted: set(&wanted.permitted),
        ambient: set(&wanted.ambient),
    }
}

fn limits(wanted: &[spec::runtime::Rlimit]) -> Result<Vec<Limit>, PlanError> {
    let mut limits: Vec<Limit> = Vec::new();
    for limit in wanted {
        let refuse = |why: &str| PlanError::field("process.rlimits", format!("{:?} {why}", limit.kind));
        let resource = rlimit::resource(&limit.kind).ok_or_else(|| refuse("is unknown"))?;
        if limit.soft > limit.hard {
            return Err(refuse("has a soft limit above its hard limit"));
        }
        if limits.iter().any(|known| known.resource == resource) {
            return Err(refuse("is there twice"));
        }
        limits.push(Limit { resource, name: limit.kind.clone(), soft: limit.soft, hard: limit.hard });
    }
    Ok(limits)
}

fn scheduler(wanted: &spec::runtime::Scheduler) -> Result<Policy, PlanError> {
    let refuse = |what: &str| PlanError::field("process.scheduler", format!("{what:?} is unknown"));
    let policy = match wanted.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        other => return Err(refuse(other)),
    };
    let mut flags = 0;
    for flag in &wanted.flags {
        flags |= match flag.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => 0x1,
            "SCHED_FLAG_RECLAIM" => 0x2,
            "SCHED_FLAG_DL_OVERRUN" => 0x4,
            "SCHED_FLAG_KEEP_POLICY" => 0x8,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
            "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
            other => return Err(refuse(other)),
        };
    }
    check_scheduler(wanted)?;
    let priority = u32::try_from(wanted.priority).map_err(|_| {
        PlanError::field("process.scheduler", format!("priority {} is out of range", wanted.priority))
    })?;
    Ok(Policy {
        policy,
        flags,
        nice: wanted.nice,
        priority,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
    })
}

/// Which numbers go with which policy.
fn check_scheduler(wanted: &spec::runtime::Scheduler) -> Result<(), PlanError> {
    let refuse = |why: String| Err(PlanError::field("process.scheduler", why));
    let policy = wanted.policy.as_str();
    if ["SCHED_OTHER", "SCHED_BATCH"].contains(&policy) && !(-20..=19).contains(&wanted.nice) {
        return refuse(format!("invalid scheduler.nice: {} when scheduler.policy is {policy}", wanted.nice));
    }
    if wanted.priority != 0 && !["SCHED_FIFO", "SCHED_RR"].contains(&policy) {
        return refuse("scheduler.priority can only be specified for SchedFIFO or SchedRR policy".into());
    }
    if policy != "SCHED_DEADLINE" && (wanted.runtime, wanted.deadline, wanted.period) != (0, 0, 0) {
        return refuse(
            "scheduler runtime/deadline/period can only be specified for SchedDeadline policy".into(),
        );
    }
    Ok(())
}

fn io_priority(wanted: spec::runtime::IoPriority) -> Result<(u32, u32), PlanError> {
    let class = match wanted.class {
        IoPriorityClass::RealTime => 1,
        IoPriorityClass::BestEffort => 2,
        IoPriorityClass::Idle => 3,
    };
    match u32::try_from(wanted.priority) {
        Ok(priority) if priority <= 7 => Ok((class, priority)),
        _ => Err(PlanError::field(
            "process.ioPriority",
            format!("priority {} is out of range", wanted.priority),
        )),
    }
}

/// The execution domain: `LINUX` or `LINUX32`; its flags are ignored, as runc ignores them.
pub(super) fn personality(wanted: Option<&Personality>) -> Result<Option<u64>, PlanError> {
    match wanted.map(|wanted| wanted.domain.as_str()) {
        None => Ok(None),
        Some("LINUX") => Ok(Some(0)),
        Some("LINUX32") => Ok(Some(8)),
        Some(other) => Err(PlanError::field("linux.personality", format!("domain {other:?} is unknown"))),
    }
}

/// A list of CPUs such as `0-3,7`.
fn cpus(text: &str) -> Result<Vec<usize>, PlanError> {
    const MAX_CPUS: usize = 8192;
    let refuse = || PlanError::field("process.execCPUAffinity", format!("{text:?} is not a list of CPUs"));
    numbers(text, MAX_CPUS).ok_or_else(refuse)
}

/// A list such as `0-3,7` of numbers below `limit`.
pub(super) fn numbers(text: &str, limit: usize) -> Option<Vec<usize>> {
    let mut out = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number < limit);
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        out.extend(first..=last);
    }
    out.sort_unstable();
    out.dedup();
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(cpus("0-2,5").unwrap(), [0, 1, 2, 5]);
        assert_eq!(cpus("").unwrap(), [] as [usize; 0]);
        for text in ["3-1", "x", "0-99999999999", "-1"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_id_that_means_no_change_is_refused() {
        let mut process =
            spec::runtime::Process { args: vec!["x".into()], cwd: "/".into(), ..Default::default() };
        process.user.uid = u32::MAX;
        assert!(plan(&process).is_err());
    }

    #[test]
    fn a_variable_is_kept_once_and_an_empty_home_is_none() {
        let env = |entries: &[&str]| environment(&entries.iter().map(|&e| e.to_owned()).collect::<Vec<_>>());
        assert_eq!(env(&["A=1", "B=2", "A=3=4"]).unwrap(), ["B=2", "A=3=4"]);
        assert_eq!(env(&["HOME=/a", "X=", "HOME="]).unwrap(), ["X="]);
        assert_eq!(env(&["HOME=", "HOME=/b"]).unwrap(), ["HOME=/b"]);
        assert!(env(&["A"]).unwrap_err().to_string().contains("missing '='"));
        assert!(env(&["=A"]).unwrap_err().to_string().contains("name cannot be empty"));
    }

    #[test]
    fn numbers_of_another_scheduling_policy_are_refused() {
        let policy = |policy: &str, nice, priority, runtime| {
            let wanted = spec::runtime::Scheduler {
                policy: policy.into(),
                nice,
                priority,
                runtime,
                ..spec::runtime::Scheduler::default()
            };
            scheduler(&wanted).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(policy("SCHED_DEADLINE", 19, 0, 42_000), Ok(()));
        assert_eq!(policy("SCHED_FIFO", 40, 5, 0), Ok(()));
        for (wanted, why) in [
            (policy("SCHED_BATCH", 40, 0, 0), "invalid scheduler.nice: 40"),
            (policy("SCHED_OTHER", 0, 1, 0), "scheduler.priority can only"),
            (policy("SCHED_RR", 0, 1, 7), "runtime/deadline/period can only"),
        ] {
            assert!(wanted.unwrap_err().contains(why), "{why}");
        }
    }

    #[test]
    fn an_ambient_capability_that_cannot_be_raised_is_a_warning() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let wanted = spec::runtime::Capabilities {
            permitted: names(&["CAP_KILL", "CAP_CHOWN"]),
            inheritable: names(&["CAP_KILL"]),
            ambient: names(&["CAP_KILL", "CAP_CHOWN"]),
            ..spec::runtime::Capabilities::default()
        };
        let process = Process { capabilities: capabilities(&wanted), ..Process::default() };
        let expected = "can't raise ambient capability CAP_CHOWN: operation not permitted";
        assert_eq!(process.warnings(), [expected]);
    }

    #[test]
    fn more_descriptors_than_the_kernel_gives_are_refused() {
        let check = |kind: &str, hard| {
            let wanted = spec::runtime::Rlimit { kind: kind.into(), soft: 1, hard };
            let process = Process { limits: limits(&[wanted]).unwrap(), ..Process::default() };
            process.check_descriptors(1024)
        };
        let text = check("RLIMIT_NOFILE", 1025).unwrap_err().to_string();
        assert!(text.contains("error setting rlimit type 7"), "{text}");
        assert!(check("RLIMIT_NOFILE", 1024).is_ok() && check("RLIMIT_NPROC", 1025).is_ok());
    }

    #[test]
    fn limits_are_checked() {
        let limit = |kind: &str, soft, hard| spec::runtime::Rlimit { kind: kind.into(), soft, hard };
        assert!(limits(&[limit("RLIMIT_NOFILE", 1, 2)]).is_ok());
        for wrong in [
            vec![limit("RLIMIT_NOPE", 1, 2)],
            vec![limit("RLIMIT_CPU", 3, 2)],
            vec![limit("RLIMIT_CPU", 1, 2), limit("RLIMIT_CPU", 1, 2)],
        ] {
            assert!(limits(&wrong).is_err());
        }
    }
}
