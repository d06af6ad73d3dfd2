//! Users and groups of this process. Raw calls: the C library's wrappers signal every thread, and callers have one.

use crate::error::{Result, check};

/// Sets the supplementary groups. `setgroups(2)`.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the kernel reads `len` group ids, which are 32 bit numbers, from the slice.
    let done = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    check(done, || format!("setgroups({groups:?})")).map(|_| ())
}

/// Sets the real, effective and saved group. `setresgid(2)`.
pub fn set_gid(gid: u32) -> Result<()> {
    // SAFETY: takes three numbers.
    let done = unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) };
    check(done, || format!("setresgid({gid})")).map(|_| ())
}

/// Sets the real, effective and saved user. `setresuid(2)`.
pub fn set_uid(uid: u32) -> Result<()> {
    // SAFETY: takes three numbers.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    check(done, || format!("setresuid({uid})")).map(|_| ())
}

/// The effective user.
pub fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The effective group.
pub fn gid() -> u32 {
    rustix::process::getegid().as_raw()
}
