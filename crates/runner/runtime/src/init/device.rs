//! Device nodes and the usual links of `/dev`.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use sys::mount;
use sys::path::{Root, at};

use super::mount::Mounted;
use super::mountpoint::plain_dir;
use super::{InitError, Step};
use crate::create::plan::{DEFAULT_LINKS, Device, Plan};

const EPERM: i32 = 1;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;

/// Fills the container's own `/dev`; one that is bound from elsewhere is left alone.
pub(super) fn all(plan: &Plan, root: &Root, mounted: &Mounted) -> Result<(), InitError> {
    if !plan.own_dev {
        return Ok(());
    }
    // By the mount's own descriptor where there is one: what lies at the path /dev is the image's business.
    let found;
    let dev = match mounted.dev() {
        Some(dev) => dev,
        None => {
            found = plain_dir(root, Path::new("/dev"))?;
            found.as_fd()
        }
    };
    for device in &plan.devices {
        one(device, root, dev)
            .map_err(|error| error.context(format!("error creating device {:?}", device.path)))?;
    }
    for (name, text) in DEFAULT_LINKS {
        link(dev, name, text)?;
    }
    if Path::new("/proc/kcore").exists() {
        link(dev, "core", "/proc/kcore")?;
    }
    Ok(())
}

fn one(device: &Device, root: &Root, dev: BorrowedFd<'_>) -> Result<(), InitError> {
    let elsewhere: OwnedFd;
    let inside = device.path.strip_prefix("/dev").unwrap_or(&device.path);
    let Some(name) = inside.file_name() else {
        return Err(InitError::text_only(format!("{:?} is not a name", device.path)));
    };
    // The pty multiplexer is a link into the container's own devpts.
    if device.path == Path::new("/dev/ptmx") {
        return Ok(());
    }
    let parent = match inside.parent() {
        Some(parent) if device.path.starts_with("/dev") && parent == Path::new("") => dev,
        _ => {
            let parent = device.path.parent().unwrap_or(Path::new("/"));
            elsewhere = root.make_dirs(parent, 0o755).step(|| format!("make {parent:?}"))?;
            elsewhere.as_fd()
        }
    };
    match at::make_node(parent, name, device.mode, device.rdev) {
        Ok(()) if device.owner == (0, 0) => Ok(()),
        Ok(()) => at::chown(parent, name, device.owner.0, device.owner.1).step(|| "chown".into()),
        Err(error) if error.is(EEXIST) => Ok(()),
        // No right to make nodes here (a user namespace): bind the host's.
        Err(error) if error.is(EPERM) => bind(device, parent, name),
        Err(error) => Err(error).step(|| "mknod".into()),
    }
}

/// Binds the host's node of the same path, if it is the same device.
fn bind(device: &Device, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), InitError> {
    let tree = mount::copy(at::here(), &device.path, false).step(|| "bind from the host".into())?;
    let stat = at::stat_fd(tree.as_fd()).step(|| "stat".into())?;
    if stat.rdev != device.rdev || stat.mode & S_IFMT != device.mode & S_IFMT {
        return Err(InitError::text_only("the host's node is another device"));
    }
    match at::make_file(parent, name, 0o644) {
        Err(error) if !error.is(EEXIST) => return Err(error).step(|| "make mountpoint".into()),
        _ => {}
    }
    let target = at::open(parent, name, O_PATH, 0).step(|| "open mountpoint".into())?;
    mount::attach(tree.as_fd(), target.as_fd()).step(|| "attach".into())
}

const S_IFMT: u32 = 0o170_000;
const O_PATH: i32 = 0o10_000_000;

/// Makes a link; one that exists (the image may bring its own `/dev`) is replaced if it reads otherwise.
fn link(dev: BorrowedFd<'_>, name: &str, text: &str) -> Result<(), InitError> {
    let name = OsStr::new(name);
    let make = || at::make_link(Path::new(text), dev, name);
    match make() {
        Err(error) if error.is(EEXIST) => {
            match at::read_link(dev, name) {
                Ok(found) if found == text => return Ok(()),
                Err(error) if !error.is(EINVAL) => return Err(error).step(|| format!("read link {name:?}")),
                _ => {}
            }
            at::remove_file(dev, name).and_then(|()| make()).step(|| format!("replace {name:?}"))
        }
        done => done.step(|| format!("link {name:?}")),
    }
}
