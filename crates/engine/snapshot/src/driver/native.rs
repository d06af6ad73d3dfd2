//! The native driver: every snapshot is a whole tree of its own.
//!
//! ```text
//! <root>/snapshots/<id>/    the tree; a view of a parent has an empty one and shows the parent's
//! ```

use std::os::fd::BorrowedFd;
use std::path::Path;

use model::Cx;
use model::snapshot::{Kind, Mount};
use spec::Result;
use sys::path::{Root, at};

use super::records::Place;
use super::{Driver, Layout, New, Paths, SnapshotError, copy};

/// The native driver.
pub type Native = Driver<Copied>;

/// The native layout.
#[derive(Debug)]
pub struct Copied;

impl Native {
    /// Opens the driver in the directory `root`.
    ///
    /// # Errors
    /// `FailedPrecondition` when another process has it open.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, Copied, true)
    }
}

impl Layout for Copied {
    fn fill(&self, cx: &Cx<'_>, dir: BorrowedFd<'_>, new: &New<'_>) -> Result<()> {
        at::chmod_fd(dir, 0o755).map_err(SnapshotError::files("chmod", "new"))?;
        let (Kind::Active, Some(parent)) = (new.kind, &new.parent) else { return Ok(()) };
        let from = Root::open_dir(parent).map_err(SnapshotError::files("open", parent))?;
        copy::copy_tree(cx, &from, dir)
            .map_err(|error| error.context(format!("cannot copy {}", parent.display())))
    }

    fn mounts(&self, paths: &Paths, place: &Place) -> Vec<Mount> {
        let (id, access) = match (place.kind, place.parents.first()) {
            (Kind::View, Some(&parent)) => (parent, "ro"),
            (Kind::View, None) => (place.id, "ro"),
            _ => (place.id, "rw"),
        };
        let source = paths.files(id).display().to_string();
        let options = vec!["rbind".to_owned(), access.to_owned()];
        vec![Mount { kind: "bind".into(), source, target: String::new(), options }]
    }

    fn files(&self) -> &'static str {
        ""
    }

    fn is_stacked(&self) -> bool {
        false
    }

    fn capabilities(&self) -> &[&'static str] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use model::Ctx;
    use model::snapshot::Snapshotter;
    use spec::Labels;

    use super::*;

    #[test]
    fn directories_that_are_older_than_the_records_stay() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("snapshots/7");
        std::fs::create_dir_all(old.join("etc")).unwrap();
        for _ in 0..2 {
            let native = Native::open(dir.path()).unwrap();
            Ctx::background().on_this_thread(|cx| {
                let made = native.prepare(cx, "new", "", &Labels::new()).unwrap();
                assert!(!made[0].source.ends_with("/7"), "{made:?}");
                native.remove(cx, "new").unwrap();
                native.cleanup(cx).unwrap();
            });
            assert!(old.join("etc").is_dir());
            assert_eq!(std::fs::read_dir(dir.path().join("snapshots")).unwrap().count(), 1);
        }
    }
}
