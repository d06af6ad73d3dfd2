//! `runc kill`.

use runtime::container::ContainerError;
use spec::{HasKind, Kind, Result};

use super::{check_id, invalid, load, precondition, usage};
use crate::args::{self, Global};

/// Sends a signal to init, or to every process.
pub fn kill(global: &Global, args: &args::Kill) -> Result<u8> {
    let (id, signal) = match args.args.as_slice() {
        [id] => (check_id(id)?, "SIGTERM"),
        [id, signal] => (check_id(id)?, if signal.is_empty() { "SIGTERM" } else { signal.as_str() }),
        [] => return Err(usage("kill", "a minimum of 1")),
        _ => return Err(usage("kill", "a maximum of 2")),
    };
    let container = load(global, id)?;
    let signal = sys::signal::parse(signal).ok_or_else(|| invalid(format!("unknown signal {signal:?}")))?;
    match container.kill(signal, args.all) {
        // Without a pid namespace of its own a container may outlive its init; then there is something to kill.
        Err(ContainerError::NotRunning) => Err(precondition("container not running")),
        Err(error) if args.all && error.kind() == Kind::FailedPrecondition => Ok(0),
        done => Ok(done.map(|()| 0)?),
    }
}
