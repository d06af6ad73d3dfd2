//! Users and groups of this process. Raw calls: the C library's wrappers signal every thread, and callers have one.

use crate::error::{Result, call, check};

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

/// The supplementary groups. `getgroups(2)`.
pub fn groups() -> Result<Vec<u32>> {
    let groups = rustix::process::getgroups().map_err(call!("getgroups"))?;
    Ok(groups.into_iter().map(rustix::process::Gid::as_raw).collect())
}

/// Sets the real and effective group, then the user, and keeps the saved ones to return to. `setresuid(2)`.
pub fn assume(uid: u32, gid: u32) -> Result<()> {
    // SAFETY: takes three numbers.
    let done = unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, -1) };
    check(done, || format!("setresgid({gid}, {gid}, -1)"))?;
    // SAFETY: takes three numbers.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, -1) };
    check(done, || format!("setresuid({uid}, {uid}, -1)")).map(|_| ())
}

/// Returns to the user `uid`, who has the privileges for it, then to the group `gid`. Undoes [`assume`].
pub fn resume(uid: u32, gid: u32) -> Result<()> {
    set_uid(uid)?;
    set_gid(gid)
}

/// The effective user.
pub fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The effective group.
pub fn gid() -> u32 {
    rustix::process::getegid().as_raw()
}
