//! Resource limits.

use crate::error::{Result, check};

/// A resource that can be limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource(u32);

/// The resource the specification calls `name` (`RLIMIT_NOFILE`).
pub fn resource(name: &str) -> Option<Resource> {
    #[allow(clippy::unnecessary_cast)] // c_int with musl
    let number = match name {
        "RLIMIT_AS" => libc::RLIMIT_AS,
        "RLIMIT_CORE" => libc::RLIMIT_CORE,
        "RLIMIT_CPU" => libc::RLIMIT_CPU,
        "RLIMIT_DATA" => libc::RLIMIT_DATA,
        "RLIMIT_FSIZE" => libc::RLIMIT_FSIZE,
        "RLIMIT_LOCKS" => libc::RLIMIT_LOCKS,
        "RLIMIT_MEMLOCK" => libc::RLIMIT_MEMLOCK,
        "RLIMIT_MSGQUEUE" => libc::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => libc::RLIMIT_NICE,
        "RLIMIT_NOFILE" => libc::RLIMIT_NOFILE,
        "RLIMIT_NPROC" => libc::RLIMIT_NPROC,
        "RLIMIT_RSS" => libc::RLIMIT_RSS,
        "RLIMIT_RTPRIO" => libc::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => libc::RLIMIT_RTTIME,
        "RLIMIT_SIGPENDING" => libc::RLIMIT_SIGPENDING,
        "RLIMIT_STACK" => libc::RLIMIT_STACK,
        _ => return None,
    } as u32;
    Some(Resource(number))
}

/// The soft and hard limit of the process `pid`, 0 for the caller.
pub fn get(pid: i32, resource: Resource) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a null new limit only reads; the old one is written to `limit`.
    let done = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource.0,
            std::ptr::null::<libc::rlimit64>(),
            &raw mut limit,
        )
    };
    check(done, || format!("prlimit64({resource:?})"))?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets the soft and hard limit of the process `pid`, 0 for the caller. `prlimit(2)`.
pub fn set(pid: i32, resource: Resource, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the new limit is read from `limit`; a null old limit is allowed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource.0,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    };
    check(done, || format!("prlimit64({resource:?}, {soft}, {hard})")).map(|_| ())
}
