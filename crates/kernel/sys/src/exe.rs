//! The own program, out of a container's reach.
//!
//! A process that joins a container is visible there, and so is its `/proc/PID/exe`: whoever can open that for writing
//! once the program has ended replaces it on the host (CVE-2019-5736). A sealed process runs from a detached read-only
//! bind of its own file (no copy: the pages are shared), or, where the kernel has no `mount_setattr(2)`, from a sealed
//! copy in memory. Either way there is nothing to open for writing.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{MemfdFlags, OFlags, SealFlags, StatVfsMountFlags};

use crate::error::{Error, Result, call};
use crate::mount::{Attributes, Change, change, copy};
use crate::path::at;
use crate::{fd, process};

/// Marks the environment of a sealed process, so that a kernel that cannot seal is not asked twice.
const MARK: &str = "_BERTH_SEALED=1";

/// Whether the program of this process cannot be written through `/proc/PID/exe`.
pub fn is_sealed() -> Result<bool> {
    let exe = fd::open(Path::new("/proc/self/exe"), libc::O_RDONLY)?;
    let stat = rustix::fs::fstatvfs(&exe).map_err(call!("fstatvfs", "/proc/self/exe"))?;
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    let sealed = rustix::fs::fcntl_get_seals(&exe).is_ok_and(|seals| seals.contains(SealFlags::WRITE));
    Ok(sealed)
}

/// A descriptor of this process's own program that executes and cannot be written through.
pub fn open_sealed() -> Result<OwnedFd> {
    match sealed_view(Path::new("/proc/self/exe")) {
        Ok(bind) => Ok(bind),
        Err(_) => sealed_copy(),
    }
}

/// Executes this program anew from a sealed descriptor, with the same arguments, unless it is sealed already.
///
/// Returns when there is nothing to do; a kernel that can seal neither way is an error. `name` becomes the process's
/// name, which the kernel would otherwise take from the descriptor's number.
pub fn reexec_sealed() -> Result<()> {
    let mark = std::env::var_os("_BERTH_SEALED").is_some();
    if is_sealed()? {
        return Ok(());
    }
    if mark {
        return Err(Error::new(libc::ENOTSUP, "execveat(own program): still writable after sealing"));
    }
    let args = std::env::args_os().map(c_string).collect::<Result<Vec<_>>>()?;
    let mut env = environment()?;
    env.push(c_string(MARK.into())?);
    let program = open_sealed()?;
    Err(process::exec_fd(program.as_fd(), &args, &env))
}

/// This process's environment, without the mark of [`reexec_sealed`].
pub fn environment() -> Result<Vec<CString>> {
    std::env::vars_os()
        .filter(|(key, _)| key != "_BERTH_SEALED")
        .map(|(mut key, value)| {
            key.push("=");
            key.push(value);
            c_string(key)
        })
        .collect()
}

fn c_string(text: OsString) -> Result<CString> {
    CString::new(text.into_vec()).map_err(|_| Error::new(libc::EINVAL, "execveat(argument with a zero byte)"))
}

/// A descriptor of `program` that executes and cannot be written through: a detached read-only bind. Linux 5.12.
pub fn sealed_view(program: &Path) -> Result<OwnedFd> {
    let tree = copy(at::here(), program, false)?;
    change(
        tree.as_fd(),
        Change { set: Attributes::RDONLY | Attributes::NOSUID, ..Change::default() },
        false,
    )?;
    Ok(tree)
}

fn sealed_copy() -> Result<OwnedFd> {
    let exe = fd::open(Path::new("/proc/self/exe"), libc::O_RDONLY)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create(c"program", flags).map_err(call!("memfd_create", "program"))?;
    copy_all(exe.as_fd(), copy.as_fd())?;
    at::chmod_fd(copy.as_fd(), 0o500)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals).map_err(call!("fcntl", "F_ADD_SEALS", seals))?;
    // Executing a descriptor that is open for writing fails with ETXTBSY: reopen it.
    let path = crate::path::of_fd(copy.as_fd());
    rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty())
        .map_err(call!("open", path))
}

fn copy_all(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    loop {
        match rustix::fs::sendfile(to, from, None, 1 << 20) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(call!("sendfile", to, from)(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_program_cannot_be_opened_for_writing() {
        if crate::identity::uid() != 0 {
            println!("SKIP a_sealed_program_cannot_be_opened_for_writing: not root");
            return;
        }
        assert!(!is_sealed().unwrap());
        // A program that runs cannot be written anyway, so a copy that does not run is the better witness.
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, "x").unwrap();
        for sealed in [sealed_view(&program).unwrap(), sealed_copy().unwrap()] {
            let path = crate::path::of_fd(sealed.as_fd());
            // The bind refuses to be opened for writing, the copy to be written.
            let error = fd::open(&path, libc::O_WRONLY)
                .and_then(|file| fd::write_all(file.as_fd(), b"evil"))
                .unwrap_err();
            assert!([libc::EROFS, libc::EPERM, libc::EACCES].contains(&error.errno()), "{error}");
        }
    }
}
