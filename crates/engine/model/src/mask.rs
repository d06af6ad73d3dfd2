//! Field masks: which parts of a record an update replaces.

use std::collections::BTreeMap;

/// The paths of a `google.protobuf.FieldMask`; empty means every field that may change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    paths: Vec<String>,
}

impl Mask {
    /// A mask of these paths.
    pub fn new(paths: impl IntoIterator<Item = String>) -> Self {
        Self { paths: paths.into_iter().collect() }
    }

    /// The mask that names every field.
    pub fn all() -> Self {
        Self::default()
    }

    /// Whether it names every field.
    pub fn is_all(&self) -> bool {
        self.paths.is_empty()
    }

    /// The paths, as written.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }
}

/// Sets `key` of `stored` to what `wanted` has; an absent or empty label value deletes it.
pub fn set_label(stored: &mut BTreeMap<String, String>, wanted: &BTreeMap<String, String>, key: &str) {
    match wanted.get(key) {
        Some(value) if !value.is_empty() => {
            stored.insert(key.to_owned(), value.clone());
        }
        _ => {
            stored.remove(key);
        }
    }
}
