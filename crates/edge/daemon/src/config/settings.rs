//! What the daemon takes from its configuration.

use std::path::PathBuf;
use std::time::Duration;

use super::read::ConfigError;
use super::value::{Value, Values};
use crate::logging::Format;
use crate::plugin::Proxied;
use crate::verifier::Directory;

/// What the daemon takes from its configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The persistent directory.
    pub root: PathBuf,
    /// The volatile directory.
    pub state: PathBuf,
    /// The gRPC socket.
    pub address: PathBuf,
    /// Owner of the gRPC socket.
    pub owner: (u32, u32),
    /// The ttrpc socket.
    pub ttrpc_address: PathBuf,
    /// Owner of the ttrpc socket.
    pub ttrpc_owner: (u32, u32),
    /// The longest message taken, in bytes.
    pub receive_bytes: usize,
    /// The longest message sent, in bytes.
    pub send_bytes: usize,
    /// The level of the log.
    pub log_level: String,
    /// The form of the log.
    pub log_format: Format,
    /// `oom_score_adj` of the daemon.
    pub oom_score: i64,
    /// Plugins that shall not be used, by their full names.
    pub disabled: Vec<String>,
    /// Plugins without which the daemon shall not start.
    pub required: Vec<String>,
    /// Whether only marked namespaces share blobs.
    pub isolated: bool,
    /// When garbage is collected.
    pub gc: Gc,
    /// The overlay driver.
    pub overlay: Overlay,
    /// Directory of the native driver, when not the usual.
    pub native_root: Option<PathBuf>,
    /// Directory of shims' sockets, at most [`MAX_SOCKET_DIR`] bytes long.
    pub socket_dir: PathBuf,
    /// Environment added for shims.
    pub shim_env: Vec<String>,
    /// Where `hosts.toml` files are.
    pub hosts_dir: String,
    /// How many blobs of an image are fetched at once.
    pub downloads: usize,
    /// How many layers of an image are pushed at once.
    pub uploads: usize,
    /// Programs that judge images before they are pulled.
    pub verifiers: Directory,
    /// The cgroup that the daemon joins; empty for the one it is in.
    pub cgroup: String,
    /// Directory of temporary files, of the daemon's programs too.
    pub temporary: Option<PathBuf>,
    /// Where Prometheus is served, `HOST:PORT`; empty for nowhere.
    pub metrics: String,
    /// Whether Prometheus is told nothing of containers.
    pub metrics_of_daemon_only: bool,
    /// How long calls to shims may take.
    pub deadlines: task::Deadlines,
    /// Plugins in other processes.
    pub proxies: Vec<Proxied>,
    /// Kubernetes' interface; none when it is disabled.
    pub cri: Option<cri::Config>,
}

/// When garbage is collected.
#[derive(Clone, Debug, PartialEq)]
pub struct Gc {
    /// The most of the time that collections may take, as a share.
    pub pause_threshold: f64,
    /// Collect after so many deletions; 0 for never.
    pub deletion_threshold: u64,
    /// Collect after so many changes, if something was deleted.
    pub mutation_threshold: u64,
    /// How long to wait once a collection is due.
    pub schedule_delay: Duration,
    /// How long to wait after the start.
    pub startup_delay: Duration,
}

/// The overlay driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// Its directory, when not the usual.
    pub root: Option<PathBuf>,
    /// Whether to label snapshots with their upper directory.
    pub upperdir_label: bool,
    /// Whether to remove directories with their snapshot.
    pub sync_remove: bool,
    /// Options of every mount.
    pub mount_options: Vec<String>,
}

/// Reads values of one table; every key is checked and has a default, so nothing is missing.
pub(super) struct Table<'a>(pub &'a Values, pub &'static str);

impl Table<'_> {
    pub fn text(&self, key: &str) -> String {
        match self.0.get(self.1, key) {
            Some(Value::Text(text)) => text.clone(),
            _ => String::new(),
        }
    }

    pub fn path(&self, key: &str) -> Option<PathBuf> {
        Some(self.text(key)).filter(|text| !text.is_empty()).map(|text| absolute(text.into()))
    }

    pub fn integer(&self, key: &str) -> i64 {
        match self.0.get(self.1, key) {
            Some(Value::Integer(number)) => *number,
            _ => 0,
        }
    }

    /// A number that may not be negative.
    pub fn count<T: TryFrom<i64>>(&self, key: &str) -> Result<T, ConfigError> {
        let number = self.integer(key);
        T::try_from(number).map_err(|_| ConfigError::Value {
            key: format!("{}.{key}", self.1.replace('/', ".")),
            reason: format!("{number} is out of range"),
        })
    }

    pub fn truth(&self, key: &str) -> bool {
        matches!(self.0.get(self.1, key), Some(Value::Boolean(true)))
    }

    pub fn duration(&self, key: &str) -> Duration {
        duration(&self.text(key)).unwrap_or_default()
    }

    /// A duration that may not be zero: then it is the `usual` one.
    pub fn duration_or(&self, key: &str, usual: Duration) -> Duration {
        Some(self.duration(key)).filter(|duration| !duration.is_zero()).unwrap_or(usual)
    }

    pub fn texts(&self, key: &str) -> Vec<String> {
        self.0.get(self.1, key).map_or_else(Vec::new, Value::texts)
    }
}

