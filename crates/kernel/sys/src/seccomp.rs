//! System call filters: `seccomp(2)`.

use std::os::fd::{FromRawFd, OwnedFd};

use crate::{Error, Result};

/// One instruction of classic BPF, as `struct sock_filter` of `linux/filter.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if a comparison holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// The longest program that the kernel takes (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// `SECCOMP_FILTER_FLAG_TSYNC`: put every thread of the process under the filter.
pub const FLAG_TSYNC: u32 = 1;
/// `SECCOMP_FILTER_FLAG_LOG`: log every action but allow.
pub const FLAG_LOG: u32 = 1 << 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: leave speculative store bypass alone.
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`: return a notification descriptor.
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`: a notified task waits killably (Linux 5.19).
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

#[repr(C)]
struct Program {
    len: u16,
    filter: *const Instruction,
}

/// Puts the calling thread under `filter` for good; returns the listener if `flags` ask for one.
///
/// `seccomp(2)`, Linux 3.17. Needs `no_new_privs` or CAP_SYS_ADMIN in the caller's user namespace.
pub fn install(filter: &[Instruction], flags: u32) -> Result<Option<OwnedFd>> {
    let call = || format!("seccomp(SECCOMP_SET_MODE_FILTER, {flags:#x}, {} instructions)", filter.len());
    if filter.len() > MAX_INSTRUCTIONS {
        return Err(Error::new(libc::EINVAL, call()));
    }
    let program = Program { len: filter.len() as u16, filter: filter.as_ptr() };
    // SAFETY: the kernel reads `len` instructions from `filter`, which the borrowed slice holds.
    let value = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
    };
    let value = crate::error::check(value, call)?;
    if flags & FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with FLAG_NEW_LISTENER a successful call returns a new descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(value as i32) }))
}

/// Whether the kernel knows the filter flag `flag`.
pub fn has_flag(flag: u32) -> bool {
    // SAFETY: a null program is what makes the call fail (EFAULT, the flag being known) before it changes anything.
    let value = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flag, std::ptr::null::<Program>())
    };
    value < 0 && crate::error::last_errno() == libc::EFAULT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_longer_than_the_kernels_bound_is_refused_before_the_call() {
        let filter = vec![Instruction::default(); MAX_INSTRUCTIONS + 1];
        assert_eq!(install(&filter, 0).unwrap_err().errno(), libc::EINVAL);
    }

    #[test]
    fn the_log_flag_is_known_and_an_invented_one_is_not() {
        assert!(has_flag(FLAG_LOG));
        assert!(!has_flag(1 << 30));
    }
}
