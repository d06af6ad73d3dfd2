//! The shim's program, sealed once for all shims.
//!
//! A shim runs from a view of its program that nobody can write (CVE-2019-5736). One that starts by itself seals it, and
//! executes it a second time for that. Ours tells that it can be executed sealed and then serves in the process that was
//! started: one program is executed for a shim instead of two.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The program that was sealed last. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Sealed(Arc<Mutex<Option<View>>>);

#[derive(Debug)]
struct View {
    program: PathBuf,
    version: Version,
    view: Arc<OwnedFd>,
}

/// What changes when another file takes a program's place: device, inode, size and time of change.
type Version = (u64, u64, u64, i64, i64);

impl Sealed {
    /// The view of `program`, if it was sealed and is the same file still.
    pub fn view(&self, program: &Path) -> Option<Arc<OwnedFd>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let view = known.as_ref().filter(|view| view.program == program)?;
        if version(program) == Some(view.version) {
            return Some(Arc::clone(&view.view));
        }
        *known = None;
        None
    }

    /// Seals `program`. Where the kernel cannot (before 5.12), its shims go on to seal themselves.
    pub fn seal(&self, program: &Path) {
        let before = version(program);
        let view = sys::exe::sealed_view(program).ok();
        // Replaced meanwhile: the next start tries again.
        let version = before.filter(|before| version(program) == Some(*before));
        let view = view.zip(version).map(|(view, version)| View {
            program: program.to_owned(),
            version,
            view: Arc::new(view),
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// Forgets it.
    pub fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn version(program: &Path) -> Option<Version> {
    let file = fs::metadata(program).ok()?;
    Some((file.dev(), file.ino(), file.size(), file.ctime(), file.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_replaced_is_not_the_sealed_one() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        fs::write(&program, "one").unwrap();
        let sealed = Sealed::default();
        assert!(sealed.view(&program).is_none());
        sealed.seal(&program);
        if sealed.view(&program).is_none() {
            println!("SKIP a_program_that_was_replaced_is_not_the_sealed_one: no mount_setattr, or not root");
            return;
        }
        assert!(sealed.view(&dir.path().join("other")).is_none());
        fs::write(dir.path().join("new"), "two").unwrap();
        fs::rename(dir.path().join("new"), &program).unwrap();
        assert!(sealed.view(&program).is_none());
    }
}
