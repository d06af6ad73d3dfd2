//! `WWW-Authenticate`: what a registry wants to see before it serves.

use std::collections::BTreeMap;

/// One challenge of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme in lower case: `bearer`, `basic`.
    pub scheme: String,
    /// Its parameters, names in lower case.
    pub params: BTreeMap<String, String>,
}

impl Challenge {
    /// A parameter, if it is there and not empty.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Reads every challenge of a field (RFC 9110, section 11.6.1); what cannot be read ends the list.
pub fn parse(field: &str) -> Vec<Challenge> {
    let mut rest = Cursor { text: field };
    let mut challenges: Vec<Challenge> = Vec::new();
    loop {
        rest.skip(|c| c.is_ascii_whitespace() || c == ',');
        let word = rest.take(is_token);
        if word.is_empty() {
            return challenges;
        }
        rest.skip(|c| c.is_ascii_whitespace());
        if rest.eat('=') {
            rest.skip(|c| c.is_ascii_whitespace());
            let Some(value) = rest.value() else { return challenges };
            if let Some(challenge) = challenges.last_mut() {
                challenge.params.entry(word.to_ascii_lowercase()).or_insert(value);
            }
        } else {
            challenges.push(Challenge { scheme: word.to_ascii_lowercase(), params: BTreeMap::new() });
        }
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

struct Cursor<'a> {
    text: &'a str,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let end = self.text.find(|c| !fits(c)).unwrap_or(self.text.len());
        let (word, rest) = self.text.split_at(end);
        self.text = rest;
        word
    }

    fn skip(&mut self, fits: impl Fn(char) -> bool) {
        self.take(fits);
    }

    fn eat(&mut self, wanted: char) -> bool {
        match self.text.strip_prefix(wanted) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    /// A token or a quoted string.
    fn value(&mut self) -> Option<String> {
        if !self.eat('"') {
            // Registries leave commas and slashes unquoted in scopes and realms; only white space and a comma end it.
            return Some(self.take(|c| !c.is_ascii_whitespace() && c != ',').to_owned());
        }
        let mut value = String::new();
        let mut chars = self.text.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.text = &self.text[at + 1..];
                    return Some(value);
                }
                '\\' => value.push(chars.next()?.1),
                c => value.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn docker_hubs_challenge_is_read() {
        let field = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let all = parse(field);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].scheme, "bearer");
        assert_eq!(all[0].param("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(all[0].param("scope"), Some("repository:a/b:pull,push"));
    }

    #[test]
    fn several_challenges_in_one_field_come_apart() {
        let all = parse(r#"Negotiate, Basic realm="a \"b\", c" , BEARER Realm=x,Service = y"#);
        let schemes: Vec<_> = all.iter().map(|challenge| challenge.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "basic", "bearer"]);
        assert_eq!(all[1].param("realm"), Some("a \"b\", c"));
        assert_eq!(all[2].param("service"), Some("y"));
    }

    proptest! {
        #[test]
        fn any_field_is_read(field in "\\PC*") {
            let _ = parse(&field);
        }
    }
}
