//! One file: its entries with their lines, and what can be wrong with it.

use std::io;
use std::path::{Path, PathBuf};

use spec::{HasKind, Kind};
use toml::de::{DeTable, DeValue};

use super::value::Value;

/// The longest configuration file, in bytes.
pub const MAX_FILE: u64 = 4 << 20;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is no TOML.
    #[error("{}:{line}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What the parser said.
        reason: String,
    },
    /// A value is of another type than its key.
    #[error("{}:{line}: {key} must be a {wanted}, not a {found}", path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The key with its table.
        key: String,
        /// The type it has.
        wanted: &'static str,
        /// The type that was written.
        found: &'static str,
    },
    /// A value is of the right type and means nothing.
    #[error("{key}: {reason}")]
    Value {
        /// The key with its table.
        key: String,
        /// Why.
        reason: String,
    },
    /// A version that nobody knows, or newer than the file that imports it.
    #[error("{}: {reason}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl HasKind for ConfigError {
    fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } => Kind::from_errno(source.raw_os_error().unwrap_or(0)),
            Self::Syntax { .. } | Self::Type { .. } | Self::Value { .. } | Self::Version { .. } => {
                Kind::InvalidArgument
            }
        }
    }
}

/// One key as a file has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its table, as names.
    pub table: Vec<String>,
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Its line, from 1.
    pub line: usize,
}

/// Reads the text of the file `path`.
///
/// # Errors
/// [`ConfigError::Syntax`], with its line.
pub fn entries(path: &Path, text: &str) -> Result<Vec<Entry>, ConfigError> {
    let lines = Lines(text);
    let parsed = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.into(),
        line: error.span().map_or(1, |span| lines.of(span.start)),
        reason: error.message().trim().to_owned(),
    })?;
    let mut entries = Vec::new();
    collect(parsed.get_ref(), &mut Vec::new(), &lines, &mut entries);
    Ok(entries)
}

struct Lines<'a>(&'a str);

impl Lines<'_> {
    fn of(&self, offset: usize) -> usize {
        1 + self.0.as_bytes()[..offset.min(self.0.len())].iter().filter(|byte| **byte == b'\n').count()
    }
}

fn collect(table: &DeTable<'_>, path: &mut Vec<String>, lines: &Lines<'_>, entries: &mut Vec<Entry>) {
    for (key, value) in table {
        let name = key.get_ref().to_string();
        match value.get_ref() {
            DeValue::Table(below) => {
                path.push(name);
                collect(below, path, lines, entries);
                path.pop();
            }
            other => entries.push(Entry {
                table: path.clone(),
                key: name,
                value: convert(other),
                line: lines.of(key.span().start),
            }),
        }
    }
}

fn convert(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        // A number that does not fit is kept as its text, which no numeric key admits.
        DeValue::Integer(number) => i64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
            .map_or_else(|_| Value::Text(number.as_str().into()), Value::Integer),
        DeValue::Float(number) => number
            .as_str()
            .replace('_', "")
            .parse()
            .map_or_else(|_| Value::Text(number.as_str().into()), Value::Float),
        DeValue::Boolean(truth) => Value::Boolean(*truth),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(list) => Value::List(list.iter().map(|item| convert(item.get_ref())).collect()),
        DeValue::Table(table) => Value::Table(
            table.iter().map(|(key, value)| (key.get_ref().to_string(), convert(value.get_ref()))).collect(),
        ),
    }
}
