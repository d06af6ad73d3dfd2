//! `delete`: what a daemon runs after a shim died, so that nothing of its container is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use api::Message;
use api::containerd::task::v3::DeleteResponse;
use spec::error::Error;

use super::socket;
use crate::args::Args;
use crate::process::timestamp;
use crate::{driver, log, options, rootfs};

/// The exit status of a container whose end nobody saw: killed.
const KILLED: u32 = 128 + 9;

/// Kills and deletes the container of the bundle and answers with a binary `DeleteResponse`.
///
/// What fails is logged and the rest goes on: the daemon calls this once.
///
/// # Errors
/// The bundle cannot be named.
pub fn delete(args: &Args) -> Result<Vec<u8>, Error> {
    let bundle = bundle(args)?;
    let options = options::load(&bundle);
    let mut driver = driver::open(&options, &args.namespace, &args.id, &bundle);
    if let Err(error) = driver::settle(driver.begin(driver::Call::Delete { force: true })) {
        log::warn(format_args!("failed to remove runc container: {error}"));
    }
    if let Err(error) = rootfs::unmount(&bundle.join("rootfs")) {
        log::warn(format_args!("failed to cleanup rootfs mount: {error}"));
    }
    if let Ok(address) = fs::read_to_string(bundle.join("address")) {
        socket::remove_dead(socket::path_of(address.trim()));
    }
    let pid = fs::read_to_string(bundle.join(driver::PID_FILE)).ok();
    let response = DeleteResponse {
        pid: pid.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
        exit_status: KILLED,
        exited_at: Some(timestamp(SystemTime::now())),
    };
    Ok(response.encode_to_vec())
}

/// The bundle of the container: named, or beside the working directory (which is the bundle of some container).
fn bundle(args: &Args) -> Result<PathBuf, Error> {
    spec::name::check_identifier(&args.id).map_err(Error::invalid)?;
    let current = std::env::current_dir().map_err(|error| Error::internal(format!("getwd: {error}")))?;
    match &args.bundle {
        Some(bundle) => Ok(current.join(bundle)),
        None => Ok(current.parent().unwrap_or(Path::new("/")).join(&args.id)),
    }
}
