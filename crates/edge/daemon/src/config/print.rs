//! A configuration as text: `config default`, `config dump`, `config migrate`.

use std::fmt::Write;

use super::keys::KEYS;
use super::value::{Value, Values};

/// The text of `values`: the known keys in their order, then those taken as they are.
pub fn print(values: &Values) -> String {
    let tables = values.tables();
    let mut names: Vec<&str> = Vec::new();
    for table in KEYS.iter().map(|key| key.table).chain(tables.keys().copied()) {
        if !names.contains(&table) {
            names.push(table);
        }
    }
    let mut out = String::new();
    let mut plugins = false;
    for name in names {
        let Some(keys) = tables.get(name) else { continue };
        let plugin = name.starts_with("plugins/");
        if plugin && !plugins {
            out.push_str("\n[plugins]\n");
            plugins = true;
        }
        if !name.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "\n{}[{}]", if plugin { "  " } else { "" }, heading(name));
        }
        let ordered = KEYS.iter().filter(|key| key.table == name).map(|key| key.name);
        let others = keys
            .keys()
            .copied()
            .filter(|key| !KEYS.iter().any(|known| known.table == name && known.name == *key));
        for key in ordered.chain(others) {
            // An empty list of tables has no line in containerd's own file.
            if let Some(value) = keys.get(key).filter(|_| key != "unpack_config") {
                let indent = if name.is_empty() {
                    ""
                } else if plugin {
                    "    "
                } else {
                    "  "
                };
                out.push_str(indent);
                out.push_str(&line(key, value));
            }
        }
    }
    out
}

/// A key and its value, with the end of the line.
pub(super) fn line(key: &str, value: &Value) -> String {
    format!("{} = {}\n", bare(key), literal(value))
}

fn heading(table: &str) -> String {
    table.split('/').map(bare).collect::<Vec<_>>().join(".")
}

/// A key, in quotes when it needs them.
fn bare(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !key.is_empty() && key.bytes().all(plain) { key.to_owned() } else { text(key) }
}

fn text(value: &str) -> String {
    if value.contains('\'') || value.chars().any(char::is_control) {
        return format!("\"{}\"", value.escape_default());
    }
    format!("'{value}'")
}

fn literal(value: &Value) -> String {
    match value {
        Value::Text(value) => text(value),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(truth) => truth.to_string(),
        Value::List(list) => format!("[{}]", list.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Table(table) => {
            let pairs: Vec<_> =
                table.iter().map(|(key, value)| format!("{} = {}", bare(key), literal(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::{defaults, load};
    use super::*;

    #[test]
    fn what_is_printed_reads_back_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let text = print(&defaults());
        assert!(
            text.starts_with("version = 4\nroot = '/var/lib/containerd'\nstate = '/run/containerd'\n"),
            "{text}"
        );
        std::fs::write(&path, text.replace("'/etc/containerd/conf.d/*.toml'", "")).unwrap();
        let loaded = load(&path, true).unwrap();
        assert_eq!(loaded.warnings, Vec::<String>::new());
        assert_eq!(loaded.values.get("", "root"), defaults().get("", "root"));
        let scheduler = "plugins/io.containerd.gc.v1.scheduler";
        assert_eq!(loaded.values.get(scheduler, "pause_threshold"), Some(&Value::Float(0.02)));
    }
}
