//! Limits and annotations as properties of a unit, so that systemd and we write the same into a cgroup: whatever it
//! does not know of it would undo when it next writes there itself.
//!
//! The names are those of systemd.resource-control(5), the choice is runc's. What has no property (burst, huge pages,
//! block devices, ...) is written into the cgroup alone, which a delegated scope allows.

use std::collections::BTreeMap;

use spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::super::device::{self, Allowed};
use super::super::{CgroupError, convert};
use super::text;
use super::value::Value;

/// A property: its name and value.
pub type Property = (String, Value);

/// Begins the names of annotations that are properties.
const ANNOTATION: &str = "org.systemd.property.";

/// Systemd's infinity.
const INFINITY: u64 = u64::MAX;

/// Period of the CPU quota where none is given, in microseconds: the kernel's.
const DEFAULT_PERIOD_US: u64 = 100_000;

/// The step of a CPU quota, in microseconds a second: systemd keeps whole percents of a CPU.
const QUOTA_STEP_US: u64 = 10_000;

/// The versions of systemd that brought a property.
mod since {
    pub(super) const QUOTA_PERIOD: u32 = 242;
    pub(super) const CPUSET: u32 = 244;
    pub(super) const IDLE: u32 = 252;
    pub(super) const OOM_POLICY: u32 = 253;
}

/// Which limits are asked for as which properties, on which systemd and which hierarchy.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// Whether the controllers are those of cgroup v2.
    pub is_v2: bool,
    /// Major version of systemd.
    pub version: u32,
}

/// Whether [`of_resources`] and [`of_creation`] look at the version for these limits.
pub fn need_version(resources: &LinuxResources) -> bool {
    let cpu = resources.cpu.as_ref().is_some_and(|cpu| {
        cpu.period.is_some() || cpu.idle.is_some() || !cpu.cpus.is_empty() || !cpu.mems.is_empty()
    });
    cpu || !resources.unified.is_empty()
}

/// What a scope gets whatever its limits are.
pub fn of_scope(name: &str, slice: &str, pid: i32, is_v2: bool) -> Vec<Property> {
    let io = if is_v2 { "IOAccounting" } else { "BlockIOAccounting" };
    let mut properties = vec![
        named("Description", Value::text(format!("container {name}"))),
        named("Slice", Value::text(slice)),
        // The cgroups below the scope are the container's.
        named("Delegate", Value::Bool(true)),
        named("PIDs", Value::Array("u".into(), vec![Value::U32(pid.cast_unsigned())])),
    ];
    let flags = ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"];
    properties.extend(flags.map(|flag| named(flag, Value::Bool(true))));
    // Stopping containers at shutdown is their manager's to order.
    properties.push(named("DefaultDependencies", Value::Bool(false)));
    properties
}

/// What can be said at the creation alone: devices, and what the kernel does with a group that is out of memory.
pub fn of_creation(resources: &LinuxResources, dialect: Dialect) -> Result<Vec<Property>, CgroupError> {
    let list = |entries: Vec<(String, String)>| {
        let entry = |(path, access)| Value::Struct(vec![Value::Str(path), Value::Str(access)]);
        Value::Array("(ss)".into(), entries.into_iter().map(entry).collect())
    };
    let (policy, entries) = match device::allowed(&device::rules(&resources.devices)?) {
        Allowed::List(entries) => ("strict", entries),
        Allowed::All => ("auto", Vec::new()),
        // On v2 our own program decides, and systemd's could only forbid more. On v1 systemd itself writes when it is
        // told to reload: better nothing allowed then than everything.
        Allowed::Otherwise if dialect.is_v2 => ("auto", Vec::new()),
        Allowed::Otherwise => ("strict", Vec::new()),
    };
    let mut properties =
        vec![named("DevicePolicy", Value::text(policy)), named("DeviceAllow", list(entries))];
    if dialect.version >= since::OOM_POLICY
        && let Some(group) = resources.unified.get("memory.oom.group")
    {
        let policy = match group.trim() {
            "0" => Some("continue"),
            "1" => Some("kill"),
            _ => None,
        };
        properties.extend(policy.map(|policy| named("OOMPolicy", Value::text(policy))));
    }
    Ok(properties)
}

