//! What the CRI server takes from the daemon's configuration (`io.containerd.cri.v1.runtime`, `.images` and
//! `io.containerd.grpc.v1.cri`); the daemon reads the file, fills this in and says what is wrong with it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use model::Any;

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Pods and containers.
    pub runtime: Runtime,
    /// Images.
    pub images: Images,
    /// The streaming server.
    pub stream: Stream,
    /// NRI.
    pub nri: Nri,
    /// The program that pods without a pause image run; found beside the daemon.
    pub pause_program: PathBuf,
    /// How long undoing a failed verb may take (`io.containerd.timeout.cri.defercleanup`).
    pub cleanup_timeout: Duration,
}

/// `io.containerd.cri.v1.runtime`.
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    /// Whether SELinux labels are given to containers.
    pub enable_selinux: bool,
    /// How many category pairs SELinux labels are made of.
    pub selinux_category_range: u32,
    /// The longest line of a log in bytes; `None` for no limit.
    pub max_container_log_line_size: Option<usize>,
    /// Whether AppArmor is left alone.
    pub disable_apparmor: bool,
    /// Whether a container's `oom_score_adj` is never below the daemon's own.
    pub restrict_oom_score_adj: bool,
    /// Whether masked and read-only paths of /proc are not asked for by the kubelet's `proc_mount`.
    pub disable_proc_mount: bool,
    /// The seccomp profile of containers that ask for none: empty (unconfined), `runtime/default`, `localhost/...`.
    pub unset_seccomp_profile: String,
    /// Whether huge page limits are dropped where the controller is missing.
    pub tolerate_missing_hugetlb_controller: bool,
    /// Whether huge page limits are always dropped.
    pub disable_hugetlb_controller: bool,
    /// Whether devices belong to the container's user.
    pub device_ownership_from_security_context: bool,
    /// Whether volumes that an image defines are left out.
    pub ignore_image_defined_volumes: bool,
    /// Whether network namespaces are mounted below the state directory and not `/var/run/netns`.
    pub netns_mounts_under_state_dir: bool,
    /// Whether ports below 1024 need no capability in a pod's own network.
    pub enable_unprivileged_ports: bool,
    /// Whether ping needs no capability in a pod's own network.
    pub enable_unprivileged_icmp: bool,
    /// Whether CDI devices are injected.
    pub enable_cdi: bool,
    /// Where CDI specs are.
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// How long to wait for an exec's output once it has ended; zero for ever.
    pub drain_exec_sync_io_timeout: Duration,
    /// How often CPU use is sampled.
    pub stats_collect_period: Duration,
    /// How long samples are kept.
    pub stats_retention_period: Duration,
    /// Handler of pods that name none.
    pub default_runtime_name: String,
    /// Whether block I/O classes that the daemon has no file for are ignored.
    pub ignore_blockio_not_enabled_errors: bool,
    /// Whether RDT classes that the daemon has no file for are ignored.
    pub ignore_rdt_not_enabled_errors: bool,
    /// Runtime handlers by name.
    pub runtimes: BTreeMap<String, Handler>,
    /// The network.
    pub cni: Cni,
}

/// `containerd.runtimes.NAME`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Handler {
    /// `io.containerd.runc.v2`, ...
    pub runtime_type: String,
    /// The shim's path, when it is not found by its name.
    pub runtime_path: String,
    /// Which pod annotations go to the runtime (globs).
    pub pod_annotations: Vec<String>,
    /// Which container annotations go to the runtime (globs).
    pub container_annotations: Vec<String>,
    /// Whether privileged containers get no host devices.
    pub privileged_without_host_devices: bool,
    /// Whether they may then still use every device that they make.
    pub privileged_without_host_devices_all_devices_allowed: bool,
    /// Whether containers may write their cgroup (v2 only).
    pub cgroup_writable: bool,
    /// A JSON file that specs begin from.
    pub base_runtime_spec: Option<PathBuf>,
    /// A directory of CNI configurations of this handler's own.
    pub cni_conf_dir: Option<PathBuf>,
    /// How many configurations of that directory count.
    pub cni_max_conf_num: usize,
    /// The snapshotter, when not the images'.
    pub snapshotter: String,
    /// `podsandbox` or `shim`.
    pub sandboxer: String,
    /// `fifo` or `streaming`; empty for the first.
    pub io_type: String,
    /// The options as the shim takes them.
    pub options: Option<Any>,
    /// Whether cgroups are made by systemd.
    pub systemd_cgroup: bool,
}

