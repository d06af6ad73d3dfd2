//! The kubelet's log of a container, written by the shim itself: it goes on, whatever becomes of the daemon.
//!
//! A line is `2026-11-21T10:00:00.000000000Z stdout F text`: when it was read (UTC, never earlier than the line before
//! it), the stream, the tag, the text. Tag `F` is a whole line or the last part of one; `P` is a part that goes on in
//! the next line of the same stream, and also what stood without a newline at the end of the output.
//!
//! Invariant: a log never holds up the container: what cannot be written is counted, dropped and told on the shim's
//! log.

mod file;
mod lines;
mod stamp;

pub use file::{LogFile, MAX_PATH};
pub use lines::{Lines, Stream};
