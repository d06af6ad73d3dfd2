//! The mark of what a plugin takes away: `-` before its name.

/// `key`, marked as taken away.
pub fn removal(key: &str) -> String {
    format!("-{key}")
}

/// A key without its mark, and whether it had one.
pub fn split(key: &str) -> (&str, bool) {
    key.strip_prefix('-').map_or((key, false), |key| (key, true))
}

/// Whether a key is marked as taken away.
pub fn is_removal(key: &str) -> bool {
    key.starts_with('-')
}
