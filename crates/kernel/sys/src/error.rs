//! The one error of this crate: a system call that failed, printed as it was made.
//!
//! Invariant: the text names the call and its arguments, so that whoever passes it on adds only what it was for.

use std::fmt;

/// A system call that failed.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    errno: i32,
    call: Box<str>,
    note: Option<Box<str>>,
}

/// What a function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The failure `errno` of the call spelled `call`, such as `fsopen(overlay)`.
    pub fn new(errno: i32, call: impl Into<Box<str>>) -> Self {
        Self { errno, call: call.into(), note: None }
    }

    /// The failure that `errno(3)` holds right now.
    pub fn last(call: impl Into<Box<str>>) -> Self {
        Self::new(last_errno(), call)
    }

    /// Adds what the kernel had to say besides the number, such as an fscontext's log.
    #[must_use]
    pub fn note(mut self, note: impl Into<Box<str>>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// The error number.
    pub fn errno(&self) -> i32 {
        self.errno
    }

    /// Whether the call failed with `errno`.
    pub fn is(&self, errno: i32) -> bool {
        self.errno == errno
    }

    /// The call as it was made.
    pub fn call(&self) -> &str {
        &self.call
    }

    /// The kernel's words for the number, as the C library and Go spell them: `no such file or directory`.
    pub fn words(&self) -> String {
        words(self.errno)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.words())?;
        match &self.note {
            Some(note) => write!(f, " ({note})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} [errno {}]", self.errno)
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::from_raw_os_error(error.errno)
    }
}

/// The kernel's words for `errno`, in lower case.
pub fn words(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => format!("errno {errno}"),
    }
}

/// The current value of `errno(3)`.
pub(crate) fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Turns the result of a raw call into a value or an [`Error`] that spells the call.
pub(crate) fn check(value: libc::c_long, call: impl FnOnce() -> String) -> Result<libc::c_long> {
    if value < 0 { Err(Error::last(call())) } else { Ok(value) }
}

/// An argument as `strace(1)` would show it: a descriptor is its number, flags are their names.
pub(crate) fn argument(debug: &str) -> String {
    let number = ["OwnedFd { fd: ", "BorrowedFd { fd: "].iter().find_map(|prefix| debug.strip_prefix(prefix));
    if let Some(number) = number.and_then(|rest| rest.strip_suffix(" }")) {
        return if number == "-100" { "AT_FDCWD".into() } else { number.into() };
    }
    match debug.split_once("Flags(").and_then(|(name, rest)| Some((name, rest.strip_suffix(')')?))) {
        Some((name, names)) if name.chars().all(char::is_alphanumeric) => names.into(),
        _ => debug.into(),
    }
}

/// Names a failed rustix call: `call!("unlinkat", fd, name)` is a function from errno to [`Error`].
macro_rules! call {
    ($name:literal $(, $arg:expr)* $(,)?) => {
        |errno: rustix::io::Errno| {
            let args: Vec<String> = vec![$($crate::error::argument(&format!("{:?}", $arg))),*];
            let text = format!("{}({})", $name, args.join(", "));
            $crate::error::Error::new(errno.raw_os_error(), text)
        }
    };
}
pub(crate) use call;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_short() {
        for (debug, text) in [
            ("OwnedFd { fd: 5 }", "5"),
            ("BorrowedFd { fd: -100 }", "AT_FDCWD"),
            ("OFlags(CLOEXEC | PATH)", "CLOEXEC | PATH"),
            ("OpenTreeFlags(OPEN_TREE_CLONE)", "OPEN_TREE_CLONE"),
            ("\"etc\"", "\"etc\""),
        ] {
            assert_eq!(argument(debug), text);
        }
    }

    #[test]
    fn the_text_is_the_call_and_the_kernels_words() {
        let error = Error::new(libc::ENOENT, "openat2(3, \"etc\")");
        assert_eq!(error.to_string(), "openat2(3, \"etc\"): no such file or directory");
        assert_eq!(error.note("why").to_string(), "openat2(3, \"etc\"): no such file or directory (why)");
    }
}
