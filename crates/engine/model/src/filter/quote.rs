//! Go's escapes inside a quoted text.

/// The text that `quoted` (with its quotes) stands for; nothing when an escape is none of Go's or the bytes that it
/// makes are not UTF-8, which no field of a record could equal.
pub(super) fn unquote(quoted: &str) -> Option<String> {
    let quote = quoted.chars().next()?;
    let inside = quoted.strip_prefix(quote)?.strip_suffix(quote)?;
    if !inside.contains('\\') {
        return Some(inside.to_owned());
    }
    let mut bytes = Vec::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c == '\\' {
            rest = escape(rest, quote, &mut bytes)?;
        } else {
            push(&mut bytes, c);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Reads one escape behind its backslash; returns what follows it.
fn escape<'a>(text: &'a str, quote: char, bytes: &mut Vec<u8>) -> Option<&'a str> {
    let c = text.chars().next()?;
    let rest = &text[c.len_utf8()..];
    let plain = match c {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' => b'\\',
        'x' => {
            let (value, rest) = number(rest, 2, 16)?;
            bytes.push(u8::try_from(value).ok()?);
            return Some(rest);
        }
        'u' | 'U' => {
            let (value, rest) = number(rest, if c == 'u' { 4 } else { 8 }, 16)?;
            push(bytes, char::from_u32(value)?);
            return Some(rest);
        }
        '0'..='7' => {
            let (value, rest) = number(text, 3, 8)?;
            bytes.push(u8::try_from(value).ok()?);
            return Some(rest);
        }
        _ if c == quote => u8::try_from(c).ok()?,
        _ => return None,
    };
    bytes.push(plain);
    Some(rest)
}

/// The number in the first `digits` characters of `text`.
fn number(text: &str, digits: usize, radix: u32) -> Option<(u32, &str)> {
    let (number, rest) = text.split_at_checked(digits)?;
    let all_digits = number.chars().all(|c| c.is_digit(radix));
    all_digits.then(|| u32::from_str_radix(number, radix).ok())?.map(|value| (value, rest))
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}
