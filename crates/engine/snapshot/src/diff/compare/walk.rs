//! Two trees, walked side by side in the order of their names.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use spec::Digest;
use sys::path::at::{self, Stat};
use sys::path::{Access, Root};

use super::CompareError;
use super::write::{LayerWriter, attributes};
use crate::walk::{self, Entry};

/// A directory in both trees, or in the upper one only.
struct Pair {
    path: PathBuf,
    is_below: bool,
}

/// Writes what leads from the tree `lower` (nothing: an empty one) to the tree `upper`.
pub(super) fn write(
    mut layer: LayerWriter<'_>,
    lower: Option<BorrowedFd<'_>>,
    upper: BorrowedFd<'_>,
) -> Result<Digest, CompareError> {
    let root =
        |fd| walk::duplicate(fd).map(Root::from_fd).map_err(CompareError::files("open", Path::new("/")));
    let upper = root(upper)?;
    let lower = lower.map(root).transpose()?;
    let mut pending = vec![Pair { path: PathBuf::new(), is_below: lower.is_some() }];
    while let Some(pair) = pending.pop() {
        let above = Dir::open(&upper, &pair.path)?;
        let below = match &lower {
            Some(lower) if pair.is_below => Some(Dir::open(lower, &pair.path)?),
            _ => None,
        };
        let mut inner = Vec::new();
        compare_dirs(&mut layer, &pair.path, &above, below.as_ref(), &mut inner)?;
        pending.extend(inner.into_iter().rev());
    }
    layer.finish()
}

struct Dir {
    fd: OwnedFd,
    entries: Vec<Entry>,
}

impl Dir {
    fn open(root: &Root, path: &Path) -> Result<Self, CompareError> {
        let fd = root.open_on_mount(path, Access::Directory).map_err(CompareError::files("open", path))?;
        let entries = walk::list(fd.as_fd()).map_err(CompareError::files("list", path))?;
        Ok(Self { fd, entries })
    }
}

fn compare_dirs(
    layer: &mut LayerWriter<'_>,
    path: &Path,
    above: &Dir,
    below: Option<&Dir>,
    inner: &mut Vec<Pair>,
) -> Result<(), CompareError> {
    let none = Vec::new();
    let mut uppers = above.entries.iter().peekable();
    let mut lowers = below.map_or(&none, |below| &below.entries).iter().peekable();
    loop {
        let order = match (uppers.peek(), lowers.peek()) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(upper), Some(lower)) => upper.name.cmp(&lower.name),
        };
        let lower = if order == Ordering::Less { None } else { lowers.next() };
        let upper = if order == Ordering::Greater { None } else { uppers.next() };
        match (upper, lower) {
            (None, Some(lower)) => layer.deleted(&path.join(&lower.name))?,
            (Some(upper), lower) => {
                let here = path.join(&upper.name);
                let dir = above.fd.as_fd();
                let same = match (lower, below) {
                    (Some(lower), Some(below)) => is_same((below.fd.as_fd(), lower), (dir, upper))
                        .map_err(CompareError::files("compare", &here))?,
                    _ => false,
                };
                if same {
                    layer.unchanged(&here, dir, &upper.name, &upper.stat)?;
                } else {
                    layer.changed(&here, dir, &upper.name, &upper.stat)?;
                }
                if upper.stat.is_dir() {
                    inner.push(Pair { path: here, is_below: lower.is_some_and(|lower| lower.stat.is_dir()) });
                }
            }
            (None, None) => return Ok(()),
        }
    }
}

/// Whether two objects of one name are the same. Contents are read only when times cannot tell.
fn is_same(lower: (BorrowedFd<'_>, &Entry), upper: (BorrowedFd<'_>, &Entry)) -> sys::Result<bool> {
    let (old, new) = (&lower.1.stat, &upper.1.stat);
    let name = upper.1.name.as_os_str();
    if (old.dev, old.ino) == (new.dev, new.ino) {
        return Ok(true);
    }
    if (old.mode, old.uid, old.gid) != (new.mode, new.uid, new.gid) {
        return Ok(false);
    }
    if is_device(new) && old.rdev != new.rdev {
        return Ok(false);
    }
    if attributes(lower.0, name)? != attributes(upper.0, name)? {
        return Ok(false);
    }
    if new.is_dir() {
        return Ok(true);
    }
    if new.is_link() {
        return Ok(at::read_link(lower.0, name)? == at::read_link(upper.0, name)?);
    }
    if old.size != new.size || old.mtime != new.mtime {
        return Ok(false);
    }
    // A time without a fraction was set by an archive: equal times prove nothing then.
    if new.is_file() && new.mtime.1 == 0 && new.size > 0 {
        return is_same_content(lower.0, upper.0, name);
    }
    Ok(true)
}

fn is_device(stat: &Stat) -> bool {
    stat.is_char_device() || stat.is_block_device()
}

fn is_same_content(lower: BorrowedFd<'_>, upper: BorrowedFd<'_>, name: &OsStr) -> sys::Result<bool> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    let mut old = File::from(at::open(lower, name, flags, 0)?);
    let mut new = File::from(at::open(upper, name, flags, 0)?);
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let count = read_full(&mut old, &mut left, name)?;
        if count != read_full(&mut new, &mut right, name)? || left[..count] != right[..count] {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}

fn read_full(file: &mut File, buffer: &mut [u8], name: &OsStr) -> sys::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match file.read(&mut buffer[have..]) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                return Err(sys::Error::new(errno, format!("read({name:?})")));
            }
        }
    }
    Ok(have)
}
