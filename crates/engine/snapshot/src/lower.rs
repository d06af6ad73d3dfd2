//! The layers below a new one: what a path is in them, seen as overlay shows it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sys::path::{Access, Root, at};
use sys::xattr;

use crate::marks::{Marks, is_whiteout};

/// Directories stacked under a layer, nearest first.
#[derive(Debug)]
pub(crate) struct Lower {
    layers: Vec<Root>,
    marks: Marks,
}

impl Lower {
    /// Opens the directories `paths`, nearest first.
    pub fn open<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> sys::Result<Self> {
        let layers =
            paths.into_iter().map(|path| Root::open_dir(path.as_ref())).collect::<sys::Result<_>>()?;
        Ok(Self { layers, marks: Marks::here() })
    }

    /// Whether there is nothing below.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// The directory that `path` is below the layer; `None` when it is absent, deleted, hidden or something else.
    pub fn directory(&self, path: &Path) -> sys::Result<Option<OwnedFd>> {
        for layer in &self.layers {
            match layer.open_on_mount(path, Access::Directory) {
                Ok(dir) => return Ok(Some(dir)),
                Err(error) if [libc::ENOENT, libc::ENOTDIR, libc::ELOOP].contains(&error.errno()) => {}
                Err(error) => return Err(error),
            }
            if self.ends_at(layer, path)? {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Whether `layer`, which has no directory `path`, hides the one that layers below it may have.
    fn ends_at(&self, layer: &Root, path: &Path) -> sys::Result<bool> {
        for ancestor in path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
            let opened = match layer.open_on_mount(ancestor, Access::Handle) {
                Err(error) if error.is(libc::ENOENT) => continue,
                // A link or a file stands where the path goes on.
                Err(error) if error.is(libc::ELOOP) || error.is(libc::ENOTDIR) => return Ok(true),
                done => done?,
            };
            if !at::stat_fd(opened.as_fd())?.is_dir() {
                return Ok(true);
            }
            // The nearest ancestor that exists decides, unless a farther one is opaque.
            if self.is_opaque_at(layer, ancestor)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_opaque_at(&self, layer: &Root, path: &Path) -> sys::Result<bool> {
        let dir = layer.open_on_mount(path, Access::Directory)?;
        self.marks.is_opaque(dir.as_fd())
    }

    /// The names that the layers below show in the root directory.
    pub fn root_names(&self) -> sys::Result<BTreeSet<OsString>> {
        let mut seen = BTreeSet::new();
        let mut shown = BTreeSet::new();
        for layer in &self.layers {
            let dir = layer.open(Path::new(""), Access::Directory)?;
            for (name, kind) in at::entries(dir.as_fd())? {
                let deleted = kind != at::Type::Directory && is_whiteout(&at::stat(dir.as_fd(), &name)?);
                if seen.insert(name.clone()) && !deleted {
                    shown.insert(name);
                }
            }
        }
        Ok(shown)
    }
}

/// Gives the open directory `to` the owner, permissions, attributes and times of the open directory `from`, as overlay
/// does when it copies a directory up.
pub(crate) fn inherit(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> sys::Result<()> {
    let stat = at::stat_fd(from)?;
    at::chown_fd(to, stat.uid, stat.gid)?;
    for name in xattr::list_fd(from)? {
        let name = OsStr::from_bytes(name.as_bytes());
        if is_overlays_own(name.as_bytes()) {
            continue;
        }
        if let Some(value) = xattr::get_fd(from, name)? {
            xattr::set_fd(to, name, &value)?;
        }
    }
    at::chmod_fd(to, stat.mode & 0o7777)?;
    at::set_times_fd(to, stat.atime, stat.mtime)
}

/// Attributes with which overlay (or this driver) keeps its books: never an image's.
pub(crate) fn is_overlays_own(name: &[u8]) -> bool {
    [&b"trusted."[..], b"user.overlay.", b"user.berth."].iter().any(|prefix| name.starts_with(prefix))
}
