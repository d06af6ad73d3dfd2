//! Command lines as Go's programs take them: `-address=X`, `-address X`, `--a X`.
//!
//! Go's `flag` package makes no difference between one dash and two, clap takes long flags behind two only.
//! [`with_usual_dashes`] follows a command line through a program's commands and flags, as clap describes them, and
//! writes each flag with the dashes that clap expects. What belongs to a container's own command is not touched.
//!
//! A switch may have a value, `-debug=true`: the flag alone stands for true, no flag for false.
//!
//! Invariant: a word is changed only in its leading dashes and in a switch's value, and only where it names a flag of
//! the command that it stands behind.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command};

/// The command line `args`, the program's name first, with two dashes before long flags and one before short ones.
pub fn with_usual_dashes(command: &Command, args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    // Describing a program's commands costs more than parsing a line, and nearly no line needs it.
    if args.iter().skip(1).any(|arg| is_unusual(arg)) {
        rewrite(command.clone(), &mut args);
    }
    args
}

/// Whether `arg` may be a flag in a form that is not clap's: `-xy`, `--x`, `--x=y`, or a switch with a value.
fn is_unusual(arg: &OsStr) -> bool {
    match arg.as_encoded_bytes() {
        [b'-', b'-', _] | [b'-', b'-', _, b'=', ..] => true,
        [b'-', b'-', ..] => arg
            .to_str()
            .and_then(|text| text.split_once('='))
            .is_some_and(|(_, value)| truth(value).is_some()),
        [b'-', _, _, ..] => true,
        _ => false,
    }
}

fn rewrite(mut command: Command, args: &mut Vec<OsString>) {
    command.build();
    let (mut at, mut positionals) = (1, 0);
    while let Some(arg) = args.get_mut(at) {
        at += 1;
        let Some(text) = arg.to_str().map(str::to_owned) else {
            positionals += 1;
            continue;
        };
        match text.strip_prefix('-') {
            Some("-") => return,
            Some(name) if !name.is_empty() => {
                let name = name.strip_prefix('-').unwrap_or(name);
                let (name, is_given) = switch(&command, name);
                if !is_given {
                    at -= 1;
                    args.remove(at);
                    continue;
                }
                let (flag, takes_next) = usual(&command, name, &text);
                *arg = flag.into();
                at += usize::from(takes_next);
            }
            _ => {
                if let Some(below) = below(&command, &text, positionals) {
                    command = below;
                    positionals = 0;
                    continue;
                }
                positionals += 1;
                if is_rest(&command, positionals) {
                    return;
                }
            }
        }
    }
}

