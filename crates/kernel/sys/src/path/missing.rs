//! Where a path leads whose last parts do not exist, links to nothing included.
//!
//! `openat2(2)` only says that something is missing. An image's `/var/run -> /run` without a `/run`, or a
//! `/etc/localtime` that names a zone it does not bring, shall be made where the link points.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use super::{Root, at};
use crate::error::{Error, Result};

/// Links followed in one path, as the kernel bounds them.
const MAX_LINKS: u32 = 40;

/// The path without links that `path` names below `root`: its existing part resolved, the missing part as the text says.
///
/// Each step is looked up below the root again, so a link that changes meanwhile leads nowhere else.
pub(super) fn destination(root: &Root, path: &Path) -> Result<PathBuf> {
    let mut rest: VecDeque<OsString> = names(path).collect();
    let (mut place, mut links) = (PathBuf::new(), 0);
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            place.pop();
            continue;
        }
        let next = place.join(&name);
        let found = match root.open_link(&next) {
            Err(error) if error.is(libc::ENOENT) => None,
            done => Some(done?),
        };
        match found {
            Some(found) if at::stat_fd(found.as_fd())?.is_link() => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Error::new(libc::ELOOP, format!("openat2({path:?})")));
                }
                let text = PathBuf::from(at::read_link(found.as_fd(), OsStr::new(""))?);
                if text.is_absolute() {
                    place.clear();
                }
                let before: Vec<OsString> = names(&text).collect();
                before.into_iter().rev().for_each(|name| rest.push_front(name));
            }
            Some(_) | None => place = next,
        }
    }
    Ok(place)
}

/// The names of `path`, `..` among them.
fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}
