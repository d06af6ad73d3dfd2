//! JSON as Go's decoder reads it, for every document that a Go program writes or reads as well.
//!
//! A struct's keys match without regard to case; where a document has a key twice, in one spelling or several, the last
//! one counts. The keys of maps (labels, annotations, sysctls) are data and stay as they are. `null` is an absent field; as
//! an element of a list or a map it is the zero value of its type. Bytes that are not UTF-8 and lone surrogates are read as
//! U+FFFD.
//!
//! A document is parsed into a tree that borrows its texts, and the tree is handed to serde: only with all keys of an
//! object at hand can the last one win.
//!
//! Invariant: a document has at most [`MAX_VALUES`] values, so that its tree takes a bounded multiple of its bytes.
//! Invariant: structs read here are not `flatten`ed, whose keys serde takes for those of a map.

mod tree;

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::{Error, Map, Value};

use tree::{Misfit, Node};

/// Most values of one document: texts, numbers, lists and objects. A spec or an index of real life has a few thousand.
pub const MAX_VALUES: usize = 1 << 20;

/// Reads the document `json`, after which there must be nothing more.
///
/// # Errors
/// It is not JSON, or a value does not fit; the text names the value's path.
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    read(&String::from_utf8_lossy(json), Rest::Refused)
}

/// [`from_slice`] of a text.
///
/// # Errors
/// As [`from_slice`].
pub fn from_str<T: DeserializeOwned>(json: &str) -> Result<T, Error> {
    read(json, Rest::Refused)
}

/// Reads the first document of `json`, whatever follows it, as Go's `json.NewDecoder(r).Decode` does.
///
/// # Errors
/// As [`from_slice`].
pub fn first_from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    read(&String::from_utf8_lossy(json), Rest::Ignored)
}

/// Reads a parsed value.
///
/// # Errors
/// A value does not fit.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    T::deserialize(Node::of_value(value)).map_err(Misfit::into_json)
}

/// Reads a parsed object.
///
/// # Errors
/// A value does not fit.
pub fn from_object<T: DeserializeOwned>(object: &Map<String, Value>) -> Result<T, Error> {
    T::deserialize(Node::of_object(object)).map_err(Misfit::into_json)
}

/// The value of a struct's field `name` in `object`; `None` when it is absent or `null`.
pub fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object
        .iter()
        .rev()
        .find(|(key, value)| !value.is_null() && is_same_key(key, name))
        .map(|(_, value)| value)
}

/// Whether Go's decoder takes `key` for the field `name`: the same letters in either case, and the two characters that
/// Unicode folds to ASCII.
pub fn is_same_key(key: &str, name: &str) -> bool {
    if key.is_ascii() {
        return key.eq_ignore_ascii_case(name);
    }
    let folded = |c: char| match c {
        'ſ' => 's',
        '\u{212A}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(folded).eq(name.chars().map(folded))
}

/// What to do with bytes behind the document.
#[derive(Clone, Copy)]
enum Rest {
    Refused,
    Ignored,
}

fn read<T: DeserializeOwned>(text: &str, rest: Rest) -> Result<T, Error> {
    match parse(text, rest) {
        Ok(tree) => T::deserialize(tree).map_err(Misfit::into_json),
        Err(error) => {
            let Cow::Owned(text) = without_lone_surrogates(text) else { return Err(error) };
            T::deserialize(parse(&text, rest)?).map_err(Misfit::into_json)
        }
    }
}

fn parse(text: &str, rest: Rest) -> Result<Node<'_>, Error> {
    let mut source = serde_json::Deserializer::from_str(text);
    let tree = Node::parse(&mut source, MAX_VALUES)?;
    match rest {
        Rest::Refused => source.end().map(|()| tree),
        Rest::Ignored => Ok(tree),
    }
}

/// `text` with each half of a surrogate pair that stands alone replaced by `\ufffd`; borrowed when there is none.
fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    let mut mended = String::new();
    let mut rest = text;
    let mut copied = 0;
    while let Some(at) = rest.find('\\') {
        let here = text.len() - rest.len() + at;
        let unit = unit(&text[here..]);
        let next = unit.and_then(|_| self::unit(&text[here + 6..]));
        let skipped = match (unit, next) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                mended.push_str(&text[copied..here]);
                mended.push_str("\\ufffd");
                copied = here + 6;
                6
            }
            (Some(_), _) => 6,
            (None, _) => 1 + text[here + 1..].chars().next().map_or(0, char::len_utf8),
        };
        rest = &text[here + skipped..];
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    mended.push_str(&text[copied..]);
    Cow::Owned(mended)
}

/// The UTF-16 unit of the escape `\uXXXX` at the start of `text`.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests;
