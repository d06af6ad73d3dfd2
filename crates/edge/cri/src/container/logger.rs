//! Writes a container's log for a shim that does not.

/// Writes a container's log for a shim that does not.
#[derive(Debug)]
pub struct Logger;
