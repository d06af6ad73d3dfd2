//! Changes of the directory of configurations, as something to wait for.
//!
//! Its parent is watched too: a directory that is removed and made anew, as installers of networks do, is watched
//! again.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sys::inotify::Inotify;

/// A watched directory.
#[derive(Debug)]
pub struct Watch {
    queue: Inotify,
    dir: PathBuf,
    name: OsString,
    /// Number of the directory's own watch, while it exists.
    watch: Option<i32>,
    parent: i32,
}

impl Watch {
    /// Watches `dir`, which is made if need be.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} cannot be watched", dir.display()),
            ));
        };
        // /etc/cni holds files that plugins of users without rights read; the configurations are root's.
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let queue = Inotify::new()?;
        let parent = queue.watch(parent)?;
        let watch = Some(queue.watch(dir)?);
        Ok(Self { queue, dir: dir.to_owned(), name: name.to_owned(), watch, parent })
    }

    /// Takes all that has happened and says whether it may have changed a configuration. Its descriptor is readable when
    /// there is something to take.
    pub fn take(&mut self) -> io::Result<bool> {
        let mut changed = false;
        for event in self.queue.read()? {
            if event.watch == self.parent {
                if event.name == self.name {
                    // Removed, or made anew: the old watch is of another directory.
                    self.watch = self.queue.watch(&self.dir).ok();
                    changed = true;
                }
            } else if event.watch == -1 {
                changed = true;
            } else if Some(event.watch) == self.watch {
                if event.gone {
                    self.watch = self.queue.watch(&self.dir).ok();
                }
                // A file that appeared is worth a look when it has been written.
                changed |= !event.created;
            }
        }
        Ok(changed)
    }
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.queue.as_fd().as_raw_fd()
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    /// Waits until there is something to take.
    fn changed(watch: &mut Watch) -> bool {
        sys::process::readable(watch.as_fd(), Duration::from_secs(10)).unwrap() && watch.take().unwrap()
    }

    #[test]
    fn written_renamed_and_removed_files_are_changes() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("cni/net.d");
        let mut watch = Watch::open(&conf).unwrap();
        assert!(!watch.take().unwrap());
        fs::write(conf.join("a.conflist"), "{}").unwrap();
        assert!(changed(&mut watch));
        while watch.take().unwrap() {}
        fs::rename(conf.join("a.conflist"), conf.join("b.conflist")).unwrap();
        assert!(changed(&mut watch));
        while watch.take().unwrap() {}
        fs::remove_file(conf.join("b.conflist")).unwrap();
        assert!(changed(&mut watch));
    }

    #[test]
    fn a_directory_that_is_made_anew_is_watched_again() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("net.d");
        let mut watch = Watch::open(&conf).unwrap();
        fs::remove_dir(&conf).unwrap();
        assert!(changed(&mut watch));
        fs::create_dir(&conf).unwrap();
        assert!(changed(&mut watch));
        while watch.take().unwrap() {}
        fs::write(conf.join("a.conf"), "{}").unwrap();
        assert!(changed(&mut watch));
    }
}
