//! How a command fails: a text for standard error, perhaps a hint, and an exit code.

use std::fmt;

use spec::{Error, Kind};

/// A command's failure.
#[derive(Debug)]
pub struct Failure {
    text: String,
    hint: Option<String>,
    code: u8,
    kind: Kind,
}

/// The result of a command.
pub type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with exit code 1.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), hint: None, code: 1, kind: Kind::Unknown }
    }

    /// The exit of a container's process: nothing is printed.
    pub fn exit(code: u32) -> Self {
        Self {
            text: String::new(),
            hint: None,
            code: u8::try_from(code & 0xff).unwrap_or(1),
            kind: Kind::Unknown,
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts `what` before the text.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.text = format!("{what}: {}", self.text);
        self
    }

    /// The text without the hint.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// The class of the error.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it says that something does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind == Kind::NotFound
    }

    /// Whether it says that something exists.
    pub fn is_already_exists(&self) -> bool {
        self.kind == Kind::AlreadyExists
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { kind: error.kind(), ..Self::new(error.text()) }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let kind = Kind::from_code(status.code() as i32);
        let text = if status.message().is_empty() { kind.to_string() } else { status.message().to_owned() };
        Self { kind, ..Self::new(text) }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            // `ctr ... | head` has read enough; that is the end, as SIGPIPE would have made it, and no news.
            return Self::exit(141);
        }
        let kind = Kind::from_errno(error.raw_os_error().unwrap_or(0));
        Self { kind, ..Self::new(error.to_string()) }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self { kind: Kind::InvalidArgument, ..Self::new(error.to_string()) }
    }
}

impl From<sys::Error> for Failure {
    fn from(error: sys::Error) -> Self {
        Self { kind: Kind::from_errno(error.errno()), ..Self::new(error.to_string()) }
    }
}

/// Lets `.or_fail("what")` put the step before an error.
pub trait OrFail<T> {
    /// Puts `what` before the error's text.
    ///
    /// # Errors
    /// The same error, worded.
    fn or_fail(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Failure>> OrFail<T> for std::result::Result<T, E> {
    fn or_fail(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| error.into().context(what))
    }
}
