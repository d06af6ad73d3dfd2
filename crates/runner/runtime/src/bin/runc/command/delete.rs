//! `runc delete`.

use std::time::Duration;

use runtime::Container;
use spec::runtime::Status;
use spec::{Error, Kind, Result};

use super::{load, one_id, precondition, root, status};
use crate::args::{self, Global};

/// How long the end of a killed container may take.
const REMOVAL: Duration = Duration::from_secs(10);

/// Removes what a container holds.
pub fn delete(global: &Global, args: &args::Delete) -> Result<u8> {
    let id = one_id("delete", &args.args)?;
    let container = match load(global, id) {
        Ok(container) => container,
        Err(error) if error.kind() == Kind::NotFound => return remains(global, id, args.force, error),
        Err(error) if error.kind() == Kind::DataLoss && args.force => {
            Container::remove_damaged(&root(global)?, id, REMOVAL)?;
            return Ok(0);
        }
        Err(error) => return Err(error),
    };
    if !args.force {
        match status(global, id)? {
            Status::Stopped | Status::Created => {}
            other => {
                return Err(precondition(format!(
                    "cannot delete container {id} that is not stopped: {other}"
                )));
            }
        }
    }
    container.delete(true, REMOVAL)?;
    Ok(0)
}

/// A directory without a state file is what an interrupted create left.
fn remains(global: &Global, id: &str, force: bool, error: Error) -> Result<u8> {
    Container::remove_remains(&root(global)?, id)?;
    if force { Ok(0) } else { Err(error) }
}