impl Settings {
    /// Takes what the daemon needs out of `values`.
    ///
    /// # Errors
    /// A value is out of range.
    pub fn new(values: &Values) -> Result<Self, ConfigError> {
        let top = Table(values, "");
        let grpc = Table(values, "plugins/io.containerd.server.v1.grpc");
        let ttrpc = Table(values, "plugins/io.containerd.server.v1.ttrpc");
        let debug = Table(values, "debug");
        let bolt = Table(values, "plugins/io.containerd.metadata.v1.bolt");
        let shim = Table(values, "plugins/io.containerd.shim.v1.manager");
        let transfer = Table(values, "plugins/io.containerd.transfer.v1.local");
        let verifiers = Table(values, "plugins/io.containerd.image-verifier.v1.bindir");
        let address = absolute(grpc.text("address").trim_start_matches("unix://").into());
        let owner = (grpc.count("uid")?, grpc.count("gid")?);
        let own = (ttrpc.count("uid")?, ttrpc.count("gid")?);
        Ok(Self {
            root: absolute(top.text("root").into()),
            state: absolute(top.text("state").into()),
            owner,
            ttrpc_address: ttrpc.path("address").unwrap_or_else(|| beside(&address)),
            ttrpc_owner: if own == (0, 0) { owner } else { own },
            address,
            receive_bytes: grpc.count("max_recv_message_size")?,
            send_bytes: grpc.count("max_send_message_size")?,
            log_level: debug.text("level"),
            log_format: if debug.text("format") == "json" { Format::Json } else { Format::Text },
            oom_score: top.integer("oom_score"),
            disabled: top.texts("disabled_plugins"),
            required: top.texts("required_plugins"),
            isolated: bolt.text("content_sharing_policy") == "isolated",
            gc: gc(values)?,
            overlay: overlay(values),
            native_root: Table(values, "plugins/io.containerd.snapshotter.v1.native").path("root_path"),
            socket_dir: shim.path("socket_dir").unwrap_or_else(|| SOCKET_DIR.into()),
            shim_env: shim.texts("env"),
            hosts_dir: transfer.text("config_path"),
            downloads: transfer.count("max_concurrent_downloads")?,
            uploads: transfer.count("max_concurrent_uploaded_layers")?,
            verifiers: Directory {
                path: verifiers.text("bin_dir").into(),
                most: verifiers.integer("max_verifiers"),
                timeout: verifiers.duration_or("per_verifier_timeout", Duration::from_secs(10)),
            },
            cgroup: Table(values, "cgroup").text("path"),
            temporary: top.path("temp"),
            metrics: Table(values, "plugins/io.containerd.server.v1.metrics").text("address"),
            metrics_of_daemon_only: Table(values, "plugins/io.containerd.monitor.task.v1.cgroups")
                .truth("no_prometheus"),
            deadlines: deadlines(values),
            proxies: super::proxy::proxies(values)?,
            cri: super::cri::config(values)?,
        })
    }

    /// Checks what flags can spoil too: directories that are empty, or the same.
    ///
    /// # Errors
    /// The key and what is wrong with it.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, reason: &str| ConfigError::Value { key: key.into(), reason: reason.into() };
        for (key, path) in [("root", &self.root), ("state", &self.state), ("address", &self.address)] {
            if !path.is_absolute() {
                return Err(wrong(key, "must be specified"));
            }
        }
        let key = "plugins.\"io.containerd.shim.v1.manager\".socket_dir";
        if !self.socket_dir.is_absolute() {
            return Err(wrong(key, "must be an absolute path"));
        }
        if self.socket_dir.as_os_str().len() > MAX_SOCKET_DIR {
            return Err(wrong(key, &format!("must be at most {MAX_SOCKET_DIR} characters long")));
        }
        if self.root == self.state {
            return Err(wrong("state", "root and state cannot be the same path"));
        }
        Ok(())
    }

    /// Moves the gRPC socket, and the ttrpc socket with it when that is beside it.
    pub fn move_to(&mut self, address: PathBuf) {
        if self.ttrpc_address == beside(&self.address) {
            self.ttrpc_address = beside(&address);
        }
        self.address = address;
    }
}

/// Directory of shims' sockets unless it is set, as containerd has it: short whatever `state` is.
const SOCKET_DIR: &str = "/run/containerd/s";

/// Longest directory of shims' sockets, in bytes: an address holds 107, and a name is a hash of 64 hexadecimal digits.
const MAX_SOCKET_DIR: usize = 107 - 64 - 1;

/// `path` from the working directory on where it is relative; an empty one stays empty.
pub fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// The ttrpc socket of a gRPC socket.
fn beside(address: &std::path::Path) -> PathBuf {
    let mut name = address.as_os_str().to_owned();
    name.push(".ttrpc");
    name.into()
}

