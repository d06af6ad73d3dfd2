//! JSON as Go's `json.MarshalIndent` with four spaces prints it, as every `info` command does.

use std::io;

use serde::Serialize;

/// The text of `value`, indented by four spaces.
pub fn text(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    if value.serialize(&mut serializer).is_err() {
        return String::new(); // a Vec does not fail, and what we print has string keys only
    }
    String::from_utf8(bytes).unwrap_or_default()
}

/// Prints `value`.
///
/// # Errors
/// Standard output is closed.
pub fn print(value: &impl Serialize) -> io::Result<()> {
    super::line(text(value))
}
