//! Paths of the container that are hidden or write-protected.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use sys::mount::{self, Attributes, Change, Context};
use sys::path::{Access, Root, at};

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
}

impl Cover {
    fn attach(&mut self, target: BorrowedFd<'_>) -> Result<(), sys::Error> {
        if self.used {
            return mount::attach(mount::copy_fd(self.tree.as_fd(), false)?.as_fd(), target);
        }
        self.used = true;
        mount::attach(self.tree.as_fd(), target)
    }
}

/// What hidden things look like.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    /// Files: the host's null device, taken before the image could have a say (CVE-2025-31133).
    null: Option<Cover>,
    /// Directories: an empty read-only file system.
    empty: Option<Cover>,
}

impl Hidden {
    /// Takes the host's null device, when the plan hides anything. To be called while the host's root is still there.
    pub(super) fn new(plan: &Plan) -> Result<Self, InitError> {
        if plan.masked_paths.is_empty() {
            return Ok(Self::default());
        }
        let null = sys::fd::null().and_then(|null| mount::copy_fd(null.as_fd(), false));
        let tree = null.step(|| "bind /dev/null".into())?;
        Ok(Self { null: Some(Cover { tree, used: false }), empty: None })
    }

    fn empty(&mut self) -> Result<&mut Cover, sys::Error> {
        if self.empty.is_none() {
            let attributes = Attributes::RDONLY | Attributes::NOSUID | Attributes::NODEV | Attributes::NOEXEC;
            let tree = Context::open("tmpfs")?.mount(attributes)?;
            self.empty = Some(Cover { tree, used: false });
        }
        self.empty.as_mut().ok_or_else(|| sys::Error::new(ENOENT, "fsmount(tmpfs)"))
    }
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
    let change = Change { set: Attributes::RDONLY, ..Change::default() };
    mount::change(tree.as_fd(), change, false).step(|| "make read-only".into())?;
    mount::attach(tree.as_fd(), target.as_fd()).step(|| "attach".into())
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
