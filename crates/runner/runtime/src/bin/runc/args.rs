//! The command line: runc's commands and flags. The doc comments are the help.

use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

/// Open Container Initiative runtime
///
/// runc runs containers from bundles: a bundle is a directory with a specification file named "config.json" and a root
/// filesystem. It is meant to be driven by a supervisor, such as containerd's shim; the container becomes a child of
/// whoever runs runc.
///
/// To start a new instance of a container:
///
///     # runc run [ -b bundle ] <container-id>
#[derive(Debug, Parser)]
#[command(name = "runc", disable_version_flag = true, disable_help_subcommand = false, verbatim_doc_comment)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    /// print the version
    #[arg(short = 'v', long)]
    pub version: bool,
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// Reads the command line of this process.
    ///
    /// # Errors
    /// The parser's, which also carry what was asked for help.
    pub fn read() -> Result<Self, clap::Error> {
        let command = command();
        let words = flags::with_usual_dashes(&command, std::env::args_os());
        Self::from_arg_matches(&command.try_get_matches_from(words)?)
    }
}

/// The command line's definition, with help laid out as runc lays it out.
pub fn command() -> clap::Command {
    let layout = |name: &str| {
        format!("NAME:\n   {name} - {{about}}\n\nUSAGE:\n   {{usage}}\n\n{{all-args}}{{after-help}}\n")
    };
    let mut command = Cli::command().help_template(layout("runc")).mut_subcommands(|below| {
        let name = format!("runc {}", below.get_name());
        below.help_template(layout(&name))
    });
    command.build();
    command
}

/// The help of the whole program.
pub fn help() -> String {
    command().render_help().to_string()
}

/// Flags before the command.
#[derive(Debug, Args)]
pub struct Global {
    /// enable debug logging
    #[arg(long)]
    pub debug: bool,
    /// set the log file to write runc logs to (default is '/dev/stderr')
    #[arg(long, value_name = "value")]
    pub log: Option<PathBuf>,
    /// set the log format ('text' (default), or 'json')
    #[arg(long, value_name = "value", default_value = "text")]
    pub log_format: String,
    /// root directory for storage of container state (this should be located in tmpfs)
    #[arg(long, value_name = "value")]
    pub root: Option<PathBuf>,
    /// enable systemd cgroup support, expects cgroupsPath to be of form "slice:prefix:name" for e.g. "system.slice:runc:434234"
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// ignored: what a user may not do fails
    #[arg(long, value_name = "value", default_value = "auto", hide = true)]
    pub rootless: String,
    /// ignored: there is no checkpoint
    #[arg(long, value_name = "value", hide = true)]
    pub criu: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// checkpoint a running container (this runtime cannot)
    Checkpoint(Unsupported),
    /// create a container
    Create(Create),
    /// delete any resources held by the container often used with detached container
    Delete(Delete),
    /// display container events such as OOM notifications, cpu, memory, and IO usage statistics
    Events(Events),
    /// execute new process inside the container
    Exec(Exec),
    /// show the enabled features
    Features(Bare),
    /// kill sends the specified signal (default: SIGTERM) to the container's init process
    Kill(Kill),
    /// lists containers started by runc with the given root
    List(List),
    /// pause suspends all processes inside the container
    Pause(Target),
    /// ps displays the processes running inside a container
    Ps(Ps),
    /// restore a container from a previous checkpoint (this runtime cannot)
    Restore(Unsupported),
    /// resumes all processes that have been previously paused
    Resume(Target),
    /// create and run a container
    Run(Run),
    /// create a new specification file
    Spec(Spec),
    /// executes the user defined process in a created container
    Start(Target),
    /// output the state of a container
    State(Target),
    /// update container resource constraints
    Update(Box<Update>),
}

impl Command {
    /// The word on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Checkpoint(_) => "checkpoint",
            Self::Create(_) => "create",
            Self::Delete(_) => "delete",
            Self::Events(_) => "events",
            Self::Exec(_) => "exec",
            Self::Features(_) => "features",
            Self::Kill(_) => "kill",
            Self::List(_) => "list",
            Self::Pause(_) => "pause",
            Self::Ps(_) => "ps",
            Self::Restore(_) => "restore",
            Self::Resume(_) => "resume",
            Self::Run(_) => "run",
            Self::Spec(_) => "spec",
            Self::Start(_) => "start",
            Self::State(_) => "state",
            Self::Update(_) => "update",
        }
    }

    /// Whether a process of this program goes where the container could reach its executable.
    pub fn enters_a_container(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Run(_) | Self::Exec(_))
    }
}

