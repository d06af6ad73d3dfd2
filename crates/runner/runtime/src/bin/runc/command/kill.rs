//! `runc kill`.

use spec::runtime::Status;
use spec::{Result, error::Kind};

use super::{check_id, invalid, load, precondition, status, usage};
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
    if status(global, id)? == Status::Stopped {
        // Without a pid namespace of its own a container may outlive its init.
        return if args.all {
            container.kill(signal, true).or_else(|error| {
                use spec::HasKind;
                if error.kind() == Kind::FailedPrecondition { Ok(()) } else { Err(error) }
            })?;
            Ok(0)
        } else {
            Err(precondition("container not running"))
        };
    }
    container.kill(signal, args.all)?;
    Ok(0)
}
