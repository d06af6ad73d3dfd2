//! One Rust file at a time: its name, its head, and words that do not belong in it.

use super::{Finding, code};

/// Names that say nothing about what a file is for.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "inner", "misc"];

/// Marks of unfinished or switched-off work, as they stand in code.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "#[ignore", "dbg!"];

/// Marks of unfinished work in comments.
const NOTES: &[&str] = &["FIXME", "XXX", "TODO"];

/// The one crate that may hold unsafe code.
const FENCE: &str = "crates/kernel/sys/";

/// This file names the marks that it looks for.
const SELF: &str = "dev/xtask/src/tidy/";

/// What must change in the file `path`.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(name(path));
    findings.extend(head(path, text));
    let code = code::only(text);
    let tests_begin = if is_test(path) { 0 } else { line_of(&code, "#[cfg(test)]").unwrap_or(usize::MAX) };
    for (number, (line, original)) in code.lines().zip(text.lines()).enumerate() {
        let place = format!("{path}:{}", number + 1);
        if !path.starts_with(FENCE) && code::has_word(line, "unsafe") {
            findings.push(Finding::new(&place, "unsafe code belongs in crates/kernel/sys"));
        }
        for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
            findings.push(Finding::new(&place, format!("{word} is unfinished work")));
        }
        if !path.starts_with(SELF) {
            for word in NOTES.iter().filter(|word| code::has_word(original, word)) {
                findings
                    .push(Finding::new(&place, format!("{word}: do it, or file it where work is planned")));
            }
        }
        if number < tests_begin && path.starts_with("crates/") && adds_unchecked_time(line) {
            findings.push(Finding::new(
                &place,
                "overflows with a duration from outside: use spec::time::deadline or expiry, or saturate",
            ));
        }
        if number >= tests_begin && ["thread::sleep(", "time::sleep("].iter().any(|call| line.contains(call))
        {
            findings.push(Finding::new(
                &place,
                "a test waits for an event, or by testkit::wait, never for a time",
            ));
        }
    }
    findings
}

/// Whether a line adds to the present moment, or sums up, durations that are not the source's own constants.
fn adds_unchecked_time(line: &str) -> bool {
    let added = ["now() + ", "now + "].iter().filter_map(|sum| line.split_once(sum)).map(|(_, added)| added);
    line.contains("sum::<Duration>") || added.into_iter().any(|added| !is_bounded(added))
}

/// Whether an expression is a constant, by its name, a duration of a literal, or cut to a bound.
fn is_bounded(expression: &str) -> bool {
    let end =
        expression.find(|c: char| !c.is_alphanumeric() && !"_:.".contains(c)).unwrap_or(expression.len());
    let (path, rest) = expression.split_at(end);
    let name = path.rsplit("::").next().unwrap_or(path);
    let is_constant = name.contains('_') || name.len() > 1;
    let is_constant =
        is_constant && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let of_literal = path.contains("Duration::from_")
        && rest[1.min(rest.len())..].starts_with(|c: char| c.is_ascii_digit());
    is_constant || of_literal || path == "fault::limit" || path.ends_with(".min")
}

/// What might change in the file `path`: sizes that a reader feels.
pub fn advise(path: &str, text: &str) -> Vec<Finding> {
    let mut advice = Vec::new();
    let lines = text.lines().count();
    if lines > 800 {
        advice.push(Finding::new(path, format!("{lines} lines; perhaps two ideas live here")));
    }
    for (number, name, length) in long_functions(&code::only(text), 100) {
        advice.push(Finding::new(format!("{path}:{number}"), format!("fn {name} has {length} lines")));
    }
    advice
}

fn name(path: &str) -> Option<Finding> {
    let stem = path.rsplit('/').next()?.strip_suffix(".rs")?;
    let parts: Vec<_> = path.rsplit('/').skip(1).chain(stem.split('_')).collect();
    let empty = EMPTY_NAMES.iter().find(|word| parts.contains(*word))?;
    Some(Finding::new(path, format!("`{empty}` names no idea: call the file after what it holds")))
}