/// A command on one container.
#[derive(Debug, Args)]
pub struct Target {
    /// name of the container
    #[arg(value_name = "container-id")]
    pub args: Vec<String>,
}

/// A command of runc that this runtime does not have, whatever its flags.
#[derive(Debug, Args)]
pub struct Unsupported {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

/// A command without arguments.
#[derive(Debug, Args)]
pub struct Bare {
    #[arg(hide = true)]
    pub args: Vec<String>,
}

/// What create and run share.
#[derive(Debug, Args)]
pub struct Bundle {
    /// path to the root of the bundle directory, defaults to the current directory
    #[arg(short, long, value_name = "value")]
    pub bundle: Option<PathBuf>,
    /// path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's
    /// pseudoterminal
    #[arg(long, value_name = "value")]
    pub console_socket: Option<PathBuf>,
    /// path to an AF_UNIX socket which will receive a file descriptor referencing the init process
    #[arg(long, value_name = "value")]
    pub pidfd_socket: Option<PathBuf>,
    /// specify the file to write the process id to
    #[arg(long, value_name = "value")]
    pub pid_file: Option<PathBuf>,
    /// do not use pivot root to jail process inside rootfs. This should be used whenever the rootfs is on top of a
    /// ramdisk
    #[arg(long)]
    pub no_pivot: bool,
    /// do not create a new session keyring for the container. This will cause the container to inherit the calling
    /// processes session key
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)
    #[arg(long, value_name = "value", default_value_t = 0)]
    pub preserve_fds: u32,
    /// name of the container
    #[arg(value_name = "container-id")]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    pub bundle: Bundle,
}

#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub bundle: Bundle,
    /// detach from the container's process
    #[arg(short, long)]
    pub detach: bool,
    /// do not delete the container after it exits
    #[arg(long)]
    pub keep: bool,
    /// disable the use of the subreaper used to reap reparented processes
    #[arg(long)]
    pub no_subreaper: bool,
}

