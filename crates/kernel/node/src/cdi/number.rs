//! Numbers and truths of a file, which JSON has as such and YAML as text.

use serde::de::{Deserialize, Deserializer, Error as _, Visitor};

/// A number, which YAML has as text: decimal, or as Go reads it: `0x`, `0o` and a leading zero for octal, `0b`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Number(pub i64);

impl Number {
    /// As a number that fits, which [`parse`] has made sure of.
    pub fn small(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Number;
            fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                to.write_str("a number")
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Number, E> {
                Ok(Number(number))
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Number, E> {
                i64::try_from(number).map(Number).map_err(E::custom)
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Number, E> {
                number(text).map(Number).ok_or_else(|| E::custom(format_args!("{text:?} is no number")))
            }
        }
        from.deserialize_any(Any)
    }
}

/// Whether something is so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Truth(pub bool);

impl<'de> Deserialize<'de> for Truth {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(from)? {
            serde_json::Value::Bool(truth) => Ok(Self(truth)),
            serde_json::Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(Self(true)),
            serde_json::Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(Self(false)),
            other => Err(D::Error::custom(format_args!("{other} is neither true nor false"))),
        }
    }
}

fn number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let radix = |prefix: &str, radix| Some((digits.strip_prefix(prefix)?, radix));
    let zero = || digits.strip_prefix('0').filter(|rest| !rest.is_empty()).map(|rest| (rest, 8));
    let found = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| radix("0b", 2)).or_else(zero);
    let (digits, radix) = found.unwrap_or((digits, 10));
    // A second sign would pass `from_str_radix`.
    if !digits.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return None;
    }
    let number = i64::from_str_radix(digits, radix).ok()?;
    Some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_gos() {
        for (text, value) in [
            ("0", Some(0)),
            ("438", Some(438)),
            ("0666", Some(438)),
            ("0o666", Some(438)),
            ("0x1b6", Some(438)),
            ("0b11", Some(3)),
            ("-7", Some(-7)),
            ("+7", Some(7)),
            ("", None),
            ("-", None),
            ("--7", None),
            ("0x-7", None),
            ("0999", None),
            ("1.5", None),
            ("9223372036854775808", None),
        ] {
            assert_eq!(number(text), value, "{text}");
        }
    }
}
