//! `berth.shim.v1.Stdio`: rotation of logs that the shim writes, and listeners to their outputs.

use std::os::fd::OwnedFd;
use std::path::Path;

use api::berth::shim::v1::{AttachRequest, ReopenRequest};
use rustix::fs::{FileType, Mode, OFlags};
use spec::error::{Error, Kind};

use super::{Method, decode, empty};
use crate::serve::Shim;
use crate::stdio::Stream;

/// The name of the service.
pub const SERVICE: &str = "berth.shim.v1.Stdio";

/// The word by which a shim says that it has the service: a key of metadata and annotations.
pub const CAPABILITY: &str = "berth.stdio";

/// Finds a method of the service.
///
/// # Errors
/// There is no such method.
pub fn method(method: &str) -> Result<Method, Error> {
    Ok(match method {
        "Probe" => Method::Probe,
        "Reopen" => Method::Reopen,
        "Attach" => Method::Attach,
        other => return Err(Error::new(Kind::Unimplemented, format!("method {other}"))),
    })
}

fn no_log(id: &str) -> Error {
    Error::failed_precondition(format!("the output of {id} goes to no log of the shim"))
}

impl Shim {
    /// Goes on in a new file after a rotation.
    pub(super) fn reopen_log(&mut self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let request: ReopenRequest = decode(payload)?;
        let process = self.process(&request.id, &request.exec_id)?;
        let log = process.log.as_mut().ok_or_else(|| no_log(&request.id))?;
        log.reopen().map_err(|error| {
            let kind = Kind::from_errno(error.raw_os_error().unwrap_or(0));
            Error::new(kind, format!("failed to open log file {:?}: {error}", log.path()))
        })?;
        Ok(empty())
    }

    /// Lets somebody hear what a process writes from now on.
    pub(super) fn attach_listener(&mut self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let request: AttachRequest = decode(payload)?;
        let process = self.process(&request.id, &request.exec_id)?;
        if process.log.is_none() {
            return Err(no_log(&request.id));
        }
        if process.exit().is_some() {
            return Err(Error::failed_precondition("cannot attach to a stopped process"));
        }
        // All are open before any is given away: half an attachment would be worse than none.
        let stdin = fifo(&request.stdin, OFlags::RDONLY)?;
        // Ours is the write end alone, so that the reader's leaving is seen.
        let stdout = fifo(&request.stdout, OFlags::WRONLY)?;
        let stderr = fifo(&request.stderr, OFlags::WRONLY)?;
        if let Some(fifo) = stdin {
            self.feed(&request.id, &request.exec_id, fifo)?;
        }
        for (stream, fifo) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
            if let Some(fifo) = fifo {
                self.listen(&request.id, &request.exec_id, stream, fifo)?;
            }
        }
        Ok(empty())
    }
}

/// Opens a FIFO whose other end is open.
fn fifo(path: &str, access: OFlags) -> Result<Option<OwnedFd>, Error> {
    if path.is_empty() {
        return Ok(None);
    }
    if !Path::new(path).is_absolute() {
        return Err(Error::invalid(format_args!("path {path:?}")));
    }
    let flags = access | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let failed = |errno: rustix::io::Errno| Error::new(Kind::Unknown, format!("opening {path:?}: {errno}"));
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
    let stat = rustix::fs::fstat(&fd).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
        return Err(Error::invalid(format_args!("{path:?}, which is no FIFO")));
    }
    Ok(Some(fd))
}
