//! Deletions: of one name, or of everything that the layers below have in a directory.
//!
//! In a stacked layer they are overlay's own marks. In a merged tree they delete, and spare what the same layer has
//! written, whichever came first: a deletion speaks of the layers below only.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use sys::path::at::{self, Stat};

use super::ApplyError;
use super::metadata::{Step, step};
use super::parents::Parent;
use super::target::{Style, Target};
use crate::marks::{is_whiteout, make_whiteout};
use crate::walk;

impl Target {
    /// Deletes `name` as the layers below have it.
    pub(super) fn delete(&mut self, parent: &Parent, name: &OsStr) -> Step {
        let path = parent.path.join(name);
        let dir = parent.fd.as_fd();
        let kept = step("delete", prune(dir, name, &path, &|path, stat| self.is_own(path, stat)))?;
        self.parents.forget();
        if kept.is_none() {
            self.forget_implicit(&path);
        }
        let Style::Stacked { marks, .. } = &self.style else { return Ok(()) };
        match kept {
            None => {
                self.whitened.insert(parent.path.clone());
                step("write the whiteout", make_whiteout(dir, name))
            }
            Some(stat) if stat.is_dir() => {
                let opened = step("open it", at::open(dir, name, libc::O_RDONLY | libc::O_DIRECTORY, 0))?;
                step("make it opaque", marks.set_opaque(opened.as_fd()))?;
                self.opaque.insert(path);
                Ok(())
            }
            // This layer's own file hides the name below by itself.
            Some(_) => Ok(()),
        }
    }

    /// A directory that is gone inherits nothing, should its name come back.
    fn forget_implicit(&mut self, path: &Path) {
        let below = self.implicit.range(path.to_owned()..).map(|(inner, _)| inner);
        let gone: Vec<_> = below.take_while(|inner| inner.starts_with(path)).cloned().collect();
        for inner in gone {
            self.implicit.remove(&inner);
        }
    }

    /// Deletes everything that the layers below have in a directory.
    pub(super) fn make_opaque(&mut self, parent: &Parent) -> Step {
        let dir = parent.fd.as_fd();
        for entry in step("list", walk::list(dir))? {
            let path = parent.path.join(&entry.name);
            step("delete", prune(dir, &entry.name, &path, &|path, stat| self.is_own(path, stat)))?;
        }
        self.parents.forget();
        if let Style::Stacked { marks, .. } = &self.style {
            step("make it opaque", marks.set_opaque(dir))?;
            self.opaque.insert(parent.path.clone());
        }
        Ok(())
    }

    /// Whether a deletion spares an object because this layer wrote it. A directory that no entry named is worth what
    /// is in it.
    fn is_own(&self, path: &Path, stat: &Stat) -> bool {
        match &self.style {
            Style::Merged { made } => made.has(path),
            Style::Stacked { .. } if stat.is_dir() => !self.implicit.contains_key(path),
            Style::Stacked { .. } => !is_whiteout(stat),
        }
    }

    /// Hides the layers below name by name when the root is opaque, which overlay does not look for in a root. Without
    /// knowing them the mark stays, for commit.
    pub(super) fn hide_root(&self) -> Step {
        let Style::Stacked { marks, lower: Some(lower) } = &self.style else { return Ok(()) };
        step("make the root opaque", crate::driver::hide_root(*marks, self.root(), lower))?;
        let mark = sys::xattr::remove_fd(self.root(), OsStr::new(marks.opaque));
        step("make the root opaque", mark)
    }

    /// Removes whiteouts that hide nothing from the directory at the real path `path`, once it is known what is below.
    pub(super) fn clean_whiteouts(&self, path: &Path) -> sys::Result<()> {
        let Style::Stacked { lower: Some(lower), .. } = &self.style else { return Ok(()) };
        let is_opaque = self.opaque.contains(path);
        let is_root = path.as_os_str().is_empty();
        if is_root && !lower.is_empty() || !is_opaque && self.below(lower, path)?.is_some() {
            return Ok(());
        }
        let Some(dir) = self.parents.open_real(path)? else { return Ok(()) };
        crate::driver::remove_whiteouts(dir.as_fd(), &walk::list(dir.as_fd())?)
    }

