//! The command line of `containerd`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use model::Lane;
use spec::Error;
use tokio::runtime::{Builder, Runtime};

use crate::config::{self, DEFAULT_PATH, Settings};
use crate::{daemon, explain, logging, oci_hook, publish, recover};

/// Threads that may block besides those of the lanes, for the runtime's own work such as looking up names.
const MORE_THREADS: usize = 16;
/// How long threads that still work on the disk may take once everything else has ended.
const LAST: Duration = Duration::from_secs(2);

/// high performance container runtime
#[derive(Parser, Debug)]
#[command(name = "containerd", version = VERSION_LINE.as_str(), disable_version_flag = true, infer_long_args = false)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
    /// Print the version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Args, Debug)]
struct Global {
    /// Path to the configuration file
    #[arg(short, long, global = true)]
    config: Option<PathBuf>,
    /// Set the logging level [trace, debug, info, warn, error, fatal, panic]
    #[arg(short, long, global = true)]
    log_level: Option<String>,
    /// Address for containerd's GRPC server
    #[arg(short, long, global = true)]
    address: Option<String>,
    /// containerd root directory
    #[arg(long, global = true)]
    root: Option<PathBuf>,
    /// containerd state directory
    #[arg(long, global = true)]
    state: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Information on the containerd config
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Information on registries
    #[command(subcommand)]
    Registry(RegistryCommand),
    /// Make lost records again from what is on the disk, while no daemon runs
    Recover,
    /// Binary to publish events to containerd
    Publish(publish::Publish),
    /// Provides a base for OCI runtime hooks to allow arguments to be injected
    OciHook(oci_hook::OciHook),
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// See the output of the default config
    Default,
    /// See the output of the final main config with imported in subconfig files
    Dump,
    /// Migrate the current configuration file to the latest version (does not migrate subconfig files)
    Migrate,
}

#[derive(Subcommand, Debug)]
enum RegistryCommand {
    /// See which hosts an image comes from by the configuration, and what each of them answers
    Explain {
        /// Ask no host
        #[arg(long)]
        offline: bool,
        /// The image, as the kubelet names it
        image: String,
    },
}

/// What `--version` prints behind the program's name: package, version and revision, as Go's containerd does.
static VERSION_LINE: LazyLock<String> =
    LazyLock::new(|| format!("{} {} {}", spec::version::PACKAGE, crate::VERSION, crate::REVISION));

/// The command line, for completions and manual pages.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs the program.
pub fn main() -> ExitCode {
    let args = flags::with_usual_dashes(&command(), std::env::args_os());
    match run(Cli::parse_from(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log may not be set up yet, and a person is looking at the terminal.
            let _ = writeln!(std::io::stderr(), "containerd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Error> {
    match cli.command {
        Some(Command::Config(ConfigCommand::Default)) => put(&config::print(&config::defaults())),
        Some(Command::Config(ConfigCommand::Dump)) => dump(&cli.global),
        Some(Command::Config(ConfigCommand::Migrate)) => {
            let path = config_path(&cli.global);
            put(&config::print(&config::migrated(&path)?.values))
        }
        Some(Command::Registry(RegistryCommand::Explain { offline, image })) => {
            let settings = settings(&cli.global)?.0;
            put(&runtime(1)?.block_on(explain::explain(&settings, &image, offline))?)
        }
        Some(Command::Recover) => {
            let (settings, _) = settings(&cli.global)?;
            // What is told goes to standard output; the log would say it twice.
            if let Some(level) = logging::level("error") {
                logging::start(level, settings.log_format);
            }
            put(&recover::run(&settings)?)
        }
        Some(Command::Publish(publish)) => {
            let address = settings(&cli.global)?.0.address;
            runtime(1)?.block_on(publish.run(&address))
        }
        Some(Command::OciHook(hook)) => hook.run(),
        None => serve(&cli.global),
    }
}

fn config_path(global: &Global) -> PathBuf {
    global.config.clone().unwrap_or_else(|| DEFAULT_PATH.into())
}

fn loaded(global: &Global) -> Result<config::Loaded, Error> {
    Ok(config::load(&config_path(global), global.config.is_some())?)
}

fn dump(global: &Global) -> Result<(), Error> {
    let loaded = loaded(global)?;
    for warning in &loaded.warnings {
        let _ = writeln!(std::io::stderr(), "{warning}");
    }
    put(&config::print(&loaded.values))
}

fn put(text: &str) -> Result<(), Error> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Error::internal(format!("cannot write to standard output: {error}")))
}

/// What the file says, with the flags over it.
fn settings(global: &Global) -> Result<(Settings, Vec<String>), Error> {
    let loaded = loaded(global)?;
    let mut settings = Settings::new(&loaded.values)?;
    if let Some(root) = &global.root {
        settings.root = config::absolute(root.clone());
    }
    if let Some(state) = &global.state {
        settings.state = config::absolute(state.clone());
    }
    if let Some(address) = &global.address {
        settings.move_to(config::absolute(address.trim_start_matches("unix://").into()));
    }
    if let Some(level) = &global.log_level {
        settings.log_level.clone_from(level);
    }
    settings.check()?;
    Ok((settings, loaded.warnings))
}

fn serve(global: &Global) -> Result<(), Error> {
    let (settings, warnings) = settings(global)?;
    let level = logging::level(&settings.log_level)
        .ok_or_else(|| Error::invalid(format_args!("log level {:?}", settings.log_level)))?;
    logging::start(level, settings.log_format);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    // Two heaps are enough for threads that mostly wait, and every further one keeps its own idle memory.
    sys::heap::limit_arenas(2);
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = runtime(cores.clamp(2, 4))?;
    let served = runtime.block_on(daemon::run(settings));
    runtime.shutdown_timeout(LAST);
    served
}

/// Few workers, small stacks: the daemon waits far more than it computes.
fn runtime(workers: usize) -> Result<Runtime, Error> {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(Lane::THREADS + MORE_THREADS)
        .thread_keep_alive(Duration::from_secs(5))
        .thread_name("containerd")
        .enable_all()
        .build()
        .map_err(|error| Error::internal(format!("cannot start: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
        let cli = Cli::parse_from([
            "containerd",
            "-c",
            "/x",
            "--address",
            "/a.sock",
            "-l",
            "debug",
            "config",
            "dump",
        ]);
        assert_eq!(cli.global.config, Some("/x".into()));
        assert_eq!(cli.global.log_level.as_deref(), Some("debug"));
    }

    #[test]
    fn version_is_the_third_word() {
        let line = command().render_version();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["containerd", "berth", crate::VERSION, crate::REVISION]);
    }

    #[test]
    fn long_flags_take_one_dash() {
        let words =
            ["containerd", "-address=/a.sock", "-root", "/r", "publish", "-topic", "/t", "-namespace=n"];
        let args = flags::with_usual_dashes(&command(), words.map(Into::into));
        let cli = Cli::try_parse_from(args).unwrap();
        assert_eq!((cli.global.address.as_deref(), cli.global.root), (Some("/a.sock"), Some("/r".into())));
        assert!(matches!(cli.command, Some(Command::Publish(_))));
    }
}
