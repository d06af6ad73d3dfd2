//! Paths of the container that are hidden or write-protected.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use sys::mount::fstab::{self, Options};
use sys::mount::{self, Attributes, Context};
use sys::path::{Access, Root, at};

use super::mount::attach_copy;
use super::{InitError, Step};
use crate::create::plan::Plan;

const ENOENT: i32 = 2;
const ENOTDIR: i32 = 20;

/// A mount that is attached in several places: itself first, copies of it afterwards.
///
/// Kernels before 6.15 copy only what is attached somewhere in the caller's namespace.
#[derive(Debug)]
struct Cover {
    tree: OwnedFd,
    used: bool,
    /// How it is protected.
    options: Options,
}

impl Cover {
    fn attach(&mut self, target: BorrowedFd<'_>) -> Result<(), sys::Error> {
        if self.used {
            // A copy keeps the attributes of what is attached already.
            return mount::attach(mount::copy_fd(self.tree.as_fd(), false)?.as_fd(), target);
        }
        self.used = true;
        fstab::prepare(self.tree.as_fd(), &self.options)?;
        mount::attach(self.tree.as_fd(), target)?;
        fstab::settle(self.tree.as_fd(), &self.options)
    }
}

/// What hidden things look like.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    /// Files: a null device.
    null: Option<Cover>,
    /// Directories: an empty read-only file system.
    empty: Option<Cover>,
}

impl Hidden {
    /// Takes a null device, when the plan hides anything. To be called while the host's root is still there.
    ///
    /// The container's own one, so that a `chmod(2)` of a hidden file never meets the host's node. It comes from the
    /// descriptor of the `/dev` made just now and is checked all the same (CVE-2025-31133); where `/dev` is not ours
    /// the host's node serves, write-protected.
    pub(super) fn new(plan: &Plan, dev: Option<BorrowedFd<'_>>) -> Result<Self, InitError> {
        if plan.masked_paths.is_empty() {
            return Ok(Self::default());
        }
        let (null, set) = match dev.and_then(own_null) {
            Some(null) => (null, Attributes::NONE),
            None => (sys::fd::null().step(|| "open /dev/null".into())?, Attributes::RDONLY),
        };
        let tree = mount::copy_fd(null.as_fd(), false).step(|| "bind /dev/null".into())?;
        let options = Options { set, ..Options::default() };
        Ok(Self { null: Some(Cover { tree, used: false, options }), empty: None })
    }

    fn empty(&mut self) -> Result<&mut Cover, sys::Error> {
        if self.empty.is_none() {
            let attributes = Attributes::RDONLY | Attributes::NOSUID | Attributes::NODEV | Attributes::NOEXEC;
            let context = Context::open("tmpfs")?;
            context.set("source", OsStr::new("tmpfs"))?;
            let tree = context.mount(attributes)?;
            self.empty = Some(Cover { tree, used: false, options: Options::default() });
        }
        self.empty.as_mut().ok_or_else(|| sys::Error::new(ENOENT, "fsmount(tmpfs)"))
    }
}

/// The null device of the directory `dev`, if it is one.
fn own_null(dev: BorrowedFd<'_>) -> Option<OwnedFd> {
    const O_PATH: i32 = 0o10_000_000;
    let null = at::open(dev, OsStr::new("null"), O_PATH, 0).ok()?;
    at::stat_fd(null.as_fd()).is_ok_and(|stat| stat.is_device(1, 3)).then_some(null)
}

/// Hides and protects what the plan lists. A path that does not exist needs neither.
pub(super) fn all(plan: &Plan, root: &Root, mut hidden: Hidden) -> Result<(), InitError> {
    for path in &plan.readonly_paths {
        protect(path, root).map_err(|error| error.context(format!("readonly path {path:?}")))?;
    }
    for path in &plan.masked_paths {
        hide(path, root, &mut hidden).map_err(|error| error.context(format!("masked path {path:?}")))?;
    }
    Ok(())
}

fn open(path: &Path, root: &Root) -> Result<Option<OwnedFd>, InitError> {
    match root.open(path, Access::Handle) {
        Err(error) if error.is(ENOENT) || error.is(ENOTDIR) => Ok(None),
        done => done.map(Some).step(|| "open".into()),
    }
}

fn protect(path: &Path, root: &Root) -> Result<(), InitError> {
    let Some(target) = open(path, root)? else { return Ok(()) };
    let tree = mount::copy_fd(target.as_fd(), true).step(|| "bind".into())?;
    let options = Options { set: Attributes::RDONLY, ..Options::default() };
    attach_copy(tree.as_fd(), target.as_fd(), &options)
}

/// Covers a directory with the empty file system, anything else with the null device.
fn hide(path: &Path, root: &Root, hidden: &mut Hidden) -> Result<(), InitError> {
    let Some(target) = open(path, root)? else { return Ok(()) };
    let is_dir = at::stat_fd(target.as_fd()).step(|| "stat".into())?.is_dir();
    let cover = match (is_dir, &mut hidden.null) {
        (false, Some(null)) => null,
        _ => hidden.empty().step(|| "mount tmpfs".into())?,
    };
    cover.attach(target.as_fd()).step(|| "attach".into())
}
