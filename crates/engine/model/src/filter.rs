//! Filters: containerd's grammar for choosing records. (The parser lands with the store.)

use spec::Labels;

/// A record whose fields a filter can name.
pub trait Fields {
    /// The value at `path`, or nothing when the record has no such field.
    fn field(&self, path: &[&str]) -> Option<&str>;
}

/// The label whose key is `path`; a key with dots may arrive in one piece or in several.
pub fn label<'a>(labels: &'a Labels, path: &[&str]) -> Option<&'a str> {
    labels.get(&path.join(".")).map(String::as_str)
}

/// Filters joined by "or"; none at all passes everything.
#[derive(Clone, Debug, Default)]
pub struct Filters {}
