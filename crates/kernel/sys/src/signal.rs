//! Signal numbers and names, and the dispositions a new program starts with.

use std::mem::MaybeUninit;
use std::ptr;

use crate::error::{Error, Result};

/// Names and numbers, as `kill -l` lists them.
const NAMES: [(&str, i32); 33] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGIOT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// The largest signal number.
pub const LAST: i32 = 64;

/// The number of `text`: a number, or a name with or without `SIG`, in any case, real-time ones included.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (0..=LAST).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(&(_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(number);
    }
    if name == "RTMIN" {
        return Some(libc::SIGRTMIN());
    }
    if name == "RTMAX" {
        return Some(libc::SIGRTMAX());
    }
    let number = match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
        (Some(up), _) => libc::SIGRTMIN().checked_add(up.parse::<u8>().ok()?.into())?,
        (None, Some(down)) => libc::SIGRTMAX().checked_sub(down.parse::<u8>().ok()?.into())?,
        (None, None) => return None,
    };
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number).then_some(number)
}

/// The name of a number, without `SIG`.
pub fn name(number: i32) -> Option<&'static str> {
    NAMES.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

/// What Go says of a process that a signal ended, which clients of runtimes read.
const WORDS: [&str; 31] = [
    "hangup",
    "interrupt",
    "quit",
    "illegal instruction",
    "trace/breakpoint trap",
    "aborted",
    "bus error",
    "floating point exception",
    "killed",
    "user defined signal 1",
    "segmentation fault",
    "user defined signal 2",
    "broken pipe",
    "alarm clock",
    "terminated",
    "stack fault",
    "child exited",
    "continued",
    "stopped (signal)",
    "stopped",
    "stopped (tty input)",
    "stopped (tty output)",
    "urgent I/O condition",
    "CPU time limit exceeded",
    "file size limit exceeded",
    "virtual timer expired",
    "profiling timer expired",
    "window changed",
    "I/O possible",
    "power failure",
    "bad system call",
];

/// A signal in words, as Go has them: `killed`, `bad system call`; `signal 40` for one without.
pub fn words(number: i32) -> String {
    let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    index
        .and_then(|index| WORDS.get(index))
        .map_or_else(|| format!("signal {number}"), |words| (*words).to_owned())
}

/// Gives every signal its default disposition and unblocks all of them, as a fresh program expects.
///
/// `execve(2)` resets handlers but keeps ignored signals and the mask; Rust ignores `SIGPIPE` and a shim blocks what it
/// reads from a signalfd.
pub fn reset() -> Result<()> {
    for number in 1..=LAST {
        // SAFETY: SIG_DFL installs no code of ours. The C library refuses its own two signals, which is fine: nobody
        // else can have ignored them either.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given and cannot fail with a valid pointer.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set was initialised above; a null old set is allowed.
    let errno = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut()) };
    if errno == 0 { Ok(()) } else { Err(Error::new(errno, "pthread_sigmask(SIG_SETMASK, [])")) }
}

/// Makes `SIGHUP`, `SIGINT` and `SIGTERM` end this process even when it is the first of a pid namespace, for which the
/// kernel drops signals without a handler. `execve(2)` gives the new program the default dispositions again.
pub fn end_on_request() -> Result<()> {
    for number in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: all zeroes is a valid sigaction: an empty mask, no flags, SIG_DFL.
        let action = unsafe { action.assume_init_mut() };
        let handler: extern "C" fn(libc::c_int) = end;
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESETHAND | libc::SA_NODEFER;
        // SAFETY: the action is initialised above and outlives the call; `end` calls only what is safe in a handler.
        let done = unsafe { libc::sigaction(number, action, ptr::null_mut()) };
        crate::error::check(done.into(), || format!("sigaction({number})"))?;
    }
    Ok(())
}

/// Ends by the signal where the kernel lets it through, else with the status that runc's init has then.
extern "C" fn end(number: libc::c_int) {
    // SAFETY: raise and _exit are async-signal-safe; the default disposition holds again (SA_RESETHAND).
    unsafe {
        libc::raise(number);
        libc::_exit(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGRTMIN+3", libc::SIGRTMIN() + 3),
            ("0", 0),
            ("RTMAX", 64),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in ["", "65", "-1", "NOPE", "SIGRTMIN+90", "RTMAX-90"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(name(15), Some("TERM"));
        assert_eq!((words(9).as_str(), words(31).as_str()), ("killed", "bad system call"));
        assert_eq!((words(0).as_str(), words(40).as_str()), ("signal 0", "signal 40"));
    }
}
