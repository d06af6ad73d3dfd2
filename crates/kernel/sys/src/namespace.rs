//! Namespaces: opened, joined, left.

mod mapped;

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result, call, check};
pub use mapped::{make_mapped, owner};

/// A kind of namespace, by its clone flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `CLONE_NEWUSER`
    User,
    /// `CLONE_NEWPID`
    Pid,
    /// `CLONE_NEWNS`
    Mount,
    /// `CLONE_NEWNET`
    Network,
    /// `CLONE_NEWIPC`
    Ipc,
    /// `CLONE_NEWUTS`
    Uts,
    /// `CLONE_NEWCGROUP`
    Cgroup,
    /// `CLONE_NEWTIME`
    Time,
}

impl Kind {
    /// The flag of `clone(2)`, `unshare(2)` and `setns(2)`.
    pub fn flag(self) -> i32 {
        match self {
            Self::User => libc::CLONE_NEWUSER,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Network => libc::CLONE_NEWNET,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::Time => libc::CLONE_NEWTIME,
        }
    }
}

/// Opens the namespace file `path` and makes sure that it is one, of the kind `kind`.
///
/// `NS_GET_NSTYPE` (Linux 4.11) fails on anything else, so no other file is ever handed to `setns(2)`.
pub fn open(path: &Path, kind: Kind) -> Result<OwnedFd> {
    // NONBLOCK and NOCTTY: the path comes from a configuration and may name a FIFO or a terminal.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(call!("open", path))?;
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the request takes no argument and returns a number.
    let found = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    let found = check(found.into(), || format!("ioctl({path:?}, NS_GET_NSTYPE)"))?;
    if found != i64::from(kind.flag()) {
        return Err(Error::new(libc::EINVAL, format!("{path:?} is not a {kind:?} namespace")));
    }
    Ok(fd)
}

/// Whether this process is in the user namespace that the machine began with, in which every id is mapped to itself.
pub fn is_initial_user() -> Result<bool> {
    let map = crate::procfs::Procfs::of_host()?.read_self("uid_map", 4096)?;
    let map = String::from_utf8_lossy(&map);
    Ok(map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// Joins the namespace open as `namespace`. `setns(2)`.
pub fn join(namespace: BorrowedFd<'_>, kind: Kind) -> Result<()> {
    // SAFETY: takes two numbers. Only the calling thread moves; callers have one.
    let done = unsafe { libc::setns(namespace.as_raw_fd(), kind.flag()) };
    check(done.into(), || format!("setns({namespace:?}, {kind:?})")).map(|_| ())
}

/// Joins the namespaces named by the `CLONE_NEW*` bits `flags` of the process `pidfd`. `setns(2)`, Linux 5.8.
pub fn join_process(pidfd: BorrowedFd<'_>, flags: i32) -> Result<()> {
    // SAFETY: takes two numbers. Only the calling thread moves; callers have one.
    let done = unsafe { libc::setns(pidfd.as_raw_fd(), flags) };
    check(done.into(), || format!("setns({pidfd:?}, {flags:#x})")).map(|_| ())
}

/// Moves this process into new namespaces. `unshare(2)`.
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: takes a number; of its flags only CLONE_FILES could confuse descriptor ownership, and it is masked out.
    let done = unsafe { libc::unshare(flags & !libc::CLONE_FILES) };
    check(done.into(), || format!("unshare({flags:#x})")).map(|_| ())
}

/// Sets the host name of this UTS namespace. `sethostname(2)`.
pub fn set_host_name(name: &str) -> Result<()> {
    rustix::system::sethostname(name.as_bytes()).map_err(call!("sethostname", name))
}

/// Sets the NIS domain name of this UTS namespace. `setdomainname(2)`.
pub fn set_domain_name(name: &str) -> Result<()> {
    rustix::system::setdomainname(name.as_bytes()).map_err(call!("setdomainname", name))
}

/// Brings the loopback interface of this network namespace up. `SIOCSIFFLAGS`.
pub fn loopback_up() -> Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(call!("socket", "AF_INET"))?;
    /// `struct ifreq`: a name and a union of which the flags are the first member.
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        flags: i16,
        rest: [u8; 22],
    }
    let mut name = [0; 16];
    name[..2].copy_from_slice(b"lo");
    let request = Request { name, flags: (libc::IFF_UP | libc::IFF_RUNNING) as i16, rest: [0; 22] };
    // SAFETY: SIOCSIFFLAGS reads one struct ifreq, whose 40 bytes this struct has, and writes nothing back.
    let done =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &raw const request) };
    check(done.into(), || "ioctl(SIOCSIFFLAGS, lo)".to_owned()).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_namespace_of_the_right_kind_opens() {
        open(Path::new("/proc/self/ns/uts"), Kind::Uts).unwrap();
        assert!(open(Path::new("/proc/self/ns/uts"), Kind::Network).is_err());
        assert!(open(Path::new("/etc/passwd"), Kind::Uts).is_err());
    }
}
