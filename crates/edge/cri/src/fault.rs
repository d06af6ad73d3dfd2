//! Faults on demand, for tests: a step of a verb fails, or the daemon dies right behind it.
//!
//! The variable `BERTH_FAULT` names a file, which holds a line `fail STEP` or `die STEP` while that step is to go wrong, or
//! `hurry STEP` while that step is to be given up early.
//!
//! Invariant: only debug builds look at it; a release build has neither the variable nor the steps' names.

use std::time::Duration;

use model::Result;

/// What a test asks for at `step`.
#[cfg(debug_assertions)]
fn asked(how: &str, step: &str) -> bool {
    use std::path::PathBuf;
    use std::sync::LazyLock;

    static FILE: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("BERTH_FAULT").map(Into::into));

    let Some(file) = FILE.as_deref() else { return false };
    let asked = std::fs::read_to_string(file).unwrap_or_default();
    asked.lines().any(|line| line.trim().split_once(' ') == Some((how, step)))
}

/// No test asks for anything of a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
fn asked(_how: &str, _step: &str) -> bool {
    false
}

/// Goes wrong behind `step` when a test asked for that.
///
/// # Errors
/// A test asked for one.
pub(crate) fn after(step: &str) -> Result<()> {
    if asked("die", step) {
        // As SIGKILL does it: nothing of ours runs any more.
        std::process::abort();
    }
    if asked("fail", step) {
        return Err(spec::Error::internal(format!("a test's fault after {step:?}")));
    }
    Ok(())
}

/// How long `step` may take: as `usual`, unless a test cannot wait.
pub(crate) fn limit(step: &str, usual: Duration) -> Duration {
    if asked("hurry", step) { Duration::from_secs(2) } else { usual }
}
