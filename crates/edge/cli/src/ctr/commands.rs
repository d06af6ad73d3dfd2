//! The commands of the first level. Each describes its arguments only once it is the one that was called: describing
//! all of them took longer than anything else that a short command does by itself.

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, FromArgMatches, Subcommand};

use super::{
    Completion, booleans, containers, content, events, images, info, leases, namespaces, oci, plugins, run,
    shim, snapshots, tasks, version,
};

/// What was called.
#[derive(Debug)]
pub enum Command {
    /// `plugins`.
    Plugins(plugins::Command),
    /// `version`.
    Version(version::Version),
    /// `containers`.
    Containers(containers::Command),
    /// `content`.
    Content(content::Command),
    /// `events`.
    Events(events::Events),
    /// `images`.
    Images(images::Command),
    /// `leases`.
    Leases(leases::Command),
    /// `namespaces`.
    Namespaces(namespaces::Command),
    /// `run`.
    Run(Box<run::Run>),
    /// `snapshots`.
    Snapshots(snapshots::Snapshots),
    /// `tasks`.
    Tasks(tasks::Command),
    /// `oci`.
    Oci(oci::Command),
    /// `shim`.
    Shim(shim::Shim),
    /// `info`.
    Info(info::Info),
    /// `completion`.
    Completion(Completion),
}

/// One of them.
struct Entry {
    name: &'static str,
    aliases: &'static [&'static str],
    about: &'static str,
    /// Adds its arguments, or the commands below it.
    describe: fn(clap::Command) -> clap::Command,
    /// Reads what was given.
    read: fn(&mut ArgMatches) -> Result<Command, clap::Error>,
}

/// An entry with arguments.
macro_rules! command {
    ($variant:ident($type:ty): $name:literal $aliases:expr, $about:literal) => {
        Entry {
            name: $name,
            aliases: &$aliases,
            about: $about,
            describe: <$type as Args>::augment_args,
            read: |matches| <$type>::from_arg_matches_mut(matches).map(Command::$variant),
        }
    };
}

/// An entry with commands below it.
macro_rules! group {
    ($variant:ident($type:ty): $name:literal $aliases:expr, $about:literal) => {
        Entry {
            name: $name,
            aliases: &$aliases,
            about: $about,
            describe: |command| {
                <$type>::augment_subcommands(command).subcommand_required(true).arg_required_else_help(true)
            },
            read: |matches| <$type>::from_arg_matches_mut(matches).map(Command::$variant),
        }
    };
}

/// All of them, in the order of the help.
const COMMANDS: [Entry; 15] = [
    group!(Plugins(plugins::Command): "plugins" ["plugin"], "Provides information about containerd plugins"),
    command!(Version(version::Version): "version" [], "Print the client and server versions"),
    group!(Containers(containers::Command): "containers" ["c", "container"], "Manage containers"),
    group!(Content(content::Command): "content" [], "Manage content"),
    command!(Events(events::Events): "events" ["event"], "Display containerd events"),
    group!(Images(images::Command): "images" ["image", "i"], "Manage images"),
    group!(Leases(leases::Command): "leases" [], "Manage leases"),
    group!(Namespaces(namespaces::Command): "namespaces" ["namespace", "ns"], "Manage namespaces"),
    command!(Run(Box<run::Run>): "run" [], "Run a container"),
    command!(Snapshots(snapshots::Snapshots): "snapshots" ["snapshot"], "Manage snapshots"),
    group!(Tasks(tasks::Command): "tasks" ["t", "task"], "Manage tasks"),
    group!(Oci(oci::Command): "oci" [], "OCI tools"),
    command!(Shim(shim::Shim): "shim" [], "Interact with a shim directly"),
    command!(Info(info::Info): "info" [], "Print the server info"),
    command!(Completion(Completion): "completion" [], "Print a completion script"),
];

fn find(name: &str) -> Option<&'static Entry> {
    COMMANDS.iter().find(|entry| entry.name == name)
}

/// Describes the command of that name. Its own words stay, whatever its arguments' type says of itself.
fn describe(command: clap::Command) -> clap::Command {
    let Some(entry) = find(command.get_name()) else { return command };
    (entry.describe)(command).about(entry.about).long_about(None)
}

/// Has the commands take their switches as [`booleans`] does.
pub fn with_switches(command: clap::Command) -> clap::Command {
    command.mut_subcommands(|command| command.defer(|command| booleans(describe(command))))
}

impl Subcommand for Command {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        let short = |entry: &'static Entry| {
            clap::Command::new(entry.name).about(entry.about).visible_aliases(entry.aliases).defer(describe)
        };
        command.subcommands(COMMANDS.iter().map(short))
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        find(name).is_some()
    }
}

impl FromArgMatches for Command {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::raw(ErrorKind::MissingSubcommand, "no command was given");
        let (name, mut arguments) = matches.remove_subcommand().ok_or_else(missing)?;
        (find(&name).ok_or_else(missing)?.read)(&mut arguments)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
