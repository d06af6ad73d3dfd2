//! `ctr`: containerd's own client, command for command. One file a group of commands.

pub mod args;
mod commands;
mod containers;
mod content;
mod events;
mod exec;
mod images;
mod info;
mod leases;
mod metrics;
mod namespaces;
mod oci;
mod plugins;
mod run;
mod shim;
mod snapshots;
mod tasks;
mod version;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};

use self::commands::Command;
use crate::client::Client;
use crate::failure::Result;

/// The revision that ctr reports: what its builder named, else berth's version.
pub const REVISION: &str = spec::version::revision(option_env!("BERTH_REVISION"));

/// How Go's ctr lays out its help.
const TEMPLATE: &str = "\
NAME:
   ctr -
        __
  _____/ /______
 / ___/ __/ ___/
/ /__/ /_/ /
\\___/\\__/_/

containerd CLI

USAGE:
   {usage}

VERSION:
   {version}

DESCRIPTION:
   {about}

COMMANDS:
{subcommands}

GLOBAL OPTIONS:
{options}{after-help}
";

/// ctr is an unsupported debug and administrative client for interacting with the containerd daemon.
#[derive(Parser, Debug)]
#[command(name = "ctr", version = spec::version::VERSION, disable_version_flag = true, help_template = TEMPLATE)]
#[command(subcommand_required = true)]
pub struct Ctr {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags before the command.
#[derive(clap::Args, Debug)]
pub struct Global {
    /// Enable debug output in logs
    #[arg(long)]
    pub debug: bool,
    /// Address for containerd's GRPC server
    #[arg(long, short = 'a', env = "CONTAINERD_ADDRESS", default_value = "/run/containerd/containerd.sock")]
    pub address: PathBuf,
    /// Total timeout for ctr commands
    #[arg(long, default_value = "0s", value_parser = args::duration)]
    pub timeout: Duration,
    /// Timeout for connecting to containerd
    #[arg(long, default_value = "0s", value_parser = args::duration)]
    pub connect_timeout: Duration,
    /// Print the version
    #[arg(long, short = 'v', action = ArgAction::Version)]
    version: Option<bool>,
    /// Namespace to use with commands
    #[arg(long, short = 'n', env = "CONTAINERD_NAMESPACE", default_value = "default")]
    pub namespace: String,
}

/// Which shell.
#[derive(clap::Args, Debug)]
pub struct Completion {
    /// The shell to complete for
    shell: clap_complete::Shell,
}

/// The whole command line as it is parsed. What is below the first level is described only when it is asked for.
pub fn command() -> clap::Command {
    commands::with_switches(booleans(Ctr::command()))
}

/// Lets every switch take `=true` and `=false` as Go's do, and every `list` be called `ls`.
fn booleans(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .hide_possible_values(true)
            .hide_default_value(true)
            .value_name("BOOL")
            .default_value("false")
            .default_missing_value("true"),
        _ => arg,
    });
    command.mut_subcommands(booleans)
}

/// Parses the command line and runs it.
///
/// # Errors
/// What the command failed with; a wrong command line ends the process here, with its usage.
pub async fn main(args: impl IntoIterator<Item = std::ffi::OsString>) -> Result {
    let args: Vec<_> = args.into_iter().collect();
    if args.len() < 2 {
        return Ok(command().print_help()?); // as Go's ctr does, on standard output
    }
    let command = command();
    let args = flags::with_usual_dashes(&command, args);
    let matches = command.get_matches_from(args);
    let ctr = Ctr::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let timeout = ctr.global.timeout;
    let run = dispatch(ctr);
    if timeout.is_zero() {
        return run.await;
    }
    tokio::time::timeout(timeout, run)
        .await
        .unwrap_or_else(|_| Err(crate::Failure::new(format!("context deadline exceeded after {timeout:?}"))))
}

async fn dispatch(ctr: Ctr) -> Result {
    let global = &ctr.global;
    match ctr.command {
        Command::Oci(command) => return command.run(global).await,
        Command::Shim(shim) => return shim.run(global).await,
        Command::Completion(completion) => {
            clap_complete::generate(completion.shell, &mut command(), "ctr", &mut std::io::stdout());
            return Ok(());
        }
        _ => {}
    }
    let client = Client::connect(global).await?;
    match ctr.command {
        Command::Plugins(command) => command.run(&client).await,
        Command::Version(version) => version.run(&client).await,
        Command::Containers(command) => command.run(&client).await,
        Command::Content(command) => command.run(&client).await,
        Command::Events(events) => events.run(&client).await,
        Command::Images(command) => command.run(&client).await,
        Command::Leases(command) => command.run(&client).await,
        Command::Namespaces(command) => command.run(&client).await,
        Command::Run(run) => run.run(&client).await,
        Command::Snapshots(snapshots) => snapshots.run(&client).await,
        Command::Tasks(command) => command.run(&client).await,
        Command::Info(info) => info.run(&client).await,
        Command::Oci(_) | Command::Shim(_) | Command::Completion(_) => Ok(()),
    }
}

/// A lease for the length of a command, ended by [`end_lease`] or, if the command is killed, after a day.
///
/// # Errors
/// The daemon refuses.
pub async fn lease(client: &Client) -> Result<String> {
    let mut labels = std::collections::BTreeMap::new();
    leases::expire(&mut labels, Duration::from_secs(24 * 3600));
    leases::create(client, String::new(), labels).await
}

/// Ends a command's lease.
///
/// # Errors
/// The daemon refuses.
pub async fn end_lease(client: &Client, id: String) -> Result {
    let request = api::containerd::services::leases::v1::DeleteRequest { id, sync: false };
    client.leases().delete(request).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_flags_take_one_dash() {
        for (line, expected) in [
            (
                "ctr -address=/x -namespace k8s.io images ls -quiet",
                "ctr --address=/x --namespace k8s.io images ls --quiet",
            ),
            (
                "ctr --n ns run -rm -env A=1 -tty img id sh -rm",
                "ctr -n ns run --rm --env A=1 --tty img id sh -rm",
            ),
            ("ctr tasks exec -exec-id e1 id ls -quiet", "ctr tasks exec --exec-id e1 id ls -quiet"),
            ("ctr c create -net-host img id -debug", "ctr c create --net-host img id -debug"),
        ] {
            let args = flags::with_usual_dashes(&command(), line.split(' ').map(Into::into));
            let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
            assert_eq!(args.join(" "), expected);
            command().try_get_matches_from(expected.split(' ')).unwrap();
        }
    }
}
