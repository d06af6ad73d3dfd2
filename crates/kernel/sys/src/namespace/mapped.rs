//! User namespaces that exist for their maps, and namespaces that they own.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::{Kind, open};
use crate::error::{Error, Result, call, check};

/// Makes a user namespace whose ids are mapped by the texts of `uid_map` and `gid_map`, and one of `kind` that it owns
/// (none for [`Kind::User`]). They last as long as their descriptors.
///
/// For any process, however many threads it has: the child that they begin with makes system calls only.
pub fn make_mapped(uid_map: &str, gid_map: &str, kind: Kind) -> Result<(OwnedFd, Option<OwnedFd>)> {
    let child = Held::make(Kind::User.flag() | kind.flag())?;
    let proc = crate::procfs::Procfs::of_host()?;
    proc.write(&format!("{}/gid_map", child.pid), gid_map)?;
    proc.write(&format!("{}/uid_map", child.pid), uid_map)?;
    let of_child = |kind: Kind, name: &str| open(Path::new(&format!("/proc/{}/ns/{name}", child.pid)), kind);
    let also = match kind {
        Kind::User => None,
        Kind::Network => Some(of_child(kind, "net")?),
        Kind::Ipc => Some(of_child(kind, "ipc")?),
        Kind::Uts => Some(of_child(kind, "uts")?),
        _ => return Err(Error::new(libc::EINVAL, format!("a mapped {kind:?} namespace"))),
    };
    Ok((of_child(Kind::User, "user")?, also))
}

/// The user namespace that owns the one open as `namespace`. `NS_GET_USERNS`, Linux 4.9.
pub fn owner(namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    // SAFETY: the request takes no argument and returns a descriptor.
    let found = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
    check(found.into(), || format!("ioctl({namespace:?}, NS_GET_USERNS)"))?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec) for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(found) })
}

/// A child that holds its namespaces until it is dropped, or this process ends.
struct Held {
    pid: i32,
    pidfd: OwnedFd,
    /// The child ends when this is closed.
    hold: Option<OwnedFd>,
}

impl Held {
    fn make(namespaces: i32) -> Result<Self> {
        let (read, write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(call!("pipe2", "O_CLOEXEC"))?;
        let mut pidfd: libc::c_int = -1;
        // flags, pidfd, and no signal at the end: whoever reaps this process's children does not see this one.
        let mut args = [0_u64; 8];
        args[0] = u64::from(namespaces as u32) | libc::CLONE_PIDFD as u64;
        args[1] = (&raw mut pidfd) as u64;
        // SAFETY: clone3(2) reads the first 64 bytes of its struct, which are these eight numbers, and writes the pidfd
        // in the parent. Without CLONE_VM and without a stack the child runs on a copy of this memory; it makes three
        // system calls by number and ends, so that no lock of a thread that it lacks is ever asked for.
        let pid = unsafe {
            let pid = libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args));
            if pid == 0 {
                libc::syscall(libc::SYS_close, write.as_raw_fd());
                let mut byte = 0_u8;
                // Ends when the parent lets go of its end, whatever happens to the parent.
                libc::syscall(libc::SYS_read, read.as_raw_fd(), &raw mut byte, 1);
                loop {
                    libc::syscall(libc::SYS_exit_group, 0);
                }
            }
            pid
        };
        let pid = check(pid, || format!("clone3({namespaces:#x})"))?;
        // SAFETY: the kernel has just stored this new descriptor for us; nobody else owns it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Self { pid: pid as i32, pidfd, hold: Some(write) })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.hold.take());
        // Another thread's child, made in between, may hold a copy of that end for a moment.
        let _ = crate::process::signal(self.pidfd.as_fd(), libc::SIGKILL);
        // SAFETY: a siginfo is plain old data for which zeroes are valid, and waitid(2) writes it; __WALL is for a child
        // that sends no signal at its end.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let id = self.pidfd.as_raw_fd() as libc::id_t;
            while libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED | libc::__WALL) != 0
                && *libc::__errno_location() == libc::EINTR
            {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_namespace_owns_what_was_made_with_it_and_its_child_is_gone() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (user, network) = make_mapped("0 100000 65536\n", "0 200000 65536\n", Kind::Network).unwrap();
        let owner = owner(network.unwrap().as_fd()).unwrap();
        let inode = |fd: &OwnedFd| crate::path::at::stat_fd(fd.as_fd()).unwrap().ino;
        assert_eq!(inode(&owner), inode(&user));
        assert!(make_mapped("nonsense", "0 1 1", Kind::User).is_err());
        assert!(make_mapped("0 1 1\n", "0 1 1\n", Kind::Mount).is_err());
    }

    #[test]
    fn many_threads_make_them_at_once() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        std::thread::scope(|scope| {
            let make = || make_mapped("0 100000 65536\n", "0 100000 65536\n", Kind::User).map(drop);
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
        });
    }
}
