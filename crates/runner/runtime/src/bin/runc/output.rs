//! Everything that is printed on stdout.

use std::io::Write;

use serde::Serialize;
use spec::{Error, Result};

/// Prints `value` as JSON indented by `indent`, as Go's encoder does.
pub fn pretty<T: Serialize>(value: &T, indent: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    value.serialize(&mut serializer).map_err(|error| Error::internal(error.to_string()))?;
    Ok(bytes)
}

/// Prints `value` as JSON on a line of its own.
pub fn json_line<T: Serialize>(value: &T) -> Result<()> {
    let mut line = serde_json::to_vec(value).map_err(|error| Error::internal(error.to_string()))?;
    line.push(b'\n');
    bytes(&line)
}

/// Prints `bytes`.
pub fn bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let done = stdout.write_all(bytes).and_then(|()| stdout.flush());
    done.map_err(|error| Error::internal(format!("write stdout: {}", crate::log::words(&error))))
}

/// Rows in columns at least 12 wide and 3 apart, as runc sets its tables.
pub fn table(rows: &[Vec<String>]) -> String {
    const LEAST: usize = 12;
    const APART: usize = 3;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let longest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        (longest.unwrap_or(0) + APART).max(LEAST)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                text.extend(std::iter::repeat_n(' ', widths[column] - cell.chars().count()));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_set_as_runc_sets_them() {
        let row = |cells: [&str; 3]| cells.map(String::from).to_vec();
        let text = table(&[row(["ID", "PID", "OWNER"]), row(["a-long-container-id", "7", "root"])]);
        assert_eq!(text, "ID                    PID         OWNER\na-long-container-id   7           root\n");
    }
}
