//! The shim's log: lines on standard error, which is the bundle's `log` FIFO while the shim serves.
//!
//! Invariant: a log line never blocks and never fails; when nobody reads and the pipe is full it is dropped.

use std::fmt;

/// Writes a line about something that went wrong and was handled.
pub fn warn(text: fmt::Arguments<'_>) {
    line("warning", text);
}

/// Writes a line about something lost.
pub fn error(text: fmt::Arguments<'_>) {
    line("error", text);
}

/// Writes a line without level, for a command that ends.
pub fn plain(text: fmt::Arguments<'_>) {
    put(&format!("{text}\n"));
}

fn line(level: &str, text: fmt::Arguments<'_>) {
    put(&format!("level={level} msg={:?} runtime=io.containerd.runc.v2\n", text.to_string()));
}

/// One write(2): shorter than PIPE_BUF in practice, so lines of several shims do not mix.
fn put(text: &str) {
    // Whatever goes wrong here, there is nowhere left to tell.
    let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
}
