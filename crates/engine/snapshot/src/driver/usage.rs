//! What a tree takes on disk: blocks and inodes, a file with several names counted once.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::Path;

use model::Cx;
use model::snapshot::Usage;
use sys::path::at::{self, Stat};

use super::SnapshotError;
use crate::walk;

/// Measures the tree at `root`, itself included. What vanishes meanwhile is not counted.
pub(crate) fn measure(cx: &Cx<'_>, root: &Path) -> Result<Usage, SnapshotError> {
    let failed =
        |path: &Path, source| SnapshotError::Files { what: "measure", path: root.join(path), source };
    let top = at::open(at::here(), root.as_os_str(), libc::O_RDONLY | libc::O_DIRECTORY, 0)
        .map_err(|error| failed(Path::new(""), error))?;
    let stat = at::stat_fd(top.as_fd()).map_err(|error| failed(Path::new(""), error))?;
    let mut usage = Usage::default();
    let mut add = |stat: &Stat| {
        usage.inodes += 1;
        usage.size += stat.blocks * 512;
    };
    add(&stat);
    let mut several = HashSet::new();
    walk::each_dir(top.as_fd(), failed, |_, _, entries| {
        cx.check().map_err(SnapshotError::Stopped)?;
        for entry in entries {
            let stat = &entry.stat;
            if stat.is_dir() || stat.nlink < 2 || several.insert((stat.dev, stat.ino)) {
                add(stat);
            }
        }
        Ok(())
    })?;
    Ok(usage)
}
