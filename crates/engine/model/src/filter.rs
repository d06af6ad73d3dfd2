//! Filters: containerd's grammar for choosing records.
//!
//! ```text
//! filter    = selector *( "," selector )          all of them must hold
//! selector  = path [ operator value ]             a path alone asks whether the field is there
//! path      = segment *( "." segment )
//! segment   = quoted / 1*( letter / digit / "_" )
//! operator  = "==" / "!=" / "~="                  "~=" takes a regular expression
//! value     = quoted / 1*( any printable but "," )
//! quoted    = '"' text with Go's escapes '"'      after "~=" also between "/" or "|"
//! ```
//!
//! A request carries a list of filters, of which one must hold; an empty list, and an empty filter, pass everything.
//!
//! Invariant: parsing is total and bounded: any text gives a filter or an error, in time linear to its length, and a
//! regular expression is compiled here, once, within a fixed size.

mod parse;
mod quote;
mod scan;

use std::sync::Arc;

use regex::bytes::Regex;
use spec::{Labels, Result};

pub use parse::ParseFilterError;

/// A record whose fields a filter can name.
pub trait Fields {
    /// The value at `path`, or nothing when the record has no such field.
    fn field(&self, path: &[&str]) -> Option<&str>;
}

/// The label whose key is `path`; a key with dots may arrive in one piece or in several.
pub fn label<'a>(labels: &'a Labels, path: &[&str]) -> Option<&'a str> {
    match path {
        [key] => labels.get(*key).map(String::as_str),
        _ => labels.get(&path.join(".")).map(String::as_str),
    }
}

/// `value`, unless it is empty: a field that was never set is not there.
pub fn present(value: &str) -> Option<&str> {
    (!value.is_empty()).then_some(value)
}

/// Filters joined by "or"; none at all passes everything.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    any: Arc<[Filter]>,
}

/// Selectors joined by "and".
#[derive(Debug)]
struct Filter {
    all: Vec<Selector>,
}

/// One condition on one field.
#[derive(Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

/// What a selector asks of its field.
#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filters {
    /// Parses a request's filters.
    ///
    /// # Errors
    /// `InvalidArgument`, in containerd's words, for the first filter that is not one.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self> {
        Ok(Self { any: parse::filters(texts)?.into() })
    }

    /// Whether `record` passes.
    pub fn matches(&self, record: &dyn Fields) -> bool {
        self.any.is_empty() || self.any.iter().any(|filter| filter.matches(record))
    }

    /// Whether every record passes, so that none needs to be asked.
    pub fn pass_all(&self) -> bool {
        self.any.is_empty() || self.any.iter().any(|filter| filter.all.is_empty())
    }
}

impl Filter {
    fn matches(&self, record: &dyn Fields) -> bool {
        self.all.iter().all(|selector| selector.matches(record))
    }
}

impl Selector {
    fn matches(&self, record: &dyn Fields) -> bool {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let value = record.field(&path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value == Some(wanted),
            // An absent field is unequal to everything but the empty text, and matches what the empty text matches.
            Test::NotEqual(wanted) => value.unwrap_or_default() != wanted,
            Test::Matches(regex) => regex.is_match(value.unwrap_or_default().as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests;
