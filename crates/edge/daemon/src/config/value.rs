//! Values of the configuration, and all of them by table and key.

use std::collections::BTreeMap;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `'text'`
    Text(String),
    /// `42`
    Integer(i64),
    /// `0.02`
    Float(f64),
    /// `true`
    Boolean(bool),
    /// `['a', 'b']`
    List(Vec<Value>),
    /// `{ a = 1 }` inside a list
    Table(BTreeMap<String, Value>),
}

impl Value {
    /// What it is, in TOML's words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Integer(_) => "integer",
            Self::Float(_) => "float",
            Self::Boolean(_) => "boolean",
            Self::List(_) => "array",
            Self::Table(_) => "table",
        }
    }

    /// The texts of a list; what is none is left out.
    pub fn texts(&self) -> Vec<String> {
        let Self::List(list) = self else { return Vec::new() };
        let text = |item: &Self| match item {
            Self::Text(text) => Some(text.clone()),
            _ => None,
        };
        list.iter().filter_map(text).collect()
    }

    /// Whether it is its type's zero, which an imported file cannot set (as in containerd).
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Integer(number) => *number == 0,
            Self::Float(number) => *number == 0.0,
            Self::Boolean(truth) => !truth,
            Self::List(list) => list.is_empty(),
            Self::Table(table) => table.is_empty(),
        }
    }
}

/// Every value that is set, by table (segments joined by `/`; empty for the top) and key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    by_key: BTreeMap<(String, String), Value>,
}

impl Values {
    /// The value of a key.
    pub fn get(&self, table: &str, key: &str) -> Option<&Value> {
        self.by_key.get(&(table.to_owned(), key.to_owned()))
    }

    /// Sets a key.
    pub fn set(&mut self, table: &str, key: &str, value: Value) {
        self.by_key.insert((table.to_owned(), key.to_owned()), value);
    }

    /// Every table with its keys, in order.
    pub fn tables(&self) -> BTreeMap<&str, BTreeMap<&str, &Value>> {
        let mut tables: BTreeMap<&str, BTreeMap<&str, &Value>> = BTreeMap::new();
        for ((table, key), value) in &self.by_key {
            tables.entry(table).or_default().insert(key, value);
        }
        tables
    }

    /// Takes in what an imported file sets: scalars replace unless they are zero, lists grow without doubles.
    pub fn merge(&mut self, other: Self) {
        for (key, value) in other.by_key {
            match (self.by_key.get_mut(&key), value) {
                (Some(Value::List(list)), Value::List(more)) => {
                    for item in more {
                        if !list.contains(&item) {
                            list.push(item);
                        }
                    }
                }
                (_, value) if value.is_zero() => {}
                (_, value) => {
                    self.by_key.insert(key, value);
                }
            }
        }
    }
}
