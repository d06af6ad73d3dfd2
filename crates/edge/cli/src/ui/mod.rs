//! The only code that prints: tables, sizes, times, progress, JSON.
//!
//! Invariant: standard output is data and standard error is talk; both read well without colour.

pub mod json;
pub mod progress;
pub mod quantity;
pub mod screen;
pub mod table;

use std::io::{self, Write};

pub use table::Table;

/// Prints one line of data.
///
/// # Errors
/// Standard output is closed.
pub fn line(text: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

/// Says something that is not data, such as a warning.
pub fn say(text: impl std::fmt::Display) {
    // When standard error is closed there is nobody left to tell.
    let _closed = writeln!(io::stderr(), "{text}");
}
