//! The root file system: made a mount of its own, entered, sealed.

use std::os::fd::AsFd;
use std::path::Path;

use sys::mount::{self, Attributes, Change, Propagation};
use sys::namespace::Kind;
use sys::path::Root;
use sys::process;

use super::{Init, InitError, Step};
use crate::create::plan::Plan;

/// Cuts (or keeps, when asked) the ties to the host's mounts and binds the root file system onto itself. In a mount
/// namespace that is not the container's own nothing is cut, and the bind stays there, as runc leaves it.
///
/// What is returned stands on that bind; everything of the container is resolved below it.
pub(super) fn prepare(plan: &Plan) -> Result<Root, InitError> {
    if plan.namespaces.is_new(Kind::Mount) {
        let (propagation, recursive) = plan.propagation.unwrap_or((Propagation::Slave, true));
        mount::propagate_path(Path::new("/"), propagation, recursive)
            .step(|| "set propagation of /".into())?;
        if matches!(propagation, Propagation::Shared | Propagation::Unbindable) {
            part_from_parent(&plan.rootfs)?;
        }
    }
    let shown = || format!("rootfs {:?}", plan.rootfs);
    let below = Root::open_dir(&plan.rootfs).step(shown)?;
    let tree = mount::copy_fd(below.as_fd(), true).step(shown)?;
    mount::attach(tree.as_fd(), below.as_fd()).step(shown)?;
    Ok(Root::from_fd(tree))
}

/// Makes the mount that holds the root file system private: `pivot_root(2)` refuses a shared one, and an unbindable one
/// cannot be bound.
fn part_from_parent(rootfs: &Path) -> Result<(), InitError> {
    let real = std::fs::canonicalize(rootfs)
        .map_err(|error| InitError::text_only(format!("rootfs {rootfs:?}: {error}")))?;
    let table = mount::table::read().step(|| "read the mount table".into())?;
    let holder = table
        .iter()
        .filter(|entry| real.starts_with(&entry.target))
        .max_by_key(|entry| entry.target.components().count());
    match holder {
        Some(holder) => mount::propagate_path(&holder.target, Propagation::Private, false)
            .step(|| format!("make {:?} private", holder.target)),
        None => Ok(()),
    }
}

/// Makes `root` the root of this mount namespace and lets go of the old one.
pub(super) fn enter(init: &Init<'_>, root: Root) -> Result<Root, InitError> {
    process::change_dir(root.as_fd()).step(|| "enter the rootfs".into())?;
    if !init.plan.namespaces.is_new(Kind::Mount) {
        // In a mount namespace that others use too the root is this process's alone.
        process::root_here().step(|| "chroot".into())?;
    } else if init.no_pivot {
        move_root()?;
    } else {
        let old = Root::open_dir(Path::new("/")).step(|| "open /".into())?;
        mount::pivot_here().step(|| "pivot_root".into())?;
        // The old root now lies on top. Its mounts must not take the host's with them when they go.
        process::change_dir(old.as_fd()).step(|| "enter the old root".into())?;
        mount::propagate_path(Path::new("."), Propagation::Slave, true)
            .step(|| "part from the old root".into())?;
        mount::drop_old_root().step(|| "drop the old root".into())?;
    }
    process::change_dir_to(Path::new("/")).step(|| "enter /".into())?;
    Root::open_dir(Path::new("/")).step(|| "open /".into())
}

/// For hosts whose root cannot be pivoted: every other mount is hidden below the moved one.
fn move_root() -> Result<(), InitError> {
    // What the container could still reach through open files of procfs and sysfs goes away first.
    let table = mount::table::read().step(|| "read the mount table".into())?;
    let here = process::current_dir().step(|| "getcwd".into())?;
    let here = Path::new(std::str::from_utf8(here.as_bytes()).unwrap_or("/"));
    for entry in table.iter().rev() {
        let exposed = entry.file_system == "proc" || entry.file_system == "sysfs";
        if exposed && !entry.target.starts_with(here) {
            // Not all can go (a user namespace locks its inherited mounts); those are covered by the move.
            let _ = mount::detach(&entry.target);
        }
    }
    mount::move_here_to_root().step(|| "move the rootfs to /".into())?;
    process::root_here().step(|| "chroot".into())
}

/// The current directory of the process, the root's propagation, and its write protection.
pub(super) fn finish(plan: &Plan, root: &Root) -> Result<(), InitError> {
    if plan.process.cwd != Path::new("/") {
        // As runc does: a missing directory is made; whether the process may enter it is found out later.
        root.make_dirs(&plan.process.cwd, 0o755).step(|| format!("make cwd {:?}", plan.process.cwd))?;
    }
    if let Some((propagation, recursive)) = plan.propagation {
        let change = Change { propagation: Some(propagation), ..Change::default() };
        mount::change(root.as_fd(), change, recursive).step(|| "set rootfs propagation".into())?;
    }
    if plan.readonly_rootfs {
        let change = Change { set: Attributes::RDONLY, ..Change::default() };
        mount::change(root.as_fd(), change, false).step(|| "make the rootfs read-only".into())?;
    }
    Ok(())
}
