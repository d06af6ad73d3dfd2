//! Core scheduling: which tasks may run on the two threads of a processor core at the same time.

use crate::error::{Result, check};

const PR_SCHED_CORE: libc::c_int = 62;
const PR_SCHED_CORE_CREATE: libc::c_ulong = 1;
/// Only the calling thread; what it clones from now on inherits.
const SCOPE_THREAD: libc::c_ulong = 0;

/// Gives the calling thread and its future children a cookie of their own: no other task shares a core with them.
///
/// `prctl(PR_SCHED_CORE, PR_SCHED_CORE_CREATE)`, Linux 5.14; fails with `ENODEV` on processors without such threads.
pub fn isolate() -> Result<()> {
    const UNUSED: libc::c_ulong = 0;
    // SAFETY: this operation takes numbers only; 0 as the process id means the caller.
    let done = unsafe { libc::prctl(PR_SCHED_CORE, PR_SCHED_CORE_CREATE, UNUSED, SCOPE_THREAD, UNUSED) };
    check(done.into(), || "prctl(PR_SCHED_CORE, PR_SCHED_CORE_CREATE)".into()).map(|_| ())
}
