//! A layer that was applied without knowing what is below it, now put on its place.
//!
//! While the layers of an image are applied in parallel, each into a directory of its own, three things cannot be
//! known: what a directory without an entry of its own looks like below, which names an opaque root hides, and whether
//! there is anything below that a whiteout hides. Commit knows.
//!
//! Invariant: settling twice is settling once, so a crash before the record is written costs nothing.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use model::Cx;
use sys::path::at;
use sys::xattr;

use super::SnapshotError;
use crate::lower::{Lower, inherit};
use crate::marks::{Marks, is_whiteout, make_whiteout};
use crate::walk::{self, Entry};

/// Resolves the marks in the layer at `files` against `lower`.
pub(crate) fn settle(cx: &Cx<'_>, files: &Path, lower: &Lower) -> Result<(), SnapshotError> {
    let failed =
        |path: &Path, source| SnapshotError::Files { what: "settle", path: files.join(path), source };
    let top = at::open(at::here(), files.as_os_str(), libc::O_RDONLY | libc::O_DIRECTORY, 0)
        .map_err(|error| failed(Path::new(""), error))?;
    let mut settling = Settling { marks: Marks::here(), lower, opaque: HashSet::new() };
    walk::each_dir(top.as_fd(), failed, |path, dir, entries| {
        cx.check().map_err(SnapshotError::Stopped)?;
        settling.dir(path, dir, entries).map_err(|error| failed(path, error))
    })
}

struct Settling<'a> {
    marks: Marks,
    lower: &'a Lower,
    /// The layer's opaque directories met so far; parents come before children.
    opaque: HashSet<PathBuf>,
}

impl Settling<'_> {
    fn dir(&mut self, path: &Path, dir: BorrowedFd<'_>, entries: &[Entry]) -> sys::Result<()> {
        let (marks, lower) = (self.marks, self.lower);
        let attributes = xattr::list_fd(dir)?;
        let has = |name: &str| attributes.iter().any(|attribute| attribute.as_bytes() == name.as_bytes());
        let (is_root, is_opaque, is_implicit) =
            (path.as_os_str().is_empty(), has(marks.opaque), has(marks.implicit));
        let is_hidden = path.ancestors().skip(1).any(|above| self.opaque.contains(above));
        if is_opaque {
            self.opaque.insert(path.to_owned());
        }
        let has_whiteouts = entries.iter().any(|entry| is_whiteout(&entry.stat));
        let below =
            if is_hidden || !(is_implicit || has_whiteouts) { None } else { lower.directory(path)? };
        let is_merged = if is_root { !lower.is_empty() } else { below.is_some() && !is_opaque };
        if has_whiteouts && !is_merged {
            remove_whiteouts(dir, entries)?;
        }
        if is_root && is_opaque && !lower.is_empty() {
            hide_root(marks, dir, lower)?;
        }
        if is_opaque && (is_root || lower.is_empty()) {
            xattr::remove_fd(dir, OsStr::new(marks.opaque))?;
        }
        if is_implicit {
            if let Some(below) = below {
                inherit(below.as_fd(), dir)?;
            }
            xattr::remove_fd(dir, OsStr::new(marks.implicit))?;
        }
        Ok(())
    }
}

/// Removes the whiteouts in a directory that hide nothing.
///
/// Overlay lists a directory that is in one layer only as it is, whiteouts included, and a layer without any below is
/// bind mounted: there they would show.
pub(crate) fn remove_whiteouts(dir: BorrowedFd<'_>, entries: &[Entry]) -> sys::Result<()> {
    let mut removed = false;
    let stat = at::stat_fd(dir)?;
    for entry in entries.iter().filter(|entry| is_whiteout(&entry.stat)) {
        at::remove_file(dir, &entry.name)?;
        removed = true;
    }
    if removed {
        at::set_times_fd(dir, stat.atime, stat.mtime)?;
    }
    Ok(())
}

/// Overlay does not look for opacity in the root of a layer, so each name below is hidden by itself.
pub(crate) fn hide_root(marks: Marks, root: BorrowedFd<'_>, lower: &Lower) -> sys::Result<()> {
    let before = at::stat_fd(root)?;
    for name in lower.root_names()? {
        match at::stat(root, &name) {
            Err(error) if error.is(libc::ENOENT) => make_whiteout(root, &name)?,
            Err(error) => return Err(error),
            Ok(stat) if stat.is_dir() => {
                let dir = at::open(root, &name, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
                marks.set_opaque(dir.as_fd())?;
            }
            Ok(_) => {}
        }
    }
    at::set_times_fd(root, before.atime, before.mtime)
}
