//! `runc`: a thin command line over the runtime library, with runc's commands, flags, files and texts.
//!
//! Commands return values; [`output`] prints them. Errors go to the log as runc writes it, because shims read them
//! there: `{"level":"error","msg":...,"time":...}`.
//!
//! Deliberately absent: checkpoint and restore. A user without rights gets what the kernel lets him have.

mod args;
mod command;
mod diagnosis;
mod foreground;
mod log;
mod output;
mod relay;
mod terminal;

use std::process::ExitCode;

use clap::error::ErrorKind;

use args::{Cli, Command};
use log::Log;

/// Exit status of a command line whose command does not exist.
const NO_COMMAND: u8 = 3;
/// Exit status of `runc exec` that could not run the program.
const EXEC_FAILED: u8 = 255;

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    if cli.version {
        print!("{}", version());
        return ExitCode::SUCCESS;
    }
    let log = match Log::open(&cli.global) {
        Ok(log) => log,
        Err(error) => return fail(&Log::stderr(), &error.to_string(), 1),
    };
    let Some(command) = cli.command else {
        print!("{}", args::help());
        return ExitCode::SUCCESS;
    };
    if command.enters_a_container()
        && let Err(error) = sys::exe::reexec_sealed()
    {
        return fail(&log, &error.to_string(), 1);
    }
    let name = command.name();
    let failure_code = if matches!(command, Command::Exec(_)) { EXEC_FAILED } else { 1 };
    match command::run(&cli.global, command, &log) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&log, &worded(name, &error.to_string()), failure_code),
    }
}

/// What `--version` prints. Programs read the number behind `version`, and compare it with runc's releases.
fn version() -> String {
    use runtime::features::{COMMIT, COMPATIBLE_VERSION, RUNTIME_VERSION};
    let spec = spec::runtime::VERSION;
    format!("runc version {COMPATIBLE_VERSION} (berth {RUNTIME_VERSION})\ncommit: {COMMIT}\nspec: {spec}\n")
}

/// The text of a failed command, as runc begins it.
fn worded(name: &str, text: &str) -> String {
    match name {
        "create" | "run" => format!("runc {name} failed: {text}"),
        "exec" if !text.starts_with("exec failed: ") => format!("exec failed: {text}"),
        _ => text.to_owned(),
    }
}

/// Logs the error and, if the log is a file, tells the user too.
fn fail(log: &Log, text: &str, code: u8) -> ExitCode {
    log.error(text);
    if log.is_file() {
        eprintln!("{text}");
    }
    ExitCode::from(code)
}

/// What the command line's parser had to say.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            print!("{error}");
            ExitCode::SUCCESS
        }
        ErrorKind::InvalidSubcommand => {
            let word = error.get(clap::error::ContextKind::InvalidSubcommand).map(ToString::to_string);
            fail(&Log::stderr(), &format!("No help topic for '{}'", word.unwrap_or_default()), NO_COMMAND)
        }
        _ => {
            println!("Incorrect Usage.\n");
            let text = error.to_string();
            fail(&Log::stderr(), text.trim_start_matches("error: ").trim_end(), 1)
        }
    }
}
