//! docs/ctr.md: every command of `ctr` with its arguments and flags.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Arg, Command, CommandFactory as _};
use cli::ctr::Ctr;

/// Where the reference is kept.
pub fn path() -> PathBuf {
    testkit::place::workspace().join("docs/ctr.md")
}

/// The whole reference.
pub fn text() -> String {
    let mut command = Ctr::command();
    command.build();
    let mut out = String::from(
        "# ctr\n\nMade by `make docs` from the program's own definition. Names, flags and columns are Go ctr's. A flag \
         may also follow the arguments, except after the command of `run` and `exec`, and one dash \
         does for two, as in Go's ctr.\n\n## Flags before the command\n\n",
    );
    flags(&mut out, &command);
    for group in command.get_subcommands().filter(|group| shown(group)) {
        section(&mut out, group, "ctr");
    }
    out
}

fn shown(command: &Command) -> bool {
    !command.is_hide_set() && command.get_name() != "help"
}

fn section(out: &mut String, command: &Command, before: &str) {
    let name = format!("{before} {}", command.get_name());
    let aliases: Vec<_> = command.get_visible_aliases().map(|alias| format!("`{alias}`")).collect();
    let also = if aliases.is_empty() { String::new() } else { format!(" (also {})", aliases.join(", ")) };
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let subcommands: Vec<_> = command.get_subcommands().filter(|command| shown(command)).collect();
    let depth = if before == "ctr" { "##" } else { "###" };
    let _ = writeln!(out, "\n{depth} {name}\n\n{}{also}\n", about.trim());
    if subcommands.is_empty() {
        let words = command.get_positionals().map(word).collect::<Vec<_>>().join(" ");
        let _ = writeln!(out, "```text\n{}\n```\n", format!("{name} [flags] {words}").trim_end());
    }
    flags(out, command);
    for subcommand in subcommands {
        section(out, subcommand, &name);
    }
}

fn word(arg: &Arg) -> String {
    let name =
        arg.get_value_names().map_or(arg.get_id().as_str().to_uppercase(), |names| names[0].to_string());
    let many = arg.get_num_args().is_some_and(|range| range.max_values() > 1);
    let name = if many { format!("{name}...") } else { name };
    if arg.is_required_set() { name } else { format!("[{name}]") }
}

/// A table of a command's own flags; flags that every command has stand at the top of the page only.
fn flags(out: &mut String, command: &Command) {
    let own = |arg: &&Arg| {
        !arg.is_positional()
            && !arg.is_hide_set()
            && !arg.is_global_set()
            && !["help", "version"].contains(&arg.get_id().as_str())
    };
    let list: Vec<_> = command.get_arguments().filter(own).collect();
    if list.is_empty() {
        return;
    }
    let _ = writeln!(out, "| flag | default | |\n|---|---|---|");
    for arg in list {
        let short = arg.get_short().map(|short| format!(", `-{short}`")).unwrap_or_default();
        let takes = if arg.get_action().takes_values() { " VALUE" } else { "" };
        let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default = if takes.is_empty() { String::new() } else { defaults.join(" ") };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.replace('|', "\\|").replace('\n', " ");
        let _ = writeln!(
            out,
            "| `--{}{takes}`{short} | {default} | {help} |",
            arg.get_long().unwrap_or_default()
        );
    }
}
