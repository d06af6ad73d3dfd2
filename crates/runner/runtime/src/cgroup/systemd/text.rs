//! Values written as text, as annotations `org.systemd.property.*` have them: GVariant's text format as far as
//! properties of units need it, which is numbers, truth values, texts and arrays of them.
//!
//! ```text
//! true   7   uint64 5000   'text'   "text"   ['a', 'b']   @au []   byte 0x1f   [uint32 1, 2]
//! ```
//!
//! Invariant: a number that its type cannot hold is refused, not cut.

use super::value::Value;

/// Longest text taken.
const LONGEST: usize = 4096;

/// How deep arrays may nest.
const DEEPEST: usize = 4;

/// Why a text is no value, in a few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TextError(&'static str);

const END: TextError = TextError("unexpected end");

/// Reads a whole text.
pub fn parse(text: &str) -> Result<Value, TextError> {
    if text.len() > LONGEST {
        return Err(TextError("too long"));
    }
    let mut parser = Parser { rest: text };
    let value = parser.value(None, 0)?;
    parser.space();
    if parser.rest.is_empty() { Ok(value) } else { Err(TextError("something follows the value")) }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, letter: char) -> bool {
        self.space();
        match self.rest.strip_prefix(letter) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Letters, digits and what numbers are made of.
    fn word(&mut self) -> &'a str {
        let is_word =
            |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '+' | '.' | '_');
        let end = self.rest.find(|letter| !is_word(letter)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// One value, of the type `wanted` if something before it named one.
    fn value(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, TextError> {
        self.space();
        match self.rest.chars().next().ok_or(END)? {
            '@' if wanted.is_none() => {
                self.rest = &self.rest[1..];
                let end = self.rest.find(char::is_whitespace).ok_or(END)?;
                let (signature, rest) = self.rest.split_at(end);
                self.rest = rest;
                check_signature(signature)?;
                self.value(Some(signature), depth)
            }
            '[' => self.array(wanted, depth),
            quote @ ('\'' | '"') => {
                self.rest = &self.rest[1..];
                let text = self.quoted(quote)?;
                match wanted.unwrap_or("s") {
                    "s" => Ok(Value::Str(text)),
                    "o" => Ok(Value::Path(text)),
                    "g" => Ok(Value::Signature(text)),
                    _ => Err(TextError("a text where another type belongs")),
                }
            }
            _ => self.plain(wanted, depth),
        }
    }

    fn plain(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, TextError> {
        let word = self.word();
        if let Some(named) = type_of_word(word) {
            return match wanted {
                None => self.value(Some(named), depth),
                Some(_) => Err(TextError("a type after a type")),
            };
        }
        match (word, wanted) {
            ("true", None | Some("b")) => Ok(Value::Bool(true)),
            ("false", None | Some("b")) => Ok(Value::Bool(false)),
            ("", _) => Err(TextError("an unknown character")),
            _ => number(word, wanted),
        }
    }

    fn array(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, TextError> {
        if depth == DEEPEST {
            return Err(TextError("arrays nest too deep"));
        }
        let mut element = match wanted {
            None => None,
            Some(signature) => {
                let element =
                    signature.strip_prefix('a').ok_or(TextError("an array where another type belongs"))?;
                Some(element.to_owned())
            }
        };
        self.eat('[');
        let mut items = Vec::new();
        while !self.eat(']') {
            if !items.is_empty() && !self.eat(',') {
                return Err(TextError("a comma is missing"));
            }
            let item = self.value(element.as_deref(), depth + 1)?;
            // The first element says what the others are.
            element.get_or_insert_with(|| item.signature());
            items.push(item);
        }
        let element = element.ok_or(TextError("an empty array needs a type, such as @as []"))?;
        Ok(Value::Array(element, items))
    }

    fn quoted(&mut self, quote: char) -> Result<String, TextError> {
        let mut text = String::new();
        let mut letters = self.rest.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                letter if letter == quote => {
                    self.rest = &self.rest[at + letter.len_utf8()..];
                    return Ok(text);
                }
                '\\' => text.push(match letters.next().ok_or(END)?.1 {
                    'n' => '\n',
                    't' => '\t',
                    letter @ ('\\' | '\'' | '"') => letter,
                    _ => return Err(TextError("an unknown escape")),
                }),
                '\0' => return Err(TextError("a zero in a text")),
                letter => text.push(letter),
            }
        }
        Err(END)
    }
}

/// Arrays of one basic type.
fn check_signature(signature: &str) -> Result<(), TextError> {
    let element = signature.trim_start_matches('a');
    let is_known = element.len() == 1 && "ybnqiuxtdsog".contains(element);
    let depth = signature.len() - element.len();
    if is_known && depth <= DEEPEST { Ok(()) } else { Err(TextError("an unknown type")) }
}

fn type_of_word(word: &str) -> Option<&'static str> {
    Some(match word {
        "boolean" => "b",
        "byte" => "y",
        "int16" => "n",
        "uint16" => "q",
        "int32" => "i",
        "uint32" => "u",
        "int64" => "x",
        "uint64" => "t",
        "double" => "d",
        "string" => "s",
        "objectpath" => "o",
        "signature" => "g",
        _ => return None,
    })
}

