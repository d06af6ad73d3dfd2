//! Where a mount goes: made when it is missing, and refused where it would hide the kernel from the runtime.
//!
//! Invariant: nothing is mounted inside the container's `/proc`, whatever its type and however the image's links lead
//! there, but for the files that monitors replace: the runtime writes labels and settings through it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use sys::mount::{self, PROC_MAGIC};
use sys::path::{Access, Root, at};

use super::{InitError, Step};
use crate::create::plan::{Mount, MountKind};

/// Files of procfs that may be covered: system monitors show container values there. Those that are behind a link
/// (`net/dev`) are not among them, since what is mounted on them has no effect.
const PROC_FILES: [&str; 10] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

/// The place of a bind of `tree`: a directory or a file, as `tree` is.
pub(super) fn for_bind(wanted: &Mount, tree: BorrowedFd<'_>, root: &Root) -> Result<OwnedFd, InitError> {
    let stat = at::stat_fd(tree).step(|| format!("stat {:?}", wanted.source))?;
    let target = if stat.is_dir() {
        root.make_dirs(&wanted.target, 0o755)
    } else {
        root.make_file(&wanted.target, 0o644, 0o755)
    };
    let target = target.step(|| format!("make mountpoint {:?}", wanted.target))?;
    if at_proc(target.as_fd(), root)? == Place::Proc {
        let magic = mount::file_system_magic(tree).step(|| format!("statfs {:?}", wanted.source))?;
        return if magic == PROC_MAGIC { Ok(target) } else { Err(not_proc(wanted)) };
    }
    check(wanted, target.as_fd(), root)?;
    Ok(target)
}

/// The directory that a file system is mounted on.
pub(super) fn directory(wanted: &Mount, root: &Root) -> Result<OwnedFd, InitError> {
    let target =
        root.make_dirs(&wanted.target, 0o755).step(|| format!("make mountpoint {:?}", wanted.target))?;
    check(wanted, target.as_fd(), root)?;
    Ok(target)
}

/// Refuses `target` for what is not a bind when it is the root, or in `/proc`.
pub(super) fn check(wanted: &Mount, target: BorrowedFd<'_>, root: &Root) -> Result<(), InitError> {
    let is_procfs = wanted.kind == MountKind::FileSystem && wanted.file_system == "proc";
    match at_proc(target, root)? {
        Place::Elsewhere => Ok(()),
        Place::Proc if is_procfs => Ok(()),
        Place::Proc => Err(not_proc(wanted)),
        Place::InProc => Err(InitError::text_only(format!(
            "{:?} cannot be mounted because it is inside /proc",
            wanted.target
        ))),
        Place::Root => {
            Err(InitError::text_only(format!("mountpoint {:?} is on the top of rootfs", wanted.target)))
        }
    }
}

fn not_proc(wanted: &Mount) -> InitError {
    InitError::text_only(format!("{:?} cannot be mounted because it is not of type proc", wanted.target))
}

/// Where a mount would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On the root itself.
    Root,
    /// On `/proc` itself.
    Proc,
    /// On something in `/proc` that must stay visible.
    InProc,
    /// On anything else.
    Elsewhere,
}

fn at_proc(target: BorrowedFd<'_>, root: &Root) -> Result<Place, InitError> {
    // By where the kernel shows the object: the path of the document may have led through links.
    Ok(place(&root.locate(target).step(|| "locate the mountpoint".into())?))
}

/// The place that `path`, below the root and free of links, is.
fn place(path: &Path) -> Place {
    if path == Path::new("") {
        return Place::Root;
    }
    match path.strip_prefix("proc") {
        Err(_) => Place::Elsewhere,
        Ok(below) if below == Path::new("") => Place::Proc,
        Ok(below) if PROC_FILES.iter().any(|allowed| Path::new(allowed) == below) => Place::Elsewhere,
        Ok(_) => Place::InProc,
    }
}

/// Opens the directory `path`, which must be reached without any link.
pub(super) fn plain_dir(root: &Root, path: &Path) -> Result<OwnedFd, InitError> {
    let clean = sys::path::clean(path);
    let refuse = || InitError::text_only(format!("{path:?} must be mounted on ordinary directory"));
    // Looked at first: what a link names must not be made.
    if let Ok(found) = root.open_link(&clean)
        && !at::stat_fd(found.as_fd()).step(|| format!("stat {path:?}"))?.is_dir()
    {
        return Err(refuse());
    }
    drop(root.make_dirs(&clean, 0o755).step(|| format!("make {path:?}"))?);
    let dir = root
        .open_without_links(&clean, Access::Handle)
        .step(|| format!("{path:?} must be mounted on ordinary directory"))?;
    match at::stat_fd(dir.as_fd()).step(|| format!("stat {path:?}"))?.is_dir() {
        true => Ok(dir),
        false => Err(refuse()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_monitors_replace_are_covered_in_proc() {
        for (path, expected) in [
            ("", Place::Root),
            ("proc", Place::Proc),
            ("proc/sys", Place::InProc),
            ("proc/self/attr", Place::InProc),
            ("proc/net/dev", Place::InProc),
            ("proc/7/net/dev", Place::InProc),
            ("proc/cpuinfo", Place::Elsewhere),
            ("proc/sys/kernel/ns_last_pid", Place::Elsewhere),
            ("processes", Place::Elsewhere),
            ("data/proc/sys", Place::Elsewhere),
        ] {
            assert_eq!(place(Path::new(path)), expected, "{path}");
        }
    }
}