/// A file says what it is for before anything else; only attributes may come first.
fn head(path: &str, text: &str) -> Option<Finding> {
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["))?;
    if first.starts_with("//! ") && first.len() > 10 {
        return None;
    }
    Some(Finding::new(
        format!("{path}:1"),
        "begins without `//!`: what does it own, and what does it never do?",
    ))
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

fn line_of(code: &str, text: &str) -> Option<usize> {
    code.lines().position(|line| line.contains(text))
}

/// Functions of more than `limit` lines: line number, name and length.
fn long_functions(code: &str, limit: usize) -> Vec<(usize, String, usize)> {
    let lines: Vec<_> = code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((before, after)) = line.split_once("fn ") else { continue };
        let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let indent = line.len() - line.trim_start().len();
        if name.is_empty()
            || before.trim_end().ends_with(|c: char| !c.is_alphanumeric() && c != ')' && c != '"')
        {
            continue;
        }
        // rustfmt puts the closing brace where the function's own line begins.
        let close = format!("{}}}", " ".repeat(indent));
        let body = lines[at..].iter().position(|line| line.trim_end() == close);
        if let Some(length) = body.filter(|length| *length + 1 > limit) {
            found.push((at + 1, name, length + 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "//! Says what this file is for.\n";

    #[track_caller]
    fn texts(path: &str, body: &str) -> Vec<String> {
        check(path, &format!("{HEAD}{body}")).into_iter().map(|finding| finding.place).collect()
    }

    #[test]
    fn unsafe_is_for_sys_alone() {
        assert_eq!(texts("crates/a/b/src/x.rs", "fn f() { unsafe { g() } }"), ["crates/a/b/src/x.rs:2"]);
        assert!(texts("crates/kernel/sys/src/x.rs", "fn f() { unsafe { g() } }").is_empty());
        assert!(texts("crates/a/b/src/x.rs", "#![deny(unsafe_code)] // unsafe\n").is_empty());
    }

    #[test]
    fn an_empty_name_is_found_anywhere_in_a_path() {
        assert_eq!(texts("crates/a/b/src/string_util.rs", "").len(), 1);
        assert_eq!(texts("crates/a/common/src/x.rs", "").len(), 1);
        assert!(texts("crates/a/b/src/commons.rs", "").is_empty());
    }

    #[test]
    fn a_sleep_is_wrong_only_in_tests() {
        assert!(texts("crates/a/b/src/x.rs", "fn f() { std::thread::sleep(d) }").is_empty());
        assert_eq!(texts("crates/a/b/tests/x.rs", "fn f() { std::thread::sleep(d) }").len(), 1);
        assert_eq!(
            texts("crates/a/b/src/x.rs", "#[cfg(test)]\nmod t { fn f() { tokio::time::sleep(d) } }").len(),
            1
        );
    }

    #[test]
    fn sum_of_time_with_a_number_from_outside_is_found() {
        for line in [
            "let end = Instant::now() + within;",
            "let end = SystemTime::now() + request.timeout;",
            "return Some(now + config.delay);",
            "hooks.iter().map(limit).sum::<Duration>()",
            "let end = Instant::now() + Duration::from_secs(seconds);",
        ] {
            assert_eq!(texts("crates/a/b/src/x.rs", line).len(), 1, "{line}");
        }
        for line in [
            "let end = Instant::now() + LIMIT;",
            "let end = now + super::START_LIMIT;",
            "let end = Instant::now() + Duration::from_secs(5);",
            "let end = Instant::now() + within.min(FAR);",
            "let end = Instant::now() + fault::limit(\"x\", LIMIT);",
        ] {
            assert!(texts("crates/a/b/src/x.rs", line).is_empty(), "{line}");
        }
        assert!(texts("crates/a/b/tests/x.rs", "let end = Instant::now() + within;").is_empty());
    }

    #[test]
    fn unfinished_work_is_found() {
        assert_eq!(texts("crates/a/b/src/x.rs", "fn f() { todo!() }\n// FIXME later\n").len(), 2);
        assert!(texts("crates/a/b/src/x.rs", "const A: &str = \"todo!\";").is_empty());
    }

    #[test]
    fn a_file_without_a_head_is_found() {
        assert_eq!(check("crates/a/b/src/x.rs", "fn f() {}\n").len(), 1);
        assert!(check("crates/a/b/src/x.rs", &format!("#![no_std]\n{HEAD}")).is_empty());
    }

    #[test]
    fn a_long_function_is_measured() {
        let body = format!(
            "    pub fn long() {{\n{}    }}\n    fn short() {{\n    }}\n",
            "        x();\n".repeat(10)
        );
        assert_eq!(long_functions(&body, 5), [(1, "long".to_owned(), 12)]);
    }
}