/// `cni`.
#[derive(Clone, Debug, PartialEq)]
pub struct Cni {
    /// Where plugins are.
    pub bin_dirs: Vec<PathBuf>,
    /// Where configurations are.
    pub conf_dir: PathBuf,
    /// How many of them count; 0 for all.
    pub max_conf_num: usize,
    /// Whether networks are set up one after the other.
    pub setup_serially: bool,
    /// A template of a configuration, written once the node's range is known.
    pub conf_template: Option<PathBuf>,
    /// Which address is the pod's first.
    pub ip_pref: IpPreference,
    /// Whether loopback is set up without a plugin.
    pub use_internal_loopback: bool,
}

/// Which address is the pod's first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpPreference {
    /// The first IPv4 address.
    #[default]
    V4,
    /// The first IPv6 address.
    V6,
    /// The first that CNI tells.
    Cni,
}

/// `io.containerd.cri.v1.images`.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    /// The snapshotter of images.
    pub snapshotter: String,
    /// Whether snapshotters are not told what they prepare.
    pub disable_snapshot_annotations: bool,
    /// Whether layer blobs may go once they are unpacked.
    pub discard_unpacked_layers: bool,
    /// How many blobs of an image are fetched at once.
    pub max_concurrent_downloads: usize,
    /// A pull that makes no progress for so long is given up; zero for never.
    pub image_pull_progress_timeout: Duration,
    /// Whether file systems are flushed after an unpack.
    pub image_pull_with_sync_fs: bool,
    /// How often snapshots are measured.
    pub stats_collect_period: Duration,
    /// The pause image; empty for the built-in one.
    pub sandbox_image: String,
    /// Every pinned image by its name in the configuration, `sandbox` among them.
    pub pinned_images: BTreeMap<String, String>,
    /// How registries are reached.
    pub registry: Registry,
    /// Platform and snapshotter of handlers, by name.
    pub runtime_platforms: BTreeMap<String, RuntimePlatform>,
}

/// `runtime_platforms.NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimePlatform {
    /// That of its images; none for the host's.
    pub platform: Option<::spec::Platform>,
    /// The snapshotter; empty for the usual one.
    pub snapshotter: String,
}

/// `registry`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    /// Where `hosts.toml` files are; colon-separated.
    pub config_path: String,
    /// Mirrors by host, `*` for all others: endpoints in order.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Credentials and TLS by host.
    pub configs: BTreeMap<String, RegistryHost>,
    /// Headers of every request.
    pub headers: BTreeMap<String, Vec<String>>,
}

/// `registry.configs.HOST`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryHost {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// Both, in base64.
    pub auth: String,
    /// A refresh token.
    pub identity_token: String,
    /// Whether certificates are not looked at.
    pub insecure_skip_verify: bool,
    /// File of certificate authorities.
    pub ca_file: String,
    /// File of the client's certificate.
    pub cert_file: String,
    /// File of the client's key.
    pub key_file: String,
}

/// `io.containerd.grpc.v1.cri`.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// Where the server listens; empty for the host's first address.
    pub address: String,
    /// On which port; 0 for any.
    pub port: u16,
    /// How long a stream may be silent.
    pub idle_timeout: Duration,
    /// Whether the server speaks TLS, and with which certificate.
    pub tls: Tls,
}

/// How the streaming server speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Not at all.
    #[default]
    Off,
    /// With a certificate that it makes for itself.
    SelfSigned,
    /// With a certificate and key of these files.
    Files {
        /// The certificate's.
        cert: PathBuf,
        /// The key's.
        key: PathBuf,
    },
}

