//! Go's regular expressions, translated to the syntax of the `regex` crate.
//!
//! Users of containerd write `~=` filters and lists of sysctls for Go's `regexp`: `\w`, `\d`, `\s`, `\b` are ASCII there,
//! `\<` is a letter and `{` may be one, `\Q...\E` quotes, an octal escape is one, a class has no nested classes and no set
//! operations. What both have alike is passed through; the compiler refuses the rest. Groups do not capture.
//!
//! The result is for `regex::bytes`, on the bytes of a text: only there an ASCII `\B` is allowed.

use std::str::Chars;

/// The largest count of a repetition, as in Go.
const MAX_REPEAT: u32 = 1000;

/// Why a text is no expression of Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegexpError {
    /// A backslash before something that Go gives no meaning.
    #[error("invalid escape sequence: `{0}`")]
    Escape(String),
    /// `(?` with something behind it that Go does not know.
    #[error("invalid or unsupported Perl syntax: `{0}`")]
    Group(String),
    /// A class that does not end, or a range that does not begin before its end.
    #[error("invalid character class range: `{0}`")]
    Class(String),
    /// A repetition of more than 1000, or one whose end is below its beginning.
    #[error("invalid repeat count: `{0}`")]
    Repeat(String),
    /// The last character is a backslash.
    #[error("trailing backslash at end of expression")]
    Trailing,
}

/// Translates `pattern`.
///
/// # Errors
/// Go would refuse it. The `regex` crate may refuse the result, too, where both do: an unclosed group, say.
pub fn translate(pattern: &str) -> Result<String, RegexpError> {
    let mut translation =
        Translation { rest: pattern.chars(), out: String::with_capacity(pattern.len() * 2) };
    while let Some(c) = translation.rest.next() {
        match c {
            '\\' => translation.escape()?,
            '[' => translation.class()?,
            '(' => translation.group()?,
            '{' => translation.repetition()?,
            '*' | '+' | '?' | '|' | '.' | '^' | '$' | ')' => translation.out.push(c),
            c => translation.literal(c),
        }
    }
    Ok(translation.out)
}

struct Translation<'a> {
    rest: Chars<'a>,
    out: String,
}

/// What an escape stands for.
enum Escaped {
    Char(char),
    /// A class, as it stands both outside and inside brackets.
    Class(String),
}