/// The part `name` of a flag behind its dashes, without the value of a switch, and whether that switch is on.
fn switch<'n>(command: &Command, name: &'n str) -> (&'n str, bool) {
    let Some((word, value)) = name.split_once('=') else { return (name, true) };
    let is_named =
        |arg: &Arg| longs(arg).any(|long| long == word) || shorts(arg).iter().any(|&c| word.chars().eq([c]));
    match (flag(command, is_named).map(|arg| arg.get_action().takes_values()), truth(value)) {
        (Some(false), Some(is_on)) => (word, is_on),
        _ => (name, true),
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

/// The flag `text`, whose part behind the dashes is `name`, as clap expects it, and whether the next word is its value.
fn usual(command: &Command, name: &str, text: &str) -> (String, bool) {
    let (word, value) = name.split_once('=').map_or((name, None), |(word, value)| (word, Some(value)));
    let mut letters = word.chars();
    let short = match (letters.next(), letters.next()) {
        (Some(letter), None) => flag(command, |arg| shorts(arg).contains(&letter)),
        _ => None,
    };
    if let Some(arg) = short {
        return (format!("-{name}"), value.is_none() && takes_value(arg));
    }
    if let Some(arg) = flag(command, |arg| longs(arg).any(|long| long == word)) {
        return (format!("--{name}"), value.is_none() && takes_value(arg));
    }
    // Several short flags in one word, of which the last may have its value in the next.
    let is_short = !text.starts_with("--");
    let last = word.chars().last();
    let takes_next = is_short
        && value.is_none()
        && word.chars().all(|letter| flag(command, |arg| shorts(arg).contains(&letter)).is_some())
        && word.chars().rev().skip(1).all(|letter| !takes(command, letter))
        && last.is_some_and(|letter| takes(command, letter));
    (text.to_owned(), takes_next)
}

fn takes(command: &Command, letter: char) -> bool {
    flag(command, |arg| shorts(arg).contains(&letter)).is_some_and(takes_value)
}

fn flag(command: &Command, is_wanted: impl Fn(&Arg) -> bool) -> Option<&Arg> {
    command.get_arguments().find(|arg| is_wanted(arg))
}

fn longs(arg: &Arg) -> impl Iterator<Item = &str> {
    arg.get_long().into_iter().chain(arg.get_all_aliases().unwrap_or_default())
}

fn shorts(arg: &Arg) -> Vec<char> {
    arg.get_short().into_iter().chain(arg.get_all_short_aliases().unwrap_or_default()).collect()
}

/// Whether the word behind the flag is its value.
fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

/// The command that `word` calls, where no other argument came before it.
fn below(command: &Command, word: &str, positionals: usize) -> Option<Command> {
    let calls =
        |below: &&Command| below.get_name() == word || below.get_all_aliases().any(|name| name == word);
    if positionals > 0 { None } else { command.get_subcommands().find(calls).cloned() }
}

/// Whether the argument of that number, from 1, and all behind it are passed on as they are.
fn is_rest(command: &Command, number: usize) -> bool {
    let rest = |arg: &&Arg| arg.is_trailing_var_arg_set();
    command.get_positionals().find(rest).and_then(Arg::get_index).is_some_and(|index| number >= index)
}

#[cfg(test)]
mod tests {
    use clap::ArgAction;

    use super::*;

    fn program() -> Command {
        let switch = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
        let valued = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Set);
        let many = Arg::new("command").trailing_var_arg(true).allow_hyphen_values(true).num_args(0..);
        let run = Command::new("run")
            .visible_alias("r")
            .arg(switch("rm"))
            .arg(switch("tty").short('t'))
            .arg(switch("detach").short('d'))
            .arg(valued("env").short('e').alias("environment").allow_hyphen_values(true))
            .arg(Arg::new("id"))
            .arg(many);
        let list = Command::new("list").arg(
            switch("quiet")
                .short('q')
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
        );
        let address = valued("address").short('a').global(true);
        Command::new("program")
            .version("1")
            .arg(address)
            .arg(switch("debug"))
            .subcommand(
                Command::new("group")
                    .defer(|group| group.subcommand(Command::new("sub").arg(Arg::new("deep").long("deep")))),
            )
            .subcommands([run, list])
    }

    fn check(given: &str, expected: &str) {
        let words = |line: &str| {
            ["program"].into_iter().chain(line.split(' ')).map(OsString::from).collect::<Vec<_>>()
        };
        assert_eq!(with_usual_dashes(&program(), words(given)), words(expected), "{given}");
    }

    #[test]
    fn long_flag_behind_one_dash_gets_two() {
        check("-address=/x -debug run -rm id", "--address=/x --debug run --rm id");
        check("-address /x run -env -tty -tty id", "--address /x run --env -tty --tty id");
        check("-debug=true r -environment A=-rm id", "--debug r --environment A=-rm id");
        check("-debug=false run -d=1 --rm=F id", "run -d id");
        check("list -quiet=false", "list --quiet=false");
        check("list -quiet -address x", "list --quiet --address x");
        check("group sub -deep=1 -address=/x", "group sub --deep=1 --address=/x");
        check("-version", "--version");
        check("run -help", "run --help");
    }

    #[test]
    fn short_flag_behind_two_dashes_gets_one() {
        check("--a /x run --t --e=-rm id", "-a /x run -t -e=-rm id");
        check("--a -debug run id", "-a -debug run id");
    }

    #[test]
    fn what_is_no_flag_of_the_command_stays() {
        check("run -td id -rm", "run -td id --rm");
        check("run -te -rm -rm id", "run -te -rm --rm id");
        check("run -eX=-rm -rm id", "run -eX=-rm --rm id");
        check("run -deep id", "run -deep id");
        check("list -rm --rm -", "list -rm --rm -");
        check("run id -rm sh -rm --t", "run id --rm sh -rm --t");
        check("run id -- -rm", "run id -- -rm");
        check("-- run -rm", "-- run -rm");
    }
}
