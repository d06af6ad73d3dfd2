//! Session keyrings.

use std::ffi::CString;

use crate::error::{Error, Result, check};

/// Gives this process a session keyring of its own, called `name`. `keyctl(KEYCTL_JOIN_SESSION_KEYRING)`.
pub fn join_session(name: &str) -> Result<()> {
    let name = CString::new(name).map_err(|_| Error::new(libc::EINVAL, format!("keyctl({name:?})")))?;
    // SAFETY: the operation reads one C string, which outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    let keyring = check(done, || format!("keyctl(KEYCTL_JOIN_SESSION_KEYRING, {name:?})"))?;
    let _ = keyring;
    Ok(())
}
