//! Splits a filter into tokens.
//!
//! A token's meaning depends on what came before: after an operator a run of printable characters is a value, elsewhere
//! only letters, digits and `_` make a field.

/// A piece of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// Nothing is left.
    End,
    /// A quoted text, quotes included.
    Quoted(&'a str),
    /// A value without quotes.
    Value(&'a str),
    /// A path segment without quotes.
    Field(&'a str),
    /// `,` or `.`.
    Separator,
    /// A run of `=`, `!` and `~`.
    Operator(&'a str),
    /// What can begin no token, or does not end; why, if there is more to say.
    Illegal(Option<&'static str>),
}

/// A position in a filter.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'a> {
    input: &'a str,
    next: usize,
    after_operator: bool,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(input: &'a str) -> Self {
        Self { input, next: 0, after_operator: false }
    }

    /// The byte offset of the next character.
    pub(super) fn offset(&self) -> usize {
        self.next
    }

    /// The next character, blanks included.
    pub(super) fn peek(&self) -> Option<char> {
        self.input[self.next..].chars().next()
    }

    /// The next token and where it begins.
    pub(super) fn scan(&mut self) -> (usize, Token<'a>) {
        self.skip_while(char::is_whitespace);
        let start = self.next;
        let Some(first) = self.peek() else { return (start, Token::End) };
        let token = match first {
            '\0' => Token::Illegal(Some("unexpected null")),
            '/' | '|' | '"' => self.quoted(start, first),
            ',' | '.' => {
                self.next += 1;
                self.after_operator = false;
                Token::Separator
            }
            '=' | '!' | '~' => {
                self.after_operator = true;
                Token::Operator(self.run(start, |c| matches!(c, '=' | '!' | '~')))
            }
            _ if self.after_operator && is_value(first) => {
                self.after_operator = false;
                Token::Value(self.run(start, is_value))
            }
            _ if is_field(first) => Token::Field(self.run(start, is_field)),
            _ => {
                self.next += first.len_utf8();
                Token::Illegal(None)
            }
        };
        (start, token)
    }

    /// A text up to the same quote; a backslash hides the character behind it.
    fn quoted(&mut self, start: usize, quote: char) -> Token<'a> {
        self.next += quote.len_utf8();
        let mut hidden = false;
        while let Some(c) = self.peek() {
            if c == '\n' || c == '\0' {
                break;
            }
            self.next += c.len_utf8();
            if c == quote && !hidden {
                return Token::Quoted(&self.input[start..self.next]);
            }
            hidden = c == '\\' && !hidden;
        }
        Token::Illegal(Some("quoted literal not terminated"))
    }

    fn run(&mut self, start: usize, belongs: impl Fn(char) -> bool) -> &'a str {
        self.skip_while(belongs);
        &self.input[start..self.next]
    }

    fn skip_while(&mut self, belongs: impl Fn(char) -> bool) {
        let rest = &self.input[self.next..];
        self.next += rest.find(|c| !belongs(c)).unwrap_or(rest.len());
    }
}

fn is_field(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

fn is_value(c: char) -> bool {
    c != ',' && !c.is_whitespace() && !c.is_control()
}
