//! `runc list` and `runc state`.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use runtime::state::Record;
use serde::Serialize;
use spec::Result;
use spec::runtime::Status;

use super::{exactly, invalid, io_error, one_id, record, root};
use crate::args::{self, Global};
use crate::output;

/// A container as both commands show it.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(rename = "ociVersion")]
    oci_version: String,
    id: String,
    pid: i32,
    status: &'static str,
    bundle: String,
    rootfs: String,
    created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    owner: String,
}

impl Row {
    fn new(record: &Record, dir: &Path, owner: String) -> Self {
        let status = record.status(dir);
        Self {
            oci_version: record.config.version.clone(),
            id: record.id.clone(),
            pid: if status == Status::Stopped { 0 } else { record.init_process_pid },
            status: status.name(),
            bundle: record.bundle().to_owned(),
            rootfs: record.config.rootfs.clone(),
            created: record.created.clone(),
            annotations: record.annotations(),
            owner,
        }
    }

    fn cells(&self) -> Vec<String> {
        let cells = [
            &self.id,
            &self.pid.to_string(),
            &self.status.to_owned(),
            &self.bundle,
            &self.created,
            &self.owner,
        ];
        cells.into_iter().cloned().collect()
    }
}

/// Prints the state of one container.
pub fn state(global: &Global, args: &[String]) -> Result<u8> {
    let id = one_id("state", args)?;
    let row = Row::new(&record(global, id)?, &root(global)?.join(id), String::new());
    output::bytes(&output::pretty(&row, "  ")?)?;
    Ok(0)
}

/// Prints the containers of a state root.
pub fn list(global: &Global, args: &args::List) -> Result<u8> {
    exactly("list", &args.args, 0)?;
    let rows = rows(global)?;
    if args.quiet {
        let ids: String = rows.iter().flatten().map(|row| format!("{}\n", row.id)).collect();
        return output::bytes(ids.as_bytes()).map(|()| 0);
    }
    match args.format.as_str() {
        "table" => {
            let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from).to_vec();
            let cells = rows.iter().flatten().map(Row::cells);
            output::bytes(
                output::table(&std::iter::once(header).chain(cells).collect::<Vec<_>>()).as_bytes(),
            )?;
        }
        "json" => output::json_line(&rows)?,
        _ => return Err(invalid("invalid format option")),
    }
    Ok(0)
}

/// `None` is an empty list, which Go prints as null.
fn rows(global: &Global) -> Result<Option<Vec<Row>>> {
    let root = root(global)?;
    let entries = match std::fs::read_dir(&root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && global.root.is_none() => {
            return Ok(None);
        }
        Err(error) => return Err(io_error("open", &root, &error)),
    };
    let mut rows = Vec::new();
    for entry in entries.flatten() {
        // A container may go while the list is made.
        let Ok(metadata) = entry.metadata() else { continue };
        if !metadata.is_dir() {
            continue;
        }
        let dir = entry.path();
        match Record::load(&dir) {
            Ok(record) => rows.push(Row::new(&record, &dir, owner(metadata.uid()))),
            Err(error) => eprintln!("load container {}: {error}", entry.file_name().display()),
        }
    }
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(Some(rows).filter(|rows| !rows.is_empty()))
}

fn owner(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    users.lines().find_map(name).unwrap_or_else(|| format!("#{uid}"))
}
