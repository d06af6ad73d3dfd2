//! Flags in the syntax of Go's `flag` package, which runc's users write: `-root x`, `-root=x`, `--debug=true`.
//!
//! They are rewritten to what the parser takes. What stands behind a command's first argument is the container's.

use std::ffi::OsString;

use clap::Command;

/// The words of a command line (the program's name first) with each known flag in the parser's form.
pub fn rewrite(command: &Command, words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words = words.into_iter();
    let mut out: Vec<OsString> = words.next().into_iter().collect();
    let mut level = command;
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        match text.strip_prefix('-').filter(|flag| !["", "-"].contains(flag)) {
            Some(flag) => {
                rewrite_flag(level, flag.strip_prefix('-').unwrap_or(flag), &word, &mut words, &mut out)
            }
            None => {
                let below = level.find_subcommand(text);
                out.push(word);
                match below {
                    Some(below) => level = below,
                    None => break,
                }
            }
        }
    }
    out.extend(words);
    out
}

fn rewrite_flag(
    command: &Command,
    flag: &str,
    word: &OsString,
    rest: &mut impl Iterator<Item = OsString>,
    out: &mut Vec<OsString>,
) {
    let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
    let short = Some(name).filter(|name| name.chars().count() == 1).and_then(|name| name.chars().next());
    let known = command.get_arguments().find(|argument| {
        argument.get_long() == Some(name) || short.is_some() && argument.get_short() == short
    });
    let Some(known) = known else { return out.push(word.clone()) };
    let dashed = if known.get_long() == Some(name) { format!("--{name}") } else { format!("-{name}") };
    match (known.get_action().takes_values(), value) {
        (true, Some(value)) => out.push(format!("{dashed}={value}").into()),
        (true, None) => {
            out.push(dashed.into());
            out.extend(rest.next());
        }
        (false, None) => out.push(dashed.into()),
        (false, Some(value)) => match truth(value) {
            Some(true) => out.push(dashed.into()),
            Some(false) => {}
            None => out.push(format!("{dashed}={value}").into()),
        },
    }
}

/// What Go's `strconv.ParseBool` takes.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let words = line.split(' ').map(OsString::from);
        let found: Vec<String> = rewrite(&crate::args::command(), words)
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect();
        assert_eq!(found.join(" "), expected, "{line}");
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        check("runc -root /x -log-format=json list", "runc --root /x --log-format=json list");
        check("runc --root /x run -bundle /b -d -keep id", "runc --root /x run --bundle /b -d --keep id");
        check("runc exec -cwd / -e=A=B id sh", "runc exec --cwd / -e=A=B id sh");
        check("runc -help", "runc --help");
    }

    #[test]
    fn switches_take_a_value() {
        check("runc -debug=true -systemd-cgroup=false list -q=1", "runc --debug list -q");
        check("runc -debug=maybe list", "runc --debug=maybe list");
    }

    #[test]
    fn what_belongs_to_the_container_stays() {
        check("runc exec id ls -debug=true -root", "runc exec id ls -debug=true -root");
        check("runc exec -t id -- -root", "runc exec -t id -- -root");
        check("runc -root -debug state -debug", "runc --root -debug state -debug");
        check("runc -nosuch x", "runc -nosuch x");
    }
}