/// A deadline of zero, none at all for containerd, is the usual one: no wait is without a bound.
fn deadlines(values: &Values) -> task::Deadlines {
    let table = Table(values, "timeouts");
    let usual = task::Deadlines::default();
    task::Deadlines {
        state: table.duration_or("io.containerd.timeout.task.state", usual.state),
        stats: table.duration_or("io.containerd.timeout.metrics.shimstats", usual.stats),
        load: table.duration_or("io.containerd.timeout.shim.load", usual.load),
        cleanup: table.duration_or("io.containerd.timeout.shim.cleanup", usual.cleanup),
        shutdown: table.duration_or("io.containerd.timeout.shim.shutdown", usual.shutdown),
    }
}

fn gc(values: &Values) -> Result<Gc, ConfigError> {
    let table = Table(values, "plugins/io.containerd.gc.v1.scheduler");
    let pause_threshold = match values.get(table.1, "pause_threshold") {
        Some(Value::Float(share)) => *share,
        _ => table.integer("pause_threshold") as f64,
    };
    Ok(Gc {
        pause_threshold,
        deletion_threshold: table.count("deletion_threshold")?,
        mutation_threshold: table.count("mutation_threshold")?,
        schedule_delay: table.duration("schedule_delay"),
        startup_delay: table.duration("startup_delay"),
    })
}

fn overlay(values: &Values) -> Overlay {
    let table = Table(values, "plugins/io.containerd.snapshotter.v1.overlayfs");
    Overlay {
        root: table.path("root_path"),
        upperdir_label: table.truth("upperdir_label"),
        sync_remove: table.truth("sync_remove"),
        mount_options: table.texts("mount_options"),
    }
}

/// A duration in Go's form: `1m30s`, `100ms`, `1.5h`, `0`.
pub fn duration(text: &str) -> Option<Duration> {
    if text.is_empty() || text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        rest = &rest[unit..];
        total += number * seconds;
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::super::load::defaults;
    use super::*;

    #[test]
    fn sockets_of_shims_have_a_short_directory() {
        let mut settings = Settings::new(&defaults()).unwrap();
        assert_eq!(settings.socket_dir, PathBuf::from("/run/containerd/s"));
        settings.state = format!("/{}", "long/".repeat(50)).into();
        settings.check().unwrap();
        settings.socket_dir = format!("/{}", "x".repeat(41)).into();
        settings.check().unwrap();
        settings.socket_dir = format!("/{}", "x".repeat(42)).into();
        let error = settings.check().unwrap_err().to_string();
        assert!(error.contains("socket_dir") && error.contains("at most 42 characters"), "{error}");
        settings.socket_dir = "s".into();
        assert!(settings.check().is_err());
    }

    #[test]
    fn relative_paths_are_in_the_working_directory() {
        let mut values = defaults();
        let overlay = "plugins/io.containerd.snapshotter.v1.overlayfs";
        for (table, key) in [
            ("", "root"),
            ("", "state"),
            ("", "temp"),
            ("plugins/io.containerd.server.v1.grpc", "address"),
            (overlay, "root_path"),
        ] {
            values.set(table, key, Value::Text(format!("below/{key}")));
        }
        let settings = Settings::new(&values).unwrap();
        let here = std::env::current_dir().unwrap().join("below");
        assert_eq!((settings.root.clone(), settings.state.clone()), (here.join("root"), here.join("state")));
        assert_eq!(
            (settings.temporary.clone(), settings.overlay.root.clone()),
            (Some(here.join("temp")), Some(here.join("root_path")))
        );
        assert_eq!(
            (settings.address.clone(), settings.ttrpc_address.clone()),
            (here.join("address"), here.join("address.ttrpc"))
        );
        settings.check().unwrap();
        values.set("", "root", Value::Text(String::new()));
        assert_eq!(
            Settings::new(&values).unwrap().check().unwrap_err().to_string(),
            "root: must be specified"
        );
    }

    #[test]
    fn durations_are_gos() {
        for (text, expected) in [
            ("1m30s", Some(Duration::from_secs(90))),
            ("100ms", Some(Duration::from_millis(100))),
            ("1.5h", Some(Duration::from_secs(5400))),
            ("0s", Some(Duration::ZERO)),
            ("5", None),
            ("s", None),
            ("5 s", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    #[test]
    fn deadlines_are_the_files_and_never_none() {
        let mut values = defaults();
        assert_eq!(deadlines(&values), task::Deadlines::default());
        values.set("timeouts", "io.containerd.timeout.task.state", Value::Text("700ms".into()));
        values.set("timeouts", "io.containerd.timeout.shim.load", Value::Text("0s".into()));
        let deadlines = deadlines(&values);
        assert_eq!((deadlines.state, deadlines.load), (Duration::from_millis(700), Duration::from_secs(5)));
    }

    #[test]
    fn the_ttrpc_socket_follows_the_grpc_socket() {
        let mut settings = Settings::new(&defaults()).unwrap();
        assert_eq!(settings.ttrpc_address, PathBuf::from("/run/containerd/containerd.sock.ttrpc"));
        settings.move_to("/x.sock".into());
        assert_eq!(settings.ttrpc_address, PathBuf::from("/x.sock.ttrpc"));
        assert_eq!(settings.gc.startup_delay, Duration::from_millis(100));
    }
}
