//! What can be done only when every entry of a layer has been seen.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use sys::path::at;

use super::ApplyError;
use super::metadata::Times;
use super::target::{Style, Target};
use crate::lower::{Lower, inherit};

impl Target {
    /// Settles what depends on the whole layer: an opaque root, whiteouts that hide nothing, directories without an
    /// entry, and the times of directories.
    pub fn finish(&mut self) -> Result<(), ApplyError> {
        self.parents.forget();
        let failed =
            |path: &Path, what, source| ApplyError::Entry { name: path.display().to_string(), what, source };
        if self.opaque.contains(Path::new("")) {
            self.hide_root().map_err(|(what, source)| failed(Path::new(""), what, source))?;
        }
        for path in &self.whitened {
            self.clean_whiteouts(path).map_err(|source| failed(path, "remove the whiteouts", source))?;
        }
        let mut inherited = BTreeSet::new();
        for path in self.implicit.iter().filter(|(_, implicit)| implicit.inherits).map(|(path, _)| path) {
            let done =
                self.inherit(path).map_err(|source| failed(path, "set the parent's attributes", source))?;
            if done {
                inherited.insert(path.clone());
            }
        }
        for (path, times) in self.times(&inherited) {
            self.set_times(path, times).map_err(|source| failed(path, "set the times", source))?;
        }
        Ok(())
    }

    /// The times of the layer's directories, but for those that took theirs from the layers below.
    fn times<'a>(&'a self, inherited: &'a BTreeSet<PathBuf>) -> impl Iterator<Item = (&'a PathBuf, Times)> {
        let named = self.dirs.iter().map(|(path, times)| (path, *times));
        let implicit = self.implicit.iter().map(|(path, implicit)| (path, implicit.times));
        named.chain(implicit).filter(|(path, _)| !inherited.contains(*path))
    }

    fn set_times(&self, path: &Path, times: Times) -> sys::Result<()> {
        // What was a directory once may have been replaced by something else, which has its times already.
        match self.parents.open_real(path)? {
            Some(dir) => at::set_times_fd(dir.as_fd(), times.atime, times.mtime),
            None => Ok(()),
        }
    }

    /// What overlay would merge the layer's directory `path` with.
    pub(super) fn below(&self, lower: &Lower, path: &Path) -> sys::Result<Option<OwnedFd>> {
        let is_hidden = path.ancestors().skip(1).any(|above| self.opaque.contains(above));
        if is_hidden { Ok(None) } else { lower.directory(path) }
    }

    /// A directory without an entry looks as it does below: now, or, when that is not known yet, at commit.
    fn inherit(&self, path: &Path) -> sys::Result<bool> {
        let Style::Stacked { marks, lower } = &self.style else { return Ok(false) };
        let Some(dir) = self.parents.open_real(path)? else { return Ok(false) };
        let Some(lower) = lower else {
            sys::xattr::set_fd(dir.as_fd(), OsStr::new(marks.implicit), b"y")?;
            return Ok(false);
        };
        let Some(below) = self.below(lower, path)? else { return Ok(false) };
        inherit(below.as_fd(), dir.as_fd())?;
        Ok(true)
    }
}