    /// Turns the whiteouts on the way to `path` into opaque directories: the layer deleted a name and then wrote below
    /// it. Their real paths come back.
    pub(super) fn clear_whiteouts(&mut self, path: &Path) -> Result<Vec<PathBuf>, ApplyError> {
        let mut cleared = Vec::new();
        let Style::Stacked { marks, .. } = &self.style else { return Ok(cleared) };
        let marks = *marks;
        let failed = |(what, source)| ApplyError::Entry { name: path.display().to_string(), what, source };
        let ancestors: Vec<_> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        for ancestor in ancestors.into_iter().rev() {
            let (Some(above), Some(name)) = (ancestor.parent(), ancestor.file_name()) else { continue };
            let mut made = Vec::new();
            let parent = match self.parents.get(above, &mut made) {
                Err(ApplyError::Parent { .. }) => return Ok(cleared),
                done => done?,
            };
            let dir = parent.fd.as_fd();
            match at::stat(dir, name) {
                Ok(stat) if is_whiteout(&stat) => {
                    replace_whiteout(dir, name, marks).map_err(failed)?;
                    let real = parent.path.join(name);
                    self.opaque.insert(real.clone());
                    cleared.push(real);
                }
                Ok(_) => {}
                Err(error) if error.is(libc::ENOENT) => return Ok(cleared),
                Err(error) => return Err(failed(("look at the parent", error))),
            }
        }
        Ok(cleared)
    }
}

fn replace_whiteout(dir: BorrowedFd<'_>, name: &OsStr, marks: crate::marks::Marks) -> Step {
    step("replace the whiteout", at::remove_file(dir, name))?;
    step("replace the whiteout", at::make_dir(dir, name, 0o755))?;
    let opened = step("open it", at::open(dir, name, libc::O_RDONLY | libc::O_DIRECTORY, 0))?;
    step("change the mode", at::chmod_fd(opened.as_fd(), 0o755))?;
    step("make it opaque", marks.set_opaque(opened.as_fd()))
}

/// Removes `name` and what is below it, but for what `is_own`. What is left of `name`.
///
/// Directories are emptied from a list, so a deep tree costs no stack.
fn prune(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    is_own: &dyn Fn(&Path, &Stat) -> bool,
) -> sys::Result<Option<Stat>> {
    let stat = match at::stat(dir, name) {
        Err(error) if error.is(libc::ENOENT) => return Ok(None),
        done => done?,
    };
    if !stat.is_dir() {
        if is_own(path, &stat) {
            return Ok(Some(stat));
        }
        return at::remove_file(dir, name).map(|()| None);
    }
    let top = at::open(dir, name, libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut dirs = vec![(PathBuf::new(), stat)];
    walk::each_dir(
        top.as_fd(),
        |_, error| error,
        |inner, dir, entries| {
            for entry in entries {
                let inner = inner.join(&entry.name);
                if entry.stat.is_dir() {
                    dirs.push((inner, entry.stat));
                } else if !is_own(&path.join(inner), &entry.stat) {
                    at::remove_file(dir, &entry.name)?;
                }
            }
            Ok(())
        },
    )?;
    let root = sys::path::Root::from_fd(top);
    for (inner, stat) in dirs.iter().rev() {
        let removed = if is_own(&path.join(inner), stat) {
            Ok(())
        } else if inner.as_os_str().is_empty() {
            at::remove_dir(dir, name)
        } else {
            let (parent, last) = root.open_parent(inner)?;
            at::remove_dir(parent.as_fd(), last)
        };
        match removed {
            // Something that this layer made is in it.
            Err(error) if error.is(libc::ENOTEMPTY) => {}
            done => done?,
        }
    }
    match at::stat(dir, name) {
        Err(error) if error.is(libc::ENOENT) => Ok(None),
        done => done.map(Some),
    }
}