/// A number without a type is a 32-bit one, or a double if it has a point.
fn number(word: &str, wanted: Option<&str>) -> Result<Value, TextError> {
    let wanted = wanted.unwrap_or(if word.contains('.') { "d" } else { "i" });
    if wanted == "d" {
        let value: f64 = word.parse().map_err(|_| TextError("not a number"))?;
        return if value.is_finite() { Ok(Value::F64(value)) } else { Err(TextError("not a number")) };
    }
    let value = integer(word).ok_or(TextError("not a number"))?;
    const RANGE: TextError = TextError("a number that its type cannot hold");
    let range = |_| RANGE;
    Ok(match wanted {
        "y" => Value::Byte(value.try_into().map_err(range)?),
        "n" => Value::I16(value.try_into().map_err(range)?),
        "q" => Value::U16(value.try_into().map_err(range)?),
        "i" => Value::I32(value.try_into().map_err(range)?),
        "u" => Value::U32(value.try_into().map_err(range)?),
        "x" => Value::I64(value.try_into().map_err(range)?),
        "t" => Value::U64(value.try_into().map_err(range)?),
        _ => return Err(TextError("a number where another type belongs")),
    })
}

fn integer(word: &str) -> Option<i128> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, word.strip_prefix('+').unwrap_or(word)),
    };
    let (radix, digits) = match digits.strip_prefix("0x") {
        Some(digits) => (16, digits),
        None => (10, digits),
    };
    // The parser itself would take a sign.
    if !digits.starts_with(|digit: char| digit.is_digit(radix)) {
        return None;
    }
    Some(sign * i128::from(u64::from_str_radix(digits, radix).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_types_they_name() {
        for (text, value) in [
            ("true", Value::Bool(true)),
            ("7", Value::I32(7)),
            (" uint64 5000 ", Value::U64(5000)),
            ("byte 0x1f", Value::Byte(31)),
            ("-1", Value::I32(-1)),
            ("1.5", Value::F64(1.5)),
            ("'it\\'s'", Value::text("it's")),
            ("\"a b\"", Value::text("a b")),
            ("['a', 'b']", Value::Array("s".into(), vec![Value::text("a"), Value::text("b")])),
            ("@au []", Value::Array("u".into(), Vec::new())),
            ("@au [1]", Value::Array("u".into(), vec![Value::U32(1)])),
            ("[uint64 1]", Value::Array("t".into(), vec![Value::U64(1)])),
        ] {
            assert_eq!(parse(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in [
            "",
            "7 8",
            "uint64 -1",
            "byte 256",
            "[",
            "[]",
            "[1 2]",
            "['a', 1]",
            "@z 1",
            "@a []",
            "'a",
            "2147483648",
            "uint64 uint64 1",
            "@s 1",
            "{'a': 1}",
            "<1>",
            "--1",
            "0x",
            "nan",
            "1e9999",
            "((((",
            "[[[[[[1]]]]]]",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_does_harm(text in r#"[a-z0-9@'"\\,. \[\]-]{0,40}"#) {
            let _ = parse(&text);
        }
    }
}
