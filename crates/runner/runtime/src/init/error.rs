//! Why init gave up: one text, carried to the parent.

use std::fmt;

/// A step of init that failed.
#[derive(Debug)]
pub(crate) struct InitError {
    errno: i32,
    text: String,
}

impl InitError {
    /// A failure without a system call, in words for the user.
    pub(crate) fn text_only(text: impl Into<String>) -> Self {
        Self { errno: 0, text: text.into() }
    }

    /// The failure of something that has its own error.
    pub(crate) fn other(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        Self { errno: 0, text }
    }

    /// Puts `what` before the text.
    #[must_use]
    pub(crate) fn context(mut self, what: impl fmt::Display) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }

    /// The errno of the call, 0 when there was none.
    pub(crate) fn errno(&self) -> i32 {
        self.errno
    }

    /// The complete text.
    pub(crate) fn text(&self) -> String {
        self.text.clone()
    }
}

impl From<sys::calls::Failure> for InitError {
    fn from(failure: sys::calls::Failure) -> Self {
        let words = sys::error::words(failure.errno);
        Self { errno: failure.errno, text: format!("{}: {words}", failure.text) }
    }
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for InitError {}

/// Says what a failed call was for.
pub(crate) trait Step<T> {
    /// `what: the call: its errno`.
    fn step(self, what: impl FnOnce() -> String) -> Result<T, InitError>;
}

impl<T> Step<T> for Result<T, sys::Error> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, InitError> {
        self.map_err(|error| InitError { errno: error.errno(), text: format!("{}: {error}", what()) })
    }
}