/// Limits.
pub fn of_resources(resources: &LinuxResources, dialect: Dialect) -> Result<Vec<Property>, CgroupError> {
    let mut properties = Vec::new();
    if let Some(memory) = &resources.memory {
        memory_properties(memory, dialect, &mut properties)?;
    }
    if let Some(cpu) = &resources.cpu {
        cpu_properties(cpu, dialect, &mut properties)?;
    }
    if !dialect.is_v2
        && let Some(weight) =
            resources.block_io.as_ref().and_then(|io| io.weight).filter(|&weight| weight != 0)
    {
        properties.push(named("BlockIOWeight", Value::U64(weight.into())));
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        properties.push(named("TasksMax", Value::U64(tasks_max(limit))));
    }
    if dialect.is_v2 {
        for (name, value) in &resources.unified {
            unified_property(name, value.trim(), resources, dialect, &mut properties)?;
        }
    }
    Ok(properties)
}

fn named(name: &str, value: Value) -> Property {
    (name.to_owned(), value)
}

/// Negative is no limit. Systemd takes no 0 for tasks.
fn tasks_max(limit: i64) -> u64 {
    u64::try_from(limit).map_or(INFINITY, |limit| limit.max(1))
}

fn bytes(limit: i64) -> Value {
    Value::U64(u64::try_from(limit).unwrap_or(INFINITY))
}

fn memory_properties(
    memory: &LinuxMemory,
    dialect: Dialect,
    properties: &mut Vec<Property>,
) -> Result<(), CgroupError> {
    let limit = memory.limit.unwrap_or(0);
    if limit != 0 {
        properties.push(named(if dialect.is_v2 { "MemoryMax" } else { "MemoryLimit" }, bytes(limit)));
    }
    if !dialect.is_v2 {
        return Ok(());
    }
    if let Some(reservation) = memory.reservation.filter(|&reservation| reservation != 0) {
        properties.push(named("MemoryLow", bytes(reservation)));
    }
    let swap = convert::swap(memory.swap.unwrap_or(0), limit);
    let swap = swap.map_err(|text| CgroupError::Value(text.to_owned()))?;
    properties.extend(swap.map(|swap| named("MemorySwapMax", bytes(swap))));
    Ok(())
}

fn cpu_properties(
    cpu: &LinuxCpu,
    dialect: Dialect,
    properties: &mut Vec<Property>,
) -> Result<(), CgroupError> {
    let shares = cpu.shares.filter(|&shares| shares != 0);
    if dialect.is_v2 && cpu.idle == Some(1) && dialect.version >= since::IDLE {
        // Systemd's words for cpu.idle, which leaves no weight.
        properties.push(named("CPUWeight", Value::U64(0)));
    } else if let Some(shares) = shares {
        properties.push(match dialect.is_v2 {
            true => named("CPUWeight", Value::U64(convert::cpu_weight(shares))),
            false => named("CPUShares", Value::U64(shares)),
        });
    }
    quota_properties(cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0), dialect, properties);
    for (name, list) in [("AllowedCPUs", &cpu.cpus), ("AllowedMemoryNodes", &cpu.mems)] {
        if !list.is_empty() && dialect.version >= since::CPUSET {
            properties.push(named(name, mask(list)?));
        }
    }
    Ok(())
}

fn quota_properties(quota: i64, period: u64, dialect: Dialect, properties: &mut Vec<Property>) {
    if period != 0 && dialect.version >= since::QUOTA_PERIOD {
        properties.push(named("CPUQuotaPeriodUSec", Value::U64(period)));
    }
    if quota != 0 || period != 0 {
        let per_second = match u64::try_from(quota) {
            Ok(quota @ 1..) => per_second(quota, if period == 0 { DEFAULT_PERIOD_US } else { period }),
            _ => INFINITY,
        };
        properties.push(named("CPUQuotaPerSecUSec", Value::U64(per_second)));
    }
}

/// Microseconds a second, whole percents of a CPU.
fn per_second(quota: u64, period: u64) -> u64 {
    let exact = u128::from(quota) * 1_000_000 / u128::from(period.max(1));
    let step = u128::from(QUOTA_STEP_US);
    u64::try_from(exact.div_ceil(step) * step).unwrap_or(INFINITY)
}

/// The quota that systemd makes of `cpu`'s, so that both write the same: whole percents, rounded up.
pub fn rounded_quota(cpu: &LinuxCpu) -> Option<i64> {
    let quota = u64::try_from(cpu.quota?).ok().filter(|&quota| quota != 0)?;
    let period = cpu.period.filter(|&period| period != 0).unwrap_or(DEFAULT_PERIOD_US);
    i64::try_from(u128::from(per_second(quota, period)) * u128::from(period) / 1_000_000).ok()
}