/// `io.containerd.nri.v1.nri`.
#[derive(Clone, Debug, PartialEq)]
pub struct Nri {
    /// Whether there is none.
    pub disable: bool,
    /// The socket that plugins connect to.
    pub socket_path: PathBuf,
    /// Plugins that are started with the daemon.
    pub plugin_path: PathBuf,
    /// Their configuration.
    pub plugin_config_path: PathBuf,
    /// How long a plugin may take to register.
    pub registration_timeout: Duration,
    /// How long a plugin may take to answer.
    pub request_timeout: Duration,
    /// Whether plugins may not connect by themselves.
    pub disable_connections: bool,
    /// The built-in validator.
    pub validator: Validator,
}

/// `default_validator`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validator {
    /// Whether it judges at all.
    pub enable: bool,
    /// Refuse OCI hooks.
    pub reject_oci_hooks: bool,
    /// Refuse changes of the runtime's default seccomp profile.
    pub reject_runtime_default_seccomp: bool,
    /// Refuse changes of an unconfined seccomp profile.
    pub reject_unconfined_seccomp: bool,
    /// Refuse changes of a custom seccomp profile.
    pub reject_custom_seccomp: bool,
    /// Refuse changes of namespaces.
    pub reject_namespaces: bool,
    /// Refuse changes of sysctls.
    pub reject_sysctls: bool,
    /// Plugins without which no container is made.
    pub required_plugins: Vec<String>,
    /// The pod annotation that tolerates missing plugins.
    pub tolerate_missing_annotation: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            runtime: Runtime::default(),
            images: Images::default(),
            stream: Stream::default(),
            nri: Nri::default(),
            pause_program: "/usr/local/bin/containerd-pause".into(),
            cleanup_timeout: Duration::from_secs(60),
        }
    }
}

impl Default for Runtime {
    fn default() -> Self {
        let runc = Handler {
            runtime_type: "io.containerd.runc.v2".into(),
            sandboxer: "podsandbox".into(),
            ..Handler::default()
        };
        Self {
            enable_selinux: false,
            selinux_category_range: 1024,
            max_container_log_line_size: Some(16 * 1024),
            disable_apparmor: false,
            restrict_oom_score_adj: false,
            disable_proc_mount: false,
            unset_seccomp_profile: String::new(),
            tolerate_missing_hugetlb_controller: true,
            disable_hugetlb_controller: true,
            device_ownership_from_security_context: false,
            ignore_image_defined_volumes: false,
            netns_mounts_under_state_dir: false,
            enable_unprivileged_ports: true,
            enable_unprivileged_icmp: true,
            enable_cdi: true,
            cdi_spec_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
            drain_exec_sync_io_timeout: Duration::ZERO,
            stats_collect_period: Duration::from_secs(1),
            stats_retention_period: Duration::from_secs(120),
            default_runtime_name: "runc".into(),
            ignore_blockio_not_enabled_errors: false,
            ignore_rdt_not_enabled_errors: false,
            runtimes: BTreeMap::from([("runc".into(), runc)]),
            cni: Cni::default(),
        }
    }
}

impl Default for Cni {
    fn default() -> Self {
        Self {
            bin_dirs: vec!["/opt/cni/bin".into()],
            conf_dir: "/etc/cni/net.d".into(),
            max_conf_num: 1,
            setup_serially: false,
            conf_template: None,
            ip_pref: IpPreference::V4,
            use_internal_loopback: false,
        }
    }
}

impl Default for Images {
    fn default() -> Self {
        Self {
            snapshotter: "overlayfs".into(),
            disable_snapshot_annotations: true,
            discard_unpacked_layers: false,
            max_concurrent_downloads: 3,
            image_pull_progress_timeout: Duration::from_secs(300),
            image_pull_with_sync_fs: false,
            stats_collect_period: Duration::from_secs(10),
            sandbox_image: String::new(),
            pinned_images: BTreeMap::new(),
            registry: Registry::default(),
            runtime_platforms: BTreeMap::new(),
        }
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            address: "127.0.0.1".into(),
            port: 0,
            idle_timeout: Duration::from_secs(4 * 3600),
            tls: Tls::Off,
        }
    }
}

impl Default for Nri {
    fn default() -> Self {
        Self {
            disable: false,
            socket_path: "/var/run/nri/nri.sock".into(),
            plugin_path: "/opt/nri/plugins".into(),
            plugin_config_path: "/etc/nri/conf.d".into(),
            registration_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(2),
            disable_connections: false,
            validator: Validator::default(),
        }
    }
}
