//! The pod's network namespace: opened, never mistaken for the host's.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;
use sys::namespace::Kind;

use crate::cni::{Call, Error, code};

/// Opens the namespace of a call that needs it.
pub fn open(call: &Call) -> Result<OwnedFd, Error> {
    let Some(path) = &call.netns else {
        return Err(Error::new(code::INVALID_NETNS, "required env variables [CNI_NETNS] missing"));
    };
    let netns = sys::namespace::open(path, Kind::Network).map_err(|error| {
        Error::new(code::INVALID_NETNS, format!("failed to open netns {path:?}: {error}"))
    })?;
    other_than_ours(&netns, path)?;
    Ok(netns)
}

/// Opens the namespace of a `DEL`; `None` when it is gone, or when what stands at its path is no namespace any more.
pub fn open_if_there(call: &Call) -> Result<Option<OwnedFd>, Error> {
    let Some(path) = &call.netns else { return Ok(None) };
    match sys::namespace::open(path, Kind::Network) {
        Ok(netns) => other_than_ours(&netns, path).map(|()| Some(netns)),
        Err(error) => {
            let gone = [Errno::NOENT, Errno::NOTDIR, Errno::NXIO, Errno::NOTTY, Errno::INVAL, Errno::SRCH];
            if gone.iter().any(|errno| error.is(errno.raw_os_error())) {
                return Ok(None);
            }
            Err(Error::new(code::INVALID_NETNS, format!("failed to open netns {path:?}: {error}")))
        }
    }
}

/// Refuses the namespace that this thread is in: an `ADD` would reconfigure the host, a `DEL` delete its interfaces.
fn other_than_ours(netns: &OwnedFd, path: &Path) -> Result<(), Error> {
    let identity = |file: std::io::Result<File>| {
        file.and_then(|file| file.metadata()).map(|data| (data.dev(), data.ino())).map_err(Error::io)
    };
    let theirs = identity(netns.as_fd().try_clone_to_owned().map(File::from))?;
    let ours = identity(File::open("/proc/thread-self/ns/net"))?;
    if theirs == ours {
        let text = "plugin's netns and netns from CNI_NETNS should not be the same";
        return Err(Error::new(code::INVALID_NETNS, text).with_details(path.display()));
    }
    Ok(())
}