/// A list such as `0-2,5` as bits, the first byte's lowest first.
fn mask(list: &str) -> Result<Value, CgroupError> {
    /// Beyond what any machine has.
    const MOST: usize = 1 << 16;
    let invalid = || CgroupError::Value(format!("invalid list of CPUs or memory nodes: {list:?}"));
    let number =
        |text: &str| text.trim().parse::<usize>().ok().filter(|&number| number < MOST).ok_or_else(invalid);
    let mut bits = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(invalid());
        }
        bits.resize(bits.len().max(last / 8 + 1), 0u8);
        (first..=last).for_each(|bit| bits[bit / 8] |= 1 << (bit % 8));
    }
    if bits.is_empty() { Err(invalid()) } else { Ok(Value::bytes(&bits)) }
}

/// The property of one file of `linux.resources.unified`, if there is one.
fn unified_property(
    file: &str,
    value: &str,
    resources: &LinuxResources,
    dialect: Dialect,
    properties: &mut Vec<Property>,
) -> Result<(), CgroupError> {
    let invalid = || CgroupError::Value(format!("unified resource {file:?} value invalid: {value:?}"));
    let number = |text: &str| match text {
        "max" => Ok(INFINITY),
        text => text.parse::<u64>().map_err(|_| invalid()),
    };
    let sets_idle = || {
        dialect.version >= since::IDLE
            && resources.unified.get("cpu.idle").is_some_and(|idle| idle.trim() == "1")
    };
    let property = match file {
        "cpu.idle" if sets_idle() => named("CPUWeight", Value::U64(0)),
        "cpu.weight" if !sets_idle() => named("CPUWeight", Value::U64(number(value)?)),
        "cpu.max" => {
            let mut words = value.split_whitespace();
            let quota = match words.next().ok_or_else(invalid)? {
                "max" => 0,
                text => text.parse().map_err(|_| invalid())?,
            };
            let period =
                words.next().map_or(Ok(DEFAULT_PERIOD_US), |text| text.parse().map_err(|_| invalid()))?;
            quota_properties(quota, period, dialect, properties);
            return Ok(());
        }
        "cpuset.cpus" if dialect.version >= since::CPUSET => named("AllowedCPUs", mask(value)?),
        "cpuset.mems" if dialect.version >= since::CPUSET => named("AllowedMemoryNodes", mask(value)?),
        "memory.high" => named("MemoryHigh", Value::U64(number(value)?)),
        "memory.low" => named("MemoryLow", Value::U64(number(value)?)),
        "memory.min" => named("MemoryMin", Value::U64(number(value)?)),
        "memory.max" => named("MemoryMax", Value::U64(number(value)?)),
        "memory.swap.max" => named("MemorySwapMax", Value::U64(number(value)?)),
        "pids.max" => named("TasksMax", Value::U64(number(value)?.max(1))),
        _ => return Ok(()),
    };
    properties.push(property);
    Ok(())
}

/// The properties that annotations name: `org.systemd.property.TimeoutStopUSec: "uint64 5000000"`. A name that ends in
/// `Sec` takes seconds.
pub fn of_annotations(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>, CgroupError> {
    let mut properties = Vec::new();
    for (key, value) in annotations {
        let Some(name) = key.strip_prefix(ANNOTATION) else { continue };
        let invalid = |what: String| CgroupError::Value(format!("annotation {key}={value}: {what}"));
        if name.len() < 3 || name.len() > 64 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(invalid("the name is not a property's".into()));
        }
        let parsed = text::parse(value).map_err(|error| invalid(error.to_string()))?;
        let stem =
            name.strip_suffix("Sec").filter(|stem| stem.ends_with(|last: char| last.is_ascii_lowercase()));
        properties.push(match stem {
            Some(stem) => {
                let microseconds =
                    microseconds(&parsed).ok_or_else(|| invalid("not a number of seconds".into()))?;
                (format!("{stem}USec"), Value::U64(microseconds))
            }
            None => named(name, parsed),
        });
    }
    Ok(properties)
}

fn microseconds(seconds: &Value) -> Option<u64> {
    let whole = match *seconds {
        Value::Byte(number) => u64::from(number),
        Value::U16(number) => u64::from(number),
        Value::U32(number) => u64::from(number),
        Value::U64(number) => number,
        Value::I16(number) => u64::try_from(number).ok()?,
        Value::I32(number) => u64::try_from(number).ok()?,
        Value::I64(number) => u64::try_from(number).ok()?,
        Value::F64(number) => {
            let microseconds = number * 1e6;
            return (microseconds >= 0.0 && microseconds < u64::MAX as f64).then_some(microseconds as u64);
        }
        _ => return None,
    };
    whole.checked_mul(1_000_000)
}

#[cfg(test)]
#[path = "properties_tests.rs"]
mod tests;
