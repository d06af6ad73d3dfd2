//! YAML as far as these files use it: one document of mappings, sequences and scalars, as JSON whose scalars are text.
//!
//! Aliases and tags are refused: nothing may grow beyond its file or be something else than it looks.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// How deep collections may be in each other.
const MAX_DEPTH: usize = 32;

/// A collection that is not complete yet.
enum Open {
    List(Vec<Value>),
    Map(Map<String, Value>, Option<String>),
}

/// Parses the only document of `text`.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut open: Vec<Open> = Vec::new();
    let mut whole: Option<Value> = None;
    for event in Parser::new_from_str(text) {
        let (event, _) = event.map_err(|error| error.to_string())?;
        let value = match event {
            Event::Scalar(text, style, _, None) => scalar(&text, style),
            Event::SequenceStart(_, None) => {
                open.push(Open::List(Vec::new()));
                None
            }
            Event::MappingStart(_, None) => {
                open.push(Open::Map(Map::new(), None));
                None
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list)) => Some(Value::Array(list)),
                Some(Open::Map(map, None)) => Some(Value::Object(map)),
                _ => return Err("a collection ends before it is complete".into()),
            },
            Event::Alias(_) => return Err("aliases are not supported".into()),
            Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) => {
                return Err("tags are not supported".into());
            }
            _ => None,
        };
        if open.len() > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} levels"));
        }
        let Some(value) = value else { continue };
        match open.last_mut() {
            Some(into) => put(into, value)?,
            None if whole.is_some() => return Err("more than one document".into()),
            None => whole = Some(value),
        }
    }
    whole.ok_or_else(|| "no document".into())
}

#[expect(clippy::unnecessary_wraps, reason = "an event's value, of which some have none")]
fn scalar(text: &str, style: ScalarStyle) -> Option<Value> {
    let plain = matches!(style, ScalarStyle::Plain);
    let empty = plain && matches!(text, "" | "~" | "null" | "Null" | "NULL");
    Some(if empty { Value::Null } else { Value::String(text.to_owned()) })
}

/// Adds a value to a collection; in a mapping every other one is a key.
fn put(into: &mut Open, value: Value) -> Result<(), String> {
    match into {
        Open::List(list) => list.push(value),
        Open::Map(map, key) => match key.take() {
            Some(key) => {
                map.insert(key, value);
            }
            None => match value {
                Value::String(name) if map.contains_key(&name) => {
                    return Err(format!("key {name:?} comes twice"));
                }
                Value::String(name) => *key = Some(name),
                _ => return Err("a key that is no text".into()),
            },
        },
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn collections_and_scalars() {
        let text = "---\na: 0666\n'b':\n- x: \"y\\n\"\n  z: ~\n- [1, {k: v}]\nc: |\n  one\n  two\n";
        let wanted =
            json!({"a": "0666", "b": [{"x": "y\n", "z": null}, ["1", {"k": "v"}]], "c": "one\ntwo\n"});
        assert_eq!(parse(text).unwrap(), wanted);
        assert_eq!(parse(r#"{"a": ["b", "null"]}"#).unwrap(), json!({"a": ["b", "null"]}));
    }

    #[test]
    fn what_is_not_plain_is_refused() {
        for text in [
            "",
            "a: 1\n---\nb: 2",
            "a: 1\na: 2",
            "a: &x [1]\nb: *x",
            "a: !!binary aGk=",
            "? [a]\n: b",
            "a: [",
            "\t- a\n b",
            "a: b: c",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        let deep = "[".repeat(MAX_DEPTH + 1) + &"]".repeat(MAX_DEPTH + 1);
        assert!(parse(&deep).is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[-a:{}\\[\\]\"'&*!|>#,? \n\t0~%@`é]{0,60}") {
            let _either = parse(&text);
        }
    }
}
