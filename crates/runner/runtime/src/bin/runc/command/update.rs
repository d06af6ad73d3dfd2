//! `runc update`.

use std::io::Read;
use std::path::Path;

use spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, MAX_CONFIG_BYTES};
use spec::{Error, Result};

use super::{invalid, io_error, load, one_id, read_document};
use crate::args::{self, Global};
use crate::log::Log;

/// Changes a container's limits.
pub fn update(global: &Global, args: &args::Update, log: &Log) -> Result<u8> {
    let mut container = load(global, one_id("update", &args.args)?)?;
    for (schema, name) in
        [(&args.l3_cache_schema, "CAT: l3 cache"), (&args.mem_bw_schema, "MBA: memory bandwidth")]
    {
        if schema.as_ref().is_some_and(|schema| !schema.is_empty()) {
            return Err(Error::new(
                spec::Kind::Unimplemented,
                format!("Intel RDT/{name} schema is not enabled"),
            ));
        }
    }
    let resources = match &args.resources {
        Some(path) => from_document(path)?,
        None => from_flags(args)?,
    };
    if resources.memory.as_ref().is_some_and(|memory| memory.kernel.is_some() || memory.kernel_tcp.is_some())
    {
        log.warn("Kernel memory settings are ignored and will be removed");
    }
    container.update(&resources)?;
    Ok(0)
}

fn from_document(path: &Path) -> Result<LinuxResources> {
    let text = if path == Path::new("-") {
        let mut text = Vec::new();
        let read = std::io::stdin().take(MAX_CONFIG_BYTES).read_to_end(&mut text);
        read.map_err(|error| io_error("read", path, &error))?;
        text
    } else {
        read_document(path)?
    };
    LinuxResources::from_slice(&text).map_err(|error| invalid(format!("{}: {error}", path.display())))
}

fn from_flags(args: &args::Update) -> Result<LinuxResources> {
    let cpu = LinuxCpu {
        shares: number("cpu-share", args.cpu_share.as_ref())?,
        quota: number("cpu-quota", args.cpu_quota.as_ref())?,
        burst: number("cpu-burst", args.cpu_burst.as_ref())?,
        period: number("cpu-period", args.cpu_period.as_ref())?,
        realtime_runtime: number("cpu-rt-runtime", args.cpu_rt_runtime.as_ref())?,
        realtime_period: number("cpu-rt-period", args.cpu_rt_period.as_ref())?,
        cpus: args.cpuset_cpus.clone().unwrap_or_default(),
        mems: args.cpuset_mems.clone().unwrap_or_default(),
        idle: number("cpu-idle", args.cpu_idle.as_ref())?,
    };
    let memory = LinuxMemory {
        limit: size("memory", args.memory.as_ref())?,
        reservation: size("memory-reservation", args.memory_reservation.as_ref())?,
        swap: size("memory-swap", args.memory_swap.as_ref())?,
        kernel: size("kernel-memory", args.kernel_memory.as_ref())?,
        kernel_tcp: size("kernel-memory-tcp", args.kernel_memory_tcp.as_ref())?,
        ..LinuxMemory::default()
    };
    let block_io = LinuxBlockIo { weight: args.blkio_weight, ..LinuxBlockIo::default() };
    Ok(LinuxResources {
        memory: Some(memory).filter(|memory| *memory != LinuxMemory::default()),
        cpu: Some(cpu).filter(|cpu| *cpu != LinuxCpu::default()),
        pids: args.pids_limit.map(|limit| LinuxPids { limit: Some(limit) }),
        block_io: Some(block_io).filter(|block_io| block_io.weight.is_some()),
        ..LinuxResources::default()
    })
}

fn number<T: std::str::FromStr>(name: &str, text: Option<&String>) -> Result<Option<T>> {
    let parse =
        |text: &String| text.parse().map_err(|_| invalid(format!("invalid value for {name}: {text:?}")));
    text.filter(|text| !text.is_empty()).map(parse).transpose()
}

fn size(name: &str, text: Option<&String>) -> Result<Option<i64>> {
    let parse = |text: &String| {
        parse_size(text).ok_or_else(|| invalid(format!("invalid value for {name}: {text:?}")))
    };
    text.filter(|text| !text.is_empty()).map(parse).transpose()
}

/// Bytes: `-1`, `1024`, `512k`, `1.5g`, `64MiB`; every unit is a power of 1024.
fn parse_size(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if unit.is_empty() || unit == "b" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    if let Ok(whole) = digits.parse::<i64>() {
        return whole.checked_mul(1 << shift);
    }
    let bytes = digits.parse::<f64>().ok()? * (1i64 << shift) as f64;
    (bytes.is_finite() && bytes < i64::MAX as f64).then_some(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("-1", -1),
            ("0", 0),
            ("1024", 1024),
            ("2k", 2048),
            ("1.5g", 3 << 29),
            ("64MiB", 64 << 20),
            ("7 b", 7),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "-2", "k", "1x", "1.2.3m", "9999999999999t", "ib"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