#[derive(Debug, Args)]
pub struct Delete {
    /// Forcibly deletes the container if it is still running (uses SIGKILL)
    #[arg(short, long)]
    pub force: bool,
    /// name of the container
    #[arg(value_name = "container-id")]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Events {
    /// set the stats collection interval
    #[arg(long, value_name = "value", default_value = "5s")]
    pub interval: String,
    /// display the container's stats then exit
    #[arg(long)]
    pub stats: bool,
    /// name of the container
    #[arg(value_name = "container-id")]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Exec {
    /// path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's
    /// pseudoterminal
    #[arg(long, value_name = "value")]
    pub console_socket: Option<PathBuf>,
    /// path to an AF_UNIX socket which will receive a file descriptor referencing the exec process
    #[arg(long, value_name = "value")]
    pub pidfd_socket: Option<PathBuf>,
    /// current working directory in the container
    #[arg(long, value_name = "value")]
    pub cwd: Option<String>,
    /// set environment variables
    #[arg(short, long, value_name = "value")]
    pub env: Vec<String>,
    /// allocate a pseudo-TTY
    #[arg(short, long)]
    pub tty: bool,
    /// UID (format: <uid>[:<gid>])
    #[arg(short, long, value_name = "value")]
    pub user: Option<String>,
    /// additional gids
    #[arg(short = 'g', long, value_name = "value", allow_negative_numbers = true)]
    pub additional_gids: Vec<i64>,
    /// path to the process.json
    #[arg(short, long, value_name = "value")]
    pub process: Option<PathBuf>,
    /// detach from the container's process
    #[arg(short, long)]
    pub detach: bool,
    /// specify the file to write the process id to
    #[arg(long, value_name = "value")]
    pub pid_file: Option<PathBuf>,
    /// set the asm process label for the process commonly used with selinux
    #[arg(long, value_name = "value")]
    pub process_label: Option<String>,
    /// set the apparmor profile for the process
    #[arg(long, value_name = "value")]
    pub apparmor: Option<String>,
    /// set the no new privileges value for the process
    #[arg(long)]
    pub no_new_privs: bool,
    /// add a capability to the bounding set for the process
    #[arg(short, long, value_name = "value")]
    pub cap: Vec<String>,
    /// Pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)
    #[arg(long, value_name = "value", default_value_t = 0)]
    pub preserve_fds: u32,
    /// run the process in an (existing) sub-cgroup(s). Format is [<controller>:]<cgroup>.
    #[arg(long, value_name = "value")]
    pub cgroup: Vec<String>,
    /// allow exec in a paused container
    #[arg(long)]
    pub ignore_paused: bool,
    /// name of the container, and the command to be executed in it unless --process is given
    #[arg(value_name = "container-id", trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Kill {
    /// send the specified signal to all processes inside the container
    #[arg(short, long, hide = true)]
    pub all: bool,
    /// name of the container, and the signal
    #[arg(value_name = "container-id", trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
pub struct List {
    /// select one of: table or json
    #[arg(short, long, value_name = "value", default_value = "table")]
    pub format: String,
    /// display only container IDs
    #[arg(short, long)]
    pub quiet: bool,
    #[arg(hide = true)]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Ps {
    /// select one of: table or json
    #[arg(short, long, value_name = "value", default_value = "table")]
    pub format: String,
    /// name of the container, and options of ps
    #[arg(value_name = "container-id", trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Spec {
    /// path to the root of the bundle directory
    #[arg(short, long, value_name = "value")]
    pub bundle: Option<PathBuf>,
    /// generate a configuration for a rootless container
    #[arg(long)]
    pub rootless: bool,
    #[arg(hide = true)]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Update {
    /// path to the file containing the resources to update or '-' to read from the standard input (the document's
    /// linux.resources; unchanged values can be omitted). All other options are ignored then.
    #[arg(short, long, value_name = "value")]
    pub resources: Option<PathBuf>,
    /// Specifies per cgroup weight, range is from 10 to 1000
    #[arg(long, value_name = "value")]
    pub blkio_weight: Option<u16>,
    /// CPU CFS period to be used for hardcapping (in usecs). 0 to use system default
    #[arg(long, value_name = "value")]
    pub cpu_period: Option<String>,
    /// CPU CFS hardcap limit (in usecs). Allowed cpu time in a given period
    #[arg(long, value_name = "value", allow_hyphen_values = true)]
    pub cpu_quota: Option<String>,
    /// CPU CFS hardcap burst limit (in usecs). Allowed accumulated cpu time additionally for burst a given period
    #[arg(long, value_name = "value")]
    pub cpu_burst: Option<String>,
    /// CPU shares (relative weight vs. other containers)
    #[arg(long, value_name = "value")]
    pub cpu_share: Option<String>,
    /// CPU realtime period to be used for hardcapping (in usecs). 0 to use system default
    #[arg(long, value_name = "value")]
    pub cpu_rt_period: Option<String>,
    /// CPU realtime hardcap limit (in usecs). Allowed cpu time in a given period
    #[arg(long, value_name = "value", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<String>,
    /// CPU(s) to use
    #[arg(long, value_name = "value")]
    pub cpuset_cpus: Option<String>,
    /// Memory node(s) to use
    #[arg(long, value_name = "value")]
    pub cpuset_mems: Option<String>,
    /// set cgroup SCHED_IDLE or not, 0: default behavior, 1: SCHED_IDLE
    #[arg(long, value_name = "value")]
    pub cpu_idle: Option<String>,
    /// Memory limit (in bytes)
    #[arg(long, value_name = "value", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Memory reservation or soft_limit (in bytes)
    #[arg(long, value_name = "value", allow_hyphen_values = true)]
    pub memory_reservation: Option<String>,
    /// Total memory usage (memory + swap); set '-1' to enable unlimited swap
    #[arg(long, value_name = "value", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Maximum number of pids allowed in the container
    #[arg(long, value_name = "value", allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
    /// The string of Intel RDT/CAT L3 cache schema
    #[arg(long, value_name = "value")]
    pub l3_cache_schema: Option<String>,
    /// The string of Intel RDT/MBA memory bandwidth schema
    #[arg(long, value_name = "value")]
    pub mem_bw_schema: Option<String>,
    /// (obsoleted; do not use)
    #[arg(long, value_name = "value", hide = true, allow_hyphen_values = true)]
    pub kernel_memory: Option<String>,
    /// (obsoleted; do not use)
    #[arg(long, value_name = "value", hide = true, allow_hyphen_values = true)]
    pub kernel_memory_tcp: Option<String>,
    /// name of the container
    #[arg(value_name = "container-id")]
    pub args: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let words = line.split(' ').map(std::ffi::OsString::from);
        let found: Vec<String> = flags::with_usual_dashes(&command(), words)
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
