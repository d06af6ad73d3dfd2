//! From text to [`Filter`].

use regex::bytes::{Regex, RegexBuilder};
use spec::{HasKind, Kind, regexp};

use super::quote::unquote;
use super::scan::{Scanner, Token};
use super::{Filter, Selector, Test};

/// The longest filter, in bytes: a label is at most 4096.
const MAX_FILTER: usize = 64 * 1024;

/// How much memory one compiled regular expression may take, of the first few of a request.
const MAX_REGEX_BYTES: usize = 8 << 20;

/// How many of a request's regular expressions may take that much; each further one a sixteenth of it.
const MAX_LARGE_REGEXES: usize = 16;

/// How many filters a request may have.
const MAX_FILTERS: usize = 4096;

/// How many regular expressions they may have together.
const MAX_REGEXES: usize = 256;

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseFilterError {
    /// The grammar does not allow what is at the marked place.
    #[error("filters: parse error: {place}: {why}: invalid argument")]
    Syntax {
        /// The filter with the place marked `>|c|<`.
        place: String,
        /// What was expected, or is wrong.
        why: String,
    },
    /// The value behind `~=` is no regular expression, or too big a one.
    #[error("filters: error compiling regexp {text:?}: {why}: invalid argument")]
    Regex {
        /// The expression.
        text: String,
        /// The compiler's last line.
        why: String,
    },
    /// The filter is longer than any record's fields.
    #[error("filters: filter of {0} bytes is too long: invalid argument")]
    Length(usize),
    /// The request has more filters or regular expressions than anybody needs.
    #[error("filters: too many {0}: invalid argument")]
    Number(&'static str),
}

impl HasKind for ParseFilterError {
    fn kind(&self) -> Kind {
        match self {
            Self::Syntax { .. } | Self::Regex { .. } | Self::Length(_) | Self::Number(_) => {
                Kind::InvalidArgument
            }
        }
    }
}

/// Parses a request's filters.
pub(super) fn filters<S: AsRef<str>>(texts: &[S]) -> Result<Vec<Filter>, ParseFilterError> {
    if texts.len() > MAX_FILTERS {
        return Err(ParseFilterError::Number("filters"));
    }
    let mut regexes = MAX_REGEXES;
    texts.iter().map(|text| filter(text.as_ref(), &mut regexes)).collect()
}

/// Parses one filter, which may take from the request's number of regular expressions.
fn filter(text: &str, regexes: &mut usize) -> Result<Filter, ParseFilterError> {
    if text.is_empty() {
        return Ok(Filter { all: Vec::new() });
    }
    if text.len() > MAX_FILTER {
        return Err(ParseFilterError::Length(text.len()));
    }
    Parser { input: text, scanner: Scanner::new(text), regexes }.selectors()
}

struct Parser<'a, 'r> {
    input: &'a str,
    scanner: Scanner<'a>,
    regexes: &'r mut usize,
}

impl Parser<'_, '_> {
    fn selectors(mut self) -> Result<Filter, ParseFilterError> {
        let mut all = vec![self.selector()?];
        loop {
            match self.scanner.peek() {
                None => return Ok(Filter { all }),
                Some(',') => {
                    self.scanner.scan();
                    all.push(self.selector()?);
                }
                Some(c) => return Err(self.wrong(self.scanner.offset(), format!("unexpected input: {c}"))),
            }
        }
    }

    fn selector(&mut self) -> Result<Selector, ParseFilterError> {
        let path = self.path()?;
        if matches!(self.scanner.peek(), None | Some(',')) {
            return Ok(Selector { path, test: Test::Present });
        }
        let (at, token) = self.scanner.scan();
        let test = match token {
            Token::Operator("==") => Test::Equal(self.value(false)?),
            Token::Operator("!=") => Test::NotEqual(self.value(false)?),
            Token::Operator("~=") => Test::Matches(self.regex()?),
            Token::Operator(other) => return Err(self.wrong(at, format!("unsupported operator {other:?}"))),
            Token::Illegal(Some(why)) => return Err(self.wrong(at, why)),
            _ => return Err(self.wrong(at, "expected an operator (\"==\"|\"!=\"|\"~=\")")),
        };
        Ok(Selector { path, test })
    }

    fn regex(&mut self) -> Result<Regex, ParseFilterError> {
        *self.regexes = self.regexes.checked_sub(1).ok_or(ParseFilterError::Number("regular expressions"))?;
        let is_early = *self.regexes >= MAX_REGEXES - MAX_LARGE_REGEXES;
        regex(&self.value(true)?, if is_early { MAX_REGEX_BYTES } else { MAX_REGEX_BYTES / 16 })
    }

    fn path(&mut self) -> Result<Vec<String>, ParseFilterError> {
        let mut path = vec![self.segment()?];
        while self.scanner.peek() == Some('.') {
            self.scanner.scan();
            path.push(self.segment()?);
        }
        Ok(path)
    }

    fn segment(&mut self) -> Result<String, ParseFilterError> {
        let (at, token) = self.scanner.scan();
        match token {
            Token::Field(text) => Ok(text.to_owned()),
            Token::Quoted(text) => self.unquoted(at, text, false),
            Token::Illegal(Some(why)) => Err(self.wrong(at, why)),
            _ => Err(self.wrong(at, "expected field or quoted")),
        }
    }

    fn value(&mut self, any_quote: bool) -> Result<String, ParseFilterError> {
        let (at, token) = self.scanner.scan();
        match token {
            Token::Value(text) | Token::Field(text) => Ok(text.to_owned()),
            Token::Quoted(text) => self.unquoted(at, text, any_quote),
            Token::Illegal(Some(why)) => Err(self.wrong(at, why)),
            _ => Err(self.wrong(at, "expected value or quoted")),
        }
    }

    fn unquoted(&self, at: usize, text: &str, any_quote: bool) -> Result<String, ParseFilterError> {
        if !any_quote && !text.starts_with('"') {
            return Err(self.wrong(at, "invalid quote encountered"));
        }
        unquote(text).ok_or_else(|| self.wrong(at, "unquoting failed: quote syntax error"))
    }

    fn wrong(&self, at: usize, why: impl Into<String>) -> ParseFilterError {
        let place = match self.input[at..].chars().next() {
            Some(c) => {
                format!("[{} >|{c}|< {}]", &self.input[..at], &self.input[at + c.len_utf8()..])
            }
            None => format!("[{}]", self.input),
        };
        ParseFilterError::Syntax { place, why: why.into() }
    }
}

fn regex(text: &str, limit: usize) -> Result<Regex, ParseFilterError> {
    let fail = |why: String| ParseFilterError::Regex { text: text.to_owned(), why };
    let translated = regexp::translate(text).map_err(|error| fail(error.to_string()))?;
    RegexBuilder::new(&translated).size_limit(limit).build().map_err(|error| {
        let why = error.to_string();
        fail(why.lines().last().unwrap_or_default().trim().to_owned())
    })
}
