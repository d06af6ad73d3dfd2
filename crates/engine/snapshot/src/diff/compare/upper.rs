//! Overlay's upper directory, read as the change that it is.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use model::snapshot::Mount;
use spec::Digest;
use sys::xattr;

use super::write::LayerWriter;
use super::{CompareError, Sides, open_dir};
use crate::marks::{Marks, is_whiteout};
use crate::walk;

/// The upper directory, when it is just what differs between the two sides.
///
/// Overlay may also have recorded a renamed directory or a file without its content; then only the mount tells.
pub(super) fn of(sides: &Sides<'_>) -> Result<Option<OwnedFd>, CompareError> {
    let [upper] = sides.upper else { return Ok(None) };
    let Some(dir) = option(upper, "upperdir").filter(|_| upper.kind == "overlay") else { return Ok(None) };
    let lower = layers(sides.lower);
    if lower.is_none() || lower != layers(std::slice::from_ref(upper)) {
        return Ok(None);
    }
    let dir = open_dir(Path::new(dir))?;
    Ok(is_plain(dir.as_fd())?.then_some(dir))
}

/// The directories that mounts stack, topmost first, without an upper one.
fn layers(mounts: &[Mount]) -> Option<Vec<PathBuf>> {
    let [mount] = mounts else { return None };
    match mount.kind.as_str() {
        "overlay" => Some(option(mount, "lowerdir")?.split(':').map(PathBuf::from).collect()),
        "bind" => Some(vec![PathBuf::from(&mount.source)]),
        _ => None,
    }
}

fn option<'a>(mount: &'a Mount, key: &str) -> Option<&'a str> {
    mount.options.iter().find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
}

/// Whether every object in an upper directory is whole and under its own name.
fn is_plain(top: BorrowedFd<'_>) -> Result<bool, CompareError> {
    let failed = |path: &Path, source| CompareError::Files { what: "look at", path: path.to_owned(), source };
    let mut plain = true;
    walk::each_dir(top, failed, |path, dir, entries| {
        if has_books(xattr::list_fd(dir).map_err(|error| failed(path, error))?) {
            plain = false;
        }
        for entry in entries.iter().filter(|entry| entry.stat.is_file()) {
            if has_books(xattr::list_at(dir, &entry.name).map_err(|error| failed(path, error))?) {
                plain = false;
            }
        }
        Ok(())
    })?;
    Ok(plain)
}

fn has_books(attributes: Vec<std::ffi::CString>) -> bool {
    attributes.iter().any(|name| {
        let name = name.as_bytes();
        name.ends_with(b".overlay.redirect") || name.ends_with(b".overlay.metacopy")
    })
}

/// Writes the layer that the upper directory `top` is.
pub(super) fn write(mut layer: LayerWriter<'_>, top: BorrowedFd<'_>) -> Result<Digest, CompareError> {
    let marks = Marks::here();
    let failed = |path: &Path, source| CompareError::Files { what: "look at", path: path.to_owned(), source };
    walk::each_dir(top, failed, |path, dir, entries| {
        if marks.is_opaque(dir).map_err(|error| failed(path, error))? && !path.as_os_str().is_empty() {
            layer.opaque(path)?;
        }
        for entry in entries {
            let here = path.join(&entry.name);
            if is_whiteout(&entry.stat) {
                layer.deleted(&here)?;
            } else {
                layer.changed(&here, dir, OsStr::new(&entry.name), &entry.stat)?;
            }
        }
        Ok(())
    })?;
    layer.finish()
}
