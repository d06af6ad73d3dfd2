//! `runc events`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use runtime::cgroup::Cgroup;
use runtime::cgroup::OomEvent;
use runtime::cgroup::stats::{
    BlockIoEntry, HugeTlb, IoEntry, MemoryEntry, Pressure, PressureLine, Stats, StatsV1, StatsV2,
};
use serde_json::{Value, json};
use spec::Result;
use spec::runtime::Status;

use super::{invalid, one_id, precondition, record, status};
use crate::args::{self, Global};
use crate::output;

/// Prints figures once, or again and again with what happens between, until the container ends.
pub fn events(global: &Global, args: &args::Events) -> Result<u8> {
    let id = one_id("events", &args.args)?;
    let cgroup = record(global, id)?.cgroup();
    let interval = humantime::parse_duration(&args.interval)
        .map_err(|_| invalid(format!("invalid value {:?} for flag -interval", args.interval)))?;
    if interval.is_zero() {
        return Err(invalid("duration interval must be greater than 0"));
    }
    if status(global, id)? == Status::Stopped {
        return Err(precondition(format!("container with id {id} is not running")));
    }
    if args.stats {
        return print_stats(id, &cgroup).map(|()| 0);
    }
    watch(global, id, &cgroup, interval)
}

fn watch(global: &Global, id: &str, cgroup: &Cgroup, interval: Duration) -> Result<u8> {
    let mut oom = cgroup.watch_oom()?;
    let mut next = spec::time::deadline(interval);
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let readable = sys::process::readable(oom.fd(), left)
            .map_err(|error| spec::Error::internal(error.to_string()))?;
        if readable {
            match oom.take()? {
                OomEvent::Oom => output::json_line(&json!({ "type": "oom", "id": id }))?,
                OomEvent::Nothing => {}
                OomEvent::Gone => return Ok(0),
            }
        } else {
            match status(global, id) {
                Ok(Status::Stopped) | Err(_) => return Ok(0),
                Ok(_) => print_stats(id, cgroup)?,
            }
            next = spec::time::deadline(interval);
        }
    }
}

fn print_stats(id: &str, cgroup: &Cgroup) -> Result<()> {
    let data = match cgroup.stats()? {
        Stats::V1(stats) => document_v1(&stats),
        Stats::V2(stats) => document_v2(&stats),
    };
    output::json_line(&json!({ "type": "stats", "id": id, "data": data }))
}

fn document_v1(stats: &StatsV1) -> Value {
    let entries = |list: &[BlockIoEntry]| -> Vec<Value> {
        list.iter()
            .map(|entry| json!({ "major": entry.major, "minor": entry.minor, "op": entry.op, "value": entry.value }))
            .collect()
    };
    let io = &stats.block_io;
    let blkio = without_empty(json!({
        "ioServiceBytesRecursive": entries(&io.service_bytes),
        "ioServicedRecursive": entries(&io.serviced),
        "ioQueueRecursive": entries(&io.queued),
        "ioServiceTimeRecursive": entries(&io.service_time),
        "ioWaitTimeRecursive": entries(&io.wait_time),
        "ioMergedRecursive": entries(&io.merged),
        "ioTimeRecursive": entries(&io.time),
        "sectorsRecursive": entries(&io.sectors),
    }));
    let throttling = &stats.cpu.throttling;
    let memory = &stats.memory;
    json!({
        "cpu": {
            "usage": {
                "total": stats.cpu.total,
                "percpu": stats.cpu.per_cpu,
                "kernel": stats.cpu.kernel,
                "user": stats.cpu.user,
            },
            "throttling": {
                "periods": throttling.periods,
                "throttledPeriods": throttling.throttled_periods,
                "throttledTime": throttling.throttled_time,
            },
        },
        "memory": {
            "cache": memory.stat("cache"),
            "usage": memory_entry(&memory.usage),
            "swap": memory_entry(&memory.swap),
            "kernel": memory_entry(&memory.kernel),
            "kernelTCP": memory_entry(&memory.kernel_tcp),
            "raw": memory.stat,
        },
        "pids": pids(stats.pids.current, stats.pids.limit),
        "blkio": blkio,
        "hugetlb": hugetlb(&stats.hugetlb),
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

/// Microseconds, of which runc reports nanoseconds.
const NS_PER_US: u64 = 1000;

fn document_v2(stats: &StatsV2) -> Value {
    let cpu = &stats.cpu;
    let memory = &stats.memory;
    let both = |a: u64, b: u64| if b == u64::MAX { b } else { a.saturating_add(b) };
    json!({
        "cpu": {
            "usage": {
                "total": cpu.usage_usec * NS_PER_US,
                "kernel": cpu.system_usec * NS_PER_US,
                "user": cpu.user_usec * NS_PER_US,
            },
            "throttling": {
                "periods": cpu.nr_periods,
                "throttledPeriods": cpu.nr_throttled,
                "throttledTime": cpu.throttled_usec * NS_PER_US,
            },
            "psi": cpu.pressure.as_ref().map(pressure),
        },
        "memory": {
            "cache": memory.stat("file"),
            "usage": { "limit": memory.usage_limit, "usage": memory.usage, "max": memory.max_usage, "failcnt": 0 },
            "swap": {
                "limit": both(memory.usage_limit, memory.swap_limit),
                "usage": both(memory.usage, memory.swap_usage),
                "failcnt": 0,
            },
            "kernel": { "limit": 0, "failcnt": 0 },
            "kernelTCP": { "limit": 0, "failcnt": 0 },
            "raw": memory.stat,
            "psi": memory.pressure.as_ref().map(pressure),
        },
        "pids": pids(stats.pids.current, stats.pids.limit),
        "blkio": io_v2(stats),
        "hugetlb": hugetlb(&stats.hugetlb),
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn io_v2(stats: &StatsV2) -> Value {
    let entries = |figures: fn(&IoEntry) -> [(&'static str, u64); 2]| -> Vec<Value> {
        let of = |entry: &IoEntry| {
            let (major, minor) = (entry.major, entry.minor);
            figures(entry)
                .map(|(op, value)| json!({ "major": major, "minor": minor, "op": op, "value": value }))
        };
        stats.io.usage.iter().flat_map(of).collect()
    };
    without_empty(json!({
        "ioServiceBytesRecursive": entries(|entry| [("Read", entry.rbytes), ("Write", entry.wbytes)]),
        "ioServicedRecursive": entries(|entry| [("Read", entry.rios), ("Write", entry.wios)]),
        "psi": stats.io.pressure.as_ref().map(pressure),
    }))
}

/// No limit is written as 0, as runc does.
fn pids(current: u64, limit: u64) -> Value {
    json!({ "current": current, "limit": if limit == u64::MAX { 0 } else { limit } })
}

fn memory_entry(entry: &MemoryEntry) -> Value {
    json!({ "limit": entry.limit, "usage": entry.usage, "max": entry.max, "failcnt": entry.failures })
}

fn hugetlb(list: &[HugeTlb]) -> BTreeMap<&str, Value> {
    let value = |huge: &HugeTlb| json!({ "usage": huge.usage, "max": huge.max, "failcnt": huge.failures });
    list.iter().map(|huge| (huge.page_size.as_str(), value(huge))).collect()
}

fn pressure(pressure: &Pressure) -> Value {
    let line = |line: &PressureLine| json!({ "avg10": line.avg10, "avg60": line.avg60, "avg300": line.avg300, "total": line.total });
    json!({ "some": line(&pressure.some), "full": line(&pressure.full) })
}

fn without_empty(mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        map.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
    }
    value
}