impl Translation<'_> {
    /// Every character that is not a letter or a digit may mean something; its number never does.
    fn literal(&mut self, c: char) {
        if c.is_ascii_alphanumeric() || !c.is_ascii() {
            self.out.push(c);
        } else {
            self.out.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
        }
    }

    fn eat(&mut self, text: &str) -> bool {
        match self.rest.as_str().strip_prefix(text) {
            Some(rest) => {
                self.rest = rest.chars();
                true
            }
            None => false,
        }
    }

    /// What follows a backslash outside of a class.
    fn escape(&mut self) -> Result<(), RegexpError> {
        for (word, translated) in [("A", "\\A"), ("z", "\\z"), ("b", "(?-u:\\b)"), ("B", "(?-u:\\B)")] {
            if self.eat(word) {
                self.out.push_str(translated);
                return Ok(());
            }
        }
        if self.eat("Q") {
            let rest = self.rest.as_str();
            let (quoted, rest) = rest.split_once("\\E").unwrap_or((rest, ""));
            self.rest = rest.chars();
            quoted.chars().for_each(|c| self.literal(c));
            return Ok(());
        }
        if self.eat("E") {
            return Err(RegexpError::Escape("\\E".into()));
        }
        match self.escaped()? {
            Escaped::Char(c) => self.literal(c),
            Escaped::Class(class) => self.out.push_str(&class),
        }
        Ok(())
    }

    /// What follows a backslash anywhere.
    fn escaped(&mut self) -> Result<Escaped, RegexpError> {
        let c = self.rest.next().ok_or(RegexpError::Trailing)?;
        let class = |class: &str| Ok(Escaped::Class(class.to_owned()));
        match c {
            'd' => class("[0-9]"),
            'D' => class("[^0-9]"),
            'w' => class("[0-9A-Za-z_]"),
            'W' => class("[^0-9A-Za-z_]"),
            's' => class("[\\t\\n\\x0C\\r\\x20]"),
            'S' => class("[^\\t\\n\\x0C\\r\\x20]"),
            'p' | 'P' => self.property(c == 'P').map(Escaped::Class),
            'a' => Ok(Escaped::Char('\x07')),
            'f' => Ok(Escaped::Char('\x0C')),
            'n' => Ok(Escaped::Char('\n')),
            'r' => Ok(Escaped::Char('\r')),
            't' => Ok(Escaped::Char('\t')),
            'v' => Ok(Escaped::Char('\x0B')),
            'x' => self.hexadecimal().map(Escaped::Char),
            '0'..='7' => self.octal(c).map(Escaped::Char),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Ok(Escaped::Char(c)),
            c => Err(RegexpError::Escape(format!("\\{c}"))),
        }
    }

    /// `\xFF` or `\x{10FFFF}`.
    fn hexadecimal(&mut self) -> Result<char, RegexpError> {
        let rest = self.rest.as_str();
        let braced = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let (digits, rest) = match braced {
            Some(parts) => parts,
            None => rest.split_at_checked(2).ok_or_else(|| RegexpError::Escape(format!("\\x{rest}")))?,
        };
        let fail = || RegexpError::Escape(format!("\\x{digits}"));
        if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(fail());
        }
        let c = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32).ok_or_else(fail)?;
        self.rest = rest.chars();
        Ok(c)
    }

    /// Up to three octal digits; one alone but zero would be a reference to a group, which Go has not.
    fn octal(&mut self, first: char) -> Result<char, RegexpError> {
        let mut digits = first.to_string();
        while digits.len() < 3
            && let Some(digit) = self.rest.as_str().chars().next().filter(|digit| digit.is_digit(8))
        {
            digits.push(digit);
            self.rest.next();
        }
        let fail = || RegexpError::Escape(format!("\\{digits}"));
        if digits.len() == 1 && first != '0' {
            return Err(fail());
        }
        u32::from_str_radix(&digits, 8).ok().and_then(char::from_u32).ok_or_else(fail)
    }

    /// `\pL`, `\p{Greek}`, `\p{^Greek}`; the `regex` crate knows the names.
    fn property(&mut self, mut negated: bool) -> Result<String, RegexpError> {
        let mut name = String::new();
        if self.eat("{") {
            negated ^= self.eat("^");
            let rest = self.rest.as_str();
            let (inside, after) =
                rest.split_once('}').ok_or_else(|| RegexpError::Escape(format!("\\p{{{rest}")))?;
            name.push_str(inside);
            self.rest = after.chars();
        } else {
            name.extend(self.rest.next());
        }
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(RegexpError::Escape(format!("\\p{{{name}}}")));
        }
        Ok(format!("\\{}{{{name}}}", if negated { 'P' } else { 'p' }))
    }

    /// What follows an opening bracket.
    fn class(&mut self) -> Result<(), RegexpError> {
        let whole = format!("[{}", self.rest.as_str());
        let fail = || RegexpError::Class(whole.chars().take(64).collect());
        self.out.push('[');
        if self.eat("^") {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            if !first && self.eat("]") {
                self.out.push(']');
                return Ok(());
            }
            first = false;
            if let Some(posix) = self.posix() {
                self.out.push_str(&posix);
                continue;
            }
            let low = match self.class_item().ok_or_else(fail)?? {
                Escaped::Char(c) => c,
                Escaped::Class(class) => {
                    self.out.push_str(&class);
                    continue;
                }
            };
            self.literal(low);
            let is_range = self.rest.as_str().starts_with('-') && !self.rest.as_str().starts_with("-]");
            if is_range {
                self.rest.next();
                match self.class_item().ok_or_else(fail)?? {
                    Escaped::Char(high) if high >= low => {
                        self.out.push('-');
                        self.literal(high);
                    }
                    Escaped::Char(_) | Escaped::Class(_) => return Err(fail()),
                }
            }
        }
    }

    /// `[:word:]` or `[:^word:]`, which both syntaxes have.
    fn posix(&mut self) -> Option<String> {
        let (name, rest) = self.rest.as_str().strip_prefix("[:")?.split_once(":]")?;
        let plain = name.strip_prefix('^').unwrap_or(name);
        if plain.is_empty() || !plain.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return None;
        }
        self.rest = rest.chars();
        Some(format!("[:{name}:]"))
    }

    /// One character or escape of a class; `None` at the end of the pattern.
    fn class_item(&mut self) -> Option<Result<Escaped, RegexpError>> {
        match self.rest.next()? {
            '\\' => Some(self.escaped()),
            c => Some(Ok(Escaped::Char(c))),
        }
    }

    /// What follows an opening parenthesis.
    fn group(&mut self) -> Result<(), RegexpError> {
        if !self.eat("?") {
            self.out.push_str("(?:");
            return Ok(());
        }
        let rest = self.rest.as_str();
        let fail = || RegexpError::Group(format!("(?{}", rest.chars().take(16).collect::<String>()));
        if let Some(named) = rest.strip_prefix("P<").or_else(|| rest.strip_prefix('<')) {
            let (name, after) = named.split_once('>').ok_or_else(fail)?;
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err(fail());
            }
            self.rest = after.chars();
            self.out.push_str("(?:");
            return Ok(());
        }
        let end = rest.find([':', ')']).ok_or_else(fail)?;
        let flags = &rest[..end];
        let is_known = flags.bytes().all(|flag| matches!(flag, b'i' | b'm' | b's' | b'U' | b'-'));
        if !is_known || flags.matches('-').count() > 1 || flags.ends_with('-') {
            return Err(fail());
        }
        if flags.is_empty() && rest[end..].starts_with(')') {
            return Err(fail());
        }
        self.out.push_str("(?");
        self.out.push_str(&rest[..=end]);
        self.rest = rest[end + 1..].chars();
        Ok(())
    }

    /// What follows an opening brace: `n}`, `n,}`, `n,m}`, or else the brace is itself.
    fn repetition(&mut self) -> Result<(), RegexpError> {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let Some((inside, rest)) = self.rest.as_str().split_once('}') else {
            self.literal('{');
            return Ok(());
        };
        let (least, most) = match inside.split_once(',') {
            None => (inside, inside),
            Some((least, "")) => (least, least),
            Some(both) => both,
        };
        if !number(least) || !number(most) {
            self.literal('{');
            return Ok(());
        }
        let count = |text: &str| text.parse().ok().filter(|count: &u32| *count <= MAX_REPEAT);
        if !matches!((count(least), count(most)), (Some(least), Some(most)) if least <= most) {
            return Err(RegexpError::Repeat(format!("{{{}}}", inside.chars().take(32).collect::<String>())));
        }
        self.out.push_str(&format!("{{{inside}}}"));
        self.rest = rest.chars();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::bytes::Regex;

    use super::*;

    fn compile(pattern: &str) -> Regex {
        let translated = translate(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        Regex::new(&translated).unwrap_or_else(|error| panic!("{pattern} as {translated}: {error}"))
    }

    #[track_caller]
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let regex = compile(pattern);
        for text in yes {
            assert!(regex.is_match(text.as_bytes()), "{pattern} matches {text:?}");
        }
        for text in no {
            assert!(!regex.is_match(text.as_bytes()), "{pattern} does not match {text:?}");
        }
    }

    #[test]
    fn perl_classes_are_ascii() {
        check(r"^\w+$", &["aZ_9"], &["é", "a-b", "٣"]);
        check(r"^\d$", &["7"], &["٣"]);
        check(r"^\s$", &[" ", "\t", "\n", "\x0C", "\r"], &["\x0B", "\u{a0}", "\u{2003}"]);
        check(r"^\W\D\S$", &["éxé", "\u{a0}a\x0B"], &["ax!"]);
        check(r"^[\w.-]+$", &["a.b-c_9"], &["é"]);
        check(r"^[^\w]$", &["é", "-"], &["a"]);
        check(r"^[\W\d]$", &["é", "5"], &["a"]);
        check(r"\bfoo\b", &["éfooé", "a foo"], &["foox"]);
        check(r"\Bfoo", &["xfoo"], &["éfoo", "foo"]);
        check(r"^[[:word:][:^alpha:]]$", &["a", "_", "é"], &[]);
        check(r"^[[:^space:]]$", &["a"], &["\x0B"]);
    }

    #[test]
    fn dockers_tag_pattern_compiles_within_the_usual_limit() {
        let name = r"^docker\.io/library/busybox:[\w][\w.-]{0,127}$";
        let translated = translate(name).unwrap();
        let regex = regex::bytes::RegexBuilder::new(&translated).size_limit(1 << 20).build().unwrap();
        assert!(regex.is_match(b"docker.io/library/busybox:latest-1.2_3"));
        assert!(!regex.is_match("docker.io/library/busybox:é".as_bytes()));
    }

    #[test]
    fn what_only_go_knows_is_translated() {
        check(r"^\Qa.b[\E+$", &["a.b[", "a.b[["], &["axb["]);
        check(r"^\Qx*", &["x*"], &["xx"]);
        check(r"a\z", &["ba"], &["a\n"]);
        check(r"^(?P<1n>a)(?<m>b)\101\060$", &["abA0"], &["ab"]);
        check(r"^\<\>\_\-\{$", &["<>_-{"], &[]);
        check(r"^a{,5}{x}{$", &["a{,5}{x}{"], &["a"]);
        check(r"^a{2}b{1,}c{0,1}$", &["aab", "aabbc"], &["ab"]);
        check(r"^[[]a&&b~~c--d]$", &["[a&&b~~c--d]"], &[]);
        check(r"^[]a]$", &["]", "a"], &["b"]);
        check(r"^[a&&b]$", &["a", "&", "b"], &["c"]);
        check(r"^[a-c-]$", &["b", "-"], &["d"]);
        check(r"^\p{^Greek}\pL\x{3B1}\x41$", &["aaαA"], &["αaαA"]);
        check(r"^(?i)AB(?-i:c)$", &["abc", "ABc"], &["abC"]);
        check("^a b#c$", &["a b#c"], &[]);
        check(r"^\a\f\n\r\t\v$", &["\x07\x0C\n\r\t\x0B"], &[]);
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for (pattern, wanted) in [
            (r"\y", "invalid escape sequence: `\\y`"),
            (r"\1", "invalid escape sequence: `\\1`"),
            (r"\8", "invalid escape sequence: `\\8`"),
            (r"\C", "invalid escape sequence: `\\C`"),
            (r"[\b]", "invalid escape sequence: `\\b`"),
            (r"\x{110000}", "invalid escape sequence: `\\x110000`"),
            (r"(?=a)", "invalid or unsupported Perl syntax: `(?=a)`"),
            (r"(?x)a", "invalid or unsupported Perl syntax: `(?x)a`"),
            (r"(?P=n)", "invalid or unsupported Perl syntax: `(?P=n)`"),
            (r"[z-a]", "invalid character class range: `[z-a]`"),
            (r"[a", "invalid character class range: `[a`"),
            (r"a{1001}", "invalid repeat count: `{1001}`"),
            (r"a{2,1}", "invalid repeat count: `{2,1}`"),
            ("a\\", "trailing backslash at end of expression"),
        ] {
            assert_eq!(translate(pattern).unwrap_err().to_string(), wanted, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_is_translated_or_refused(pattern in "\\PC*") {
            let _ = translate(&pattern).map(|translated| Regex::new(&translated));
        }

        #[test]
        fn near_patterns_are_translated_or_refused(
            pattern in "([a-z()|*+?.^$\\[\\]{},0-9-]|\\\\[a-zA-Z0-9<>{}\\[\\]]|\\(\\?[a-zA-Z<>:=!-]{0,4}|\\[:\\^?[a-z]{0,5}:\\]){0,12}",
        ) {
            let _ = translate(&pattern).map(|translated| Regex::new(&translated));
        }

        #[test]
        fn quoted_text_matches_itself_alone(text in "[^\\\\\\PC]{0,24}") {
            let regex = Regex::new(&translate(&format!("^\\Q{text}\\E$")).unwrap()).unwrap();
            prop_assert!(regex.is_match(text.as_bytes()));
            let more = format!("{text}x");
            prop_assert!(!regex.is_match(more.as_bytes()));
        }
    }
}
