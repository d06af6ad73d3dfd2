//! Rust source without its comments and literals, so that a word found is a word of the program.

/// Replaces comments and the insides of string and character literals by blanks; line ends stay.
pub fn only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => line_end(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' | b'b' | b'c' if !in_word(bytes, at) => prefixed_end(bytes, at).unwrap_or(at),
            b'\'' => char_end(bytes, at).unwrap_or(at),
            _ => at,
        };
        blank(&mut out[at..end]);
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn blank(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| **byte != b'\n') {
        *byte = b' ';
    }
}

fn in_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
}

/// Block comments nest.
fn comment_end(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut at) = (0_usize, at);
    while at < bytes.len() {
        match &bytes[at..bytes.len().min(at + 2)] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" if depth == 1 => return at + 2,
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of `r"…"`, `r#"…"#`, `b"…"`, `br"…"`, `c"…"`, `b'…'`; `None` when no literal begins here.
fn prefixed_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut open = at;
    while matches!(bytes.get(open), Some(b'r' | b'b' | b'c')) && open < at + 2 {
        open += 1;
    }
    let raw = bytes[at..open].contains(&b'r');
    let hashes = bytes[open..].iter().take_while(|byte| **byte == b'#').count();
    match bytes.get(open + hashes) {
        Some(b'"') if raw => {
            let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
            let inside = open + hashes + 1;
            let length = bytes[inside..].windows(close.len()).position(|part| part == close);
            Some(length.map_or(bytes.len(), |length| inside + length + close.len()))
        }
        Some(b'"') if hashes == 0 => Some(string_end(bytes, open)),
        Some(b'\'') if hashes == 0 && !raw => char_end(bytes, open),
        _ => None,
    }
}

/// The end of a character literal; `None` for a lifetime.
fn char_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at + 1)? {
        b'\\' => bytes[at + 3..].iter().position(|byte| *byte == b'\'').map(|length| at + 4 + length),
        // A character of several bytes has its quote within four of them.
        _ => (at + 2..(at + 6).min(bytes.len()))
            .find(|end| bytes[*end] == b'\'')
            .filter(|end| *end == at + 2 || !bytes[at + 1].is_ascii())
            .map(|end| end + 1),
    }
}

/// Whether `word` stands in `line` as a whole word.
pub fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, words: &str) {
        assert_eq!(only(text).split_whitespace().collect::<Vec<_>>().join(" "), words);
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        check("a(); // unsafe\nb(); /* x /* y */ z */ c();", "a(); b(); c();");
        check(r#"f("unsafe \" x", g)"#, "f( , g)");
        check("f(r#\"a \" b\"#, br\"x\", c\"y\")", "f( , , )");
    }

    #[test]
    fn lifetimes_are_not_characters() {
        check(
            "fn f<'a>(x: &'a str) { g('x', '\\n', '\\'', 'é', b'\"') }",
            "fn f<'a>(x: &'a str) { g( , , , , ) }",
        );
    }

    #[test]
    fn lines_keep_their_numbers() {
        assert_eq!(only("a\n/*\n*/\nb").lines().count(), 4);
    }
}
