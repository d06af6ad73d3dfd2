//! The flags of `ctr run` and `ctr containers create` that describe a container.

use std::path::PathBuf;

use clap::Args;

use crate::ctr::args;

/// What both commands take.
#[derive(Args, Debug, Clone)]
pub struct ContainerFlags {
    /// Which shim runs it.
    #[command(flatten)]
    pub runtime: args::Runtime,
    /// Which snapshotter holds its root file system.
    #[command(flatten)]
    pub snapshotter: args::Snapshotter,
    /// Its labels.
    #[command(flatten)]
    pub label: args::Label,
    /// Labels added to the new snapshot for this container
    #[arg(long = "snapshotter-label", value_name = "KEY=VALUE")]
    pub snapshotter_labels: Vec<String>,
    /// Path to the runtime-specific spec config file
    #[arg(long, short)]
    pub config: Option<PathBuf>,
    /// Specify the working directory of the process
    #[arg(long)]
    pub cwd: Option<String>,
    /// Specify additional container environment variables (e.g. FOO=bar)
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub envs: Vec<String>,
    /// Specify additional container environment variables in a file(e.g. FOO=bar, one per line)
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// Specify additional OCI annotations (e.g. foo=bar)
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    pub annotations: Vec<String>,
    /// Specify additional container mount (e.g. type=bind,src=/tmp,dst=/host,options=rbind:ro)
    #[arg(long = "mount", value_name = "SPEC")]
    pub mounts: Vec<String>,
    /// Enable host networking for the container
    #[arg(long)]
    pub net_host: bool,
    /// Run privileged container
    #[arg(long)]
    pub privileged: bool,
    /// Set the containers filesystem as readonly
    #[arg(long)]
    pub read_only: bool,
    /// Create the container in the given sandbox
    #[arg(long)]
    pub sandbox: Option<String>,
    /// Allocate a TTY for the container
    #[arg(long, short)]
    pub tty: bool,
    /// Specify existing Linux namespaces to join at container runtime (format '<nstype>:<path>')
    #[arg(long = "with-ns", value_name = "TYPE:PATH")]
    pub with_ns: Vec<String>,
    /// File path to write the task's pid
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Add gpus to the container, by their numbers; the vendor's CDI files say what each is
    #[arg(long = "gpus", value_name = "NUMBER")]
    pub gpus: Vec<u32>,
    /// Turn off OCI spec's NoNewPrivileges feature flag
    #[arg(long)]
    pub allow_new_privs: bool,
    /// Memory limit (in bytes) for the container
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    pub memory_limit: u64,
    /// Add Linux capabilities (Set capabilities with 'CAP_' prefix)
    #[arg(long = "cap-add", value_name = "CAP")]
    pub cap_add: Vec<String>,
    /// Drop Linux capabilities (Set capabilities with 'CAP_' prefix)
    #[arg(long = "cap-drop", value_name = "CAP")]
    pub cap_drop: Vec<String>,
    /// Enable the default seccomp profile
    #[arg(long)]
    pub seccomp: bool,
    /// File path to custom seccomp profile. seccomp must be set to true, before using seccomp-profile
    #[arg(long, value_name = "FILE")]
    pub seccomp_profile: Option<PathBuf>,
    /// Enable AppArmor with the default profile with the specified name, e.g. "cri-containerd.apparmor.d"
    #[arg(long, conflicts_with = "apparmor_profile")]
    pub apparmor_default_profile: Option<String>,
    /// Enable AppArmor with an existing custom profile
    #[arg(long)]
    pub apparmor_profile: Option<String>,
    /// File path to blockio class definitions. By default class definitions are not loaded
    #[arg(long, value_name = "FILE")]
    pub blockio_config_file: Option<PathBuf>,
    /// Name of the blockio class to associate the container with
    #[arg(long)]
    pub blockio_class: Option<String>,
    /// Name of an existing RDT class to associate the container with. Specifies a Class of Service (CLOS) for cache and memory bandwidth management
    #[arg(long)]
    pub rdt_class: Option<String>,
    /// Set the container's host name
    #[arg(long)]
    pub hostname: Option<String>,
    /// Username or user id, group optional (format: <name|uid>[:<group|gid>])
    #[arg(long, short)]
    pub user: Option<String>,
    /// Use custom rootfs that is not managed by containerd snapshotter
    #[arg(long)]
    pub rootfs: bool,
    /// Disable use of pivot-root (linux only)
    #[arg(long)]
    pub no_pivot: bool,
    /// Limit CPU CFS quota
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    pub cpu_quota: i64,
    /// Limit CPU CFS period
    #[arg(long, default_value_t = 0)]
    pub cpu_period: u64,
    /// Limit CPU CFS burst, in microseconds
    #[arg(long, default_value_t = 0)]
    pub cpu_burst: u64,
    /// Set the propagation of the container rootfs
    #[arg(long)]
    pub rootfs_propagation: Option<String>,
    /// File path to a device to add to the container; or a path to a directory tree of devices to add to the container; or a fully qualified CDI device name
    #[arg(long = "device", value_name = "PATH|NAME")]
    pub devices: Vec<String>,
}

/// What `run` alone takes for the spec.
#[derive(Args, Debug, Clone, Default)]
pub struct RunFlags {
    /// Cgroup path (To disable use of cgroup, set to "" explicitly)
    #[arg(long)]
    pub cgroup: Option<String>,
    /// Run image for specific platform
    #[arg(long)]
    pub platform: Option<String>,
    /// Run inside a user namespace with the specified UID mapping range; specified with the format `container-uid:host-uid:length`
    #[arg(long = "uidmap", value_name = "MAP")]
    pub uid_maps: Vec<String>,
    /// Run inside a user namespace with the specified GID mapping range; specified with the format `container-gid:host-gid:length`
    #[arg(long = "gidmap", value_name = "MAP")]
    pub gid_maps: Vec<String>,
    /// Provide the user namespace ID remapping to the snapshotter via label options; requires snapshotter support. A snapshotter that has it is used so anyway; the files of others are copied and chowned
    #[arg(long)]
    pub remap_labels: bool,
    /// Don't pass all host devices to privileged container
    #[arg(long)]
    pub privileged_without_host_devices: bool,
    /// Set the CFS cpu quota
    #[arg(long, default_value_t = 0.0)]
    pub cpus: f64,
    /// Set the cpu shares
    #[arg(long, default_value_t = 1024)]
    pub cpu_shares: u64,
    /// Set the CPUs the container will run in (e.g., 1-2,4)
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// Set the memory nodes the container will run in (e.g., 1-2,4)
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Set RLIMIT_NOFILE (soft:hard)
    #[arg(long)]
    pub rlimit_nofile: Option<String>,
    /// Synchronize the underlying filesystem containing files when unpack images, false by default
    #[arg(long)]
    pub sync_fs: bool,
    /// Enable cni networking for the container
    #[arg(long, conflicts_with = "net_host")]
    pub cni: bool,
}
