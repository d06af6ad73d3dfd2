//! `ctr tasks metrics`: one sample of a task's cgroup.

use api::containerd::services::tasks::v1 as wire;
use api::io::containerd::cgroups::{v1, v2};
use serde_json::{Value, json};

use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::ui::{self, Table, quantity};

/// How to print it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Rows of metric and value
    Table,
    /// One JSON object
    Json,
}

/// Prints a sample.
pub async fn show(client: &Client, id: String, format: Format) -> Result {
    let request = wire::MetricsRequest { filters: vec![format!("id=={id}")] };
    let metrics = client.tasks().metrics(request).await?.into_inner().metrics;
    let metric = metrics.into_iter().find(|metric| metric.id == id);
    let metric = metric.ok_or_else(|| Failure::new("no metrics received"))?;
    let data = metric.data.ok_or_else(|| Failure::new("no metrics received"))?;
    let rows = rows(&data)?;
    if format == Format::Json {
        let object: serde_json::Map<String, Value> =
            rows.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        return Ok(ui::line(json!(object))?);
    }
    let mut head = Table::wide(["ID", "TIMESTAMP"]);
    head.row([metric.id, quantity::rfc3339(metric.timestamp)]);
    head.print()?;
    ui::line("")?;
    let mut table = Table::wide(["METRIC", "VALUE"]);
    for (name, value) in rows {
        let text = match value {
            Value::Array(values) => {
                format!("[{}]", values.iter().map(Value::to_string).collect::<Vec<_>>().join(" "))
            }
            value => value.to_string(),
        };
        table.row([name.to_owned(), text]);
    }
    Ok(table.print()?)
}

/// The metrics that containerd's client shows, by cgroup version.
fn rows(data: &api::Any) -> Result<Vec<(&'static str, Value)>> {
    let malformed = |error: api::DecodeError| Failure::new(format!("malformed metrics: {error}"));
    if let Some(metrics) = api::decode_any::<v1::Metrics>(data).map_err(malformed)? {
        return Ok(rows_v1(metrics));
    }
    if let Some(metrics) = api::decode_any::<v2::Metrics>(data).map_err(malformed)? {
        return Ok(rows_v2(metrics));
    }
    Err(Failure::new(format!("cannot convert metric data of type {}", data.type_url)))
}

fn rows_v1(metrics: v1::Metrics) -> Vec<(&'static str, Value)> {
    let mut rows = Vec::new();
    if let Some(memory) = metrics.memory {
        let usage = memory.usage.unwrap_or_default();
        rows.push(("memory.usage_in_bytes", json!(usage.usage)));
        rows.push(("memory.limit_in_bytes", json!(usage.limit)));
        rows.push(("memory.stat.cache", json!(memory.total_cache)));
    }
    if let Some(usage) = metrics.cpu.and_then(|cpu| cpu.usage) {
        rows.push(("cpuacct.usage", json!(usage.total)));
        rows.push(("cpuacct.usage_percpu", json!(usage.per_cpu)));
    }
    if let Some(pids) = metrics.pids {
        rows.push(("pids.current", json!(pids.current)));
        rows.push(("pids.limit", json!(pids.limit)));
    }
    rows
}

fn rows_v2(metrics: v2::Metrics) -> Vec<(&'static str, Value)> {
    let mut rows = Vec::new();
    if let Some(pids) = metrics.pids {
        rows.push(("pids.current", json!(pids.current)));
        rows.push(("pids.limit", json!(pids.limit)));
    }
    if let Some(cpu) = metrics.cpu {
        rows.push(("cpu.usage_usec", json!(cpu.usage_usec)));
        rows.push(("cpu.user_usec", json!(cpu.user_usec)));
        rows.push(("cpu.system_usec", json!(cpu.system_usec)));
        rows.push(("cpu.nr_periods", json!(cpu.nr_periods)));
        rows.push(("cpu.nr_throttled", json!(cpu.nr_throttled)));
        rows.push(("cpu.throttled_usec", json!(cpu.throttled_usec)));
    }
    if let Some(memory) = metrics.memory {
        rows.push(("memory.usage", json!(memory.usage)));
        rows.push(("memory.usage_limit", json!(memory.usage_limit)));
        rows.push(("memory.swap_usage", json!(memory.swap_usage)));
        rows.push(("memory.swap_limit", json!(memory.swap_limit)));
    }
    rows
}
