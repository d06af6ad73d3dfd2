//! What a container leaves on disk: `<root>/<id>/state.json`, in the form that runc writes.
//!
//! The keys are runc's, with as much of its configuration as `runc state`, `list`, `kill` and `delete` read, so that
//! either runtime can look after the other's containers; ours add the whole document under `spec`.
//!
//! Whether a container runs is never written down but found out: from its init process (by pid and start time, for
//! pids are reused), its freezer and its start gate.
//!
//! Before anything of a container exists, `creation.json` names the cgroup that it is about to get, in the same form;
//! `state.json` takes its place. A creation that was killed half way is undone by it.
//!
//! Invariant: the file is replaced as a whole; a reader sees the old text or the new one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use spec::error::{HasKind, Kind};
use spec::runtime::{Hook, Hooks, NamespaceKind, Spec, State, Status, VERSION};

use crate::cgroup::systemd::Unit;
use crate::cgroup::{Cgroup, FreezerState};

/// Name of the state file in a container's directory.
pub const FILE: &str = "state.json";

/// Name of the file that names what a creation is about to make.
const CREATION_FILE: &str = "creation.json";

/// Name of the start gate: a fifo that is there until the container was started.
pub const GATE: &str = "exec.fifo";

/// Most bytes read of a state file; the document inside is bounded by [`spec::runtime::MAX_CONFIG_BYTES`].
const MAX_BYTES: u64 = 2 * spec::runtime::MAX_CONFIG_BYTES;

/// Why a state file was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// There is no such container.
    #[error("container does not exist")]
    NotFound,
    /// The file is damaged.
    #[error("cannot read or write {path}", path = .path.display())]
    Json {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A system call failed.
    #[error(transparent)]
    System(#[from] sys::Error),
}

impl HasKind for RecordError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound => Kind::NotFound,
            Self::Json { .. } => Kind::DataLoss,
            Self::System(source) => Kind::from_errno(source.errno()),
        }
    }
}

/// The state file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Container id.
    pub id: String,
    /// Pid of init.
    pub init_process_pid: i32,
    /// Start time of init in ticks since boot, which tells it from a later process of the same pid.
    pub init_process_start: u64,
    /// When the container was created, RFC 3339.
    pub created: String,
    /// What runc's commands read of its own configuration.
    pub config: Config,
    /// Whether an ordinary user made it.
    #[serde(default)]
    pub rootless: bool,
    /// Cgroup directories by controller, as [`Cgroup::paths`] has them.
    #[serde(default)]
    pub cgroup_paths: BTreeMap<String, PathBuf>,
    /// Namespace files by runc's names (`NEWPID`, ...).
    #[serde(default)]
    pub namespace_paths: BTreeMap<String, String>,
    /// Where init's standard streams go.
    #[serde(default)]
    pub external_descriptors: Vec<String>,
    /// Directory of the resource control group; we make none.
    #[serde(default)]
    pub intel_rdt_path: String,
    /// The document; absent in files that runc wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Box<Spec>>,
}

/// What runc's commands read of its own configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Absolute path of the root file system.
    #[serde(default)]
    pub rootfs: String,
    /// `bundle=<path>` and the annotations, `key=value`.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Namespaces, by runc's names.
    #[serde(default)]
    pub namespaces: Vec<ConfigNamespace>,
    /// The cgroup, so that runc finds the driver.
    #[serde(default)]
    pub cgroups: ConfigCgroups,
    /// Version of the document.
    #[serde(default)]
    pub version: String,
    /// Hooks that run after creation, as runc writes them (times in nanoseconds).
    #[serde(default, rename = "Hooks", skip_serializing_if = "BTreeMap::is_empty")]
    pub hooks: BTreeMap<String, Vec<ConfigHook>>,
}

/// A namespace in runc's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigNamespace {
    /// `NEWPID`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Path joined; empty for a new one.
    #[serde(default)]
    pub path: String,
}

/// The cgroup in runc's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigCgroups {
    /// `linux.cgroupsPath`.
    #[serde(default)]
    pub path: String,
    /// The scope's name without prefix, where systemd made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The scope's slice, where systemd made it; empty for the default.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parent: String,
    /// The scope's prefix, where systemd made it.
    #[serde(default)]
    pub scope_prefix: String,
    /// Whether systemd made it.
    #[serde(default, rename = "Systemd")]
    pub systemd: bool,
    /// A resource field, without which runc takes the whole section for empty.
    #[serde(default)]
    pub memory: i64,
}

/// A hook in runc's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigHook {
    /// Absolute path.
    pub path: String,
    /// Arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment.
    #[serde(default)]
    pub env: Vec<String>,
    /// Working directory.
    #[serde(default)]
    pub dir: String,
    /// Nanoseconds.
    #[serde(default)]
    pub timeout: Option<i64>,
}

const NS_PER_SECOND: i64 = 1_000_000_000;

impl From<&Hook> for ConfigHook {
    fn from(hook: &Hook) -> Self {
        Self {
            path: hook.path.clone(),
            args: hook.args.clone(),
            env: hook.env.clone(),
            dir: String::new(),
            timeout: hook.timeout.map(|seconds| seconds.saturating_mul(NS_PER_SECOND)),
        }
    }
}

impl Config {
    fn new(spec: &Spec, bundle: &Path, rootfs: &Path, unit: Option<&Unit>) -> Self {
        let bundle = format!("bundle={}", bundle.display());
        let annotations = spec.annotations.iter().map(|(key, value)| format!("{key}={value}"));
        let linux = spec.linux.as_ref();
        let namespaces = linux.map(|linux| linux.namespaces.as_slice()).unwrap_or_default();
        let poststop = spec.hooks.as_ref().map(|hooks| hooks.poststop.as_slice()).unwrap_or_default();
        let hooks = if poststop.is_empty() {
            BTreeMap::new()
        } else {
            BTreeMap::from([("poststop".to_owned(), poststop.iter().map(ConfigHook::from).collect())])
        };
        Self {
            rootfs: rootfs.display().to_string(),
            labels: std::iter::once(bundle).chain(annotations).collect(),
            namespaces: namespaces
                .iter()
                .map(|namespace| ConfigNamespace {
                    kind: runc_name(namespace.kind).to_owned(),
                    path: namespace.path.clone(),
                })
                .collect(),
            cgroups: match unit.map(Unit::parts) {
                Some((parent, prefix, name)) => ConfigCgroups {
                    name: name.to_owned(),
                    parent: parent.to_owned(),
                    scope_prefix: prefix.to_owned(),
                    systemd: true,
                    ..ConfigCgroups::default()
                },
                None => ConfigCgroups {
                    path: linux.map(|linux| linux.cgroups_path.clone()).unwrap_or_default(),
                    ..ConfigCgroups::default()
                },
            },
            version: spec.oci_version.clone(),
            hooks,
        }
    }
}

/// runc's name of a namespace.
pub fn runc_name(kind: NamespaceKind) -> &'static str {
    match kind {
        NamespaceKind::Pid => "NEWPID",
        NamespaceKind::Network => "NEWNET",
        NamespaceKind::Mount => "NEWNS",
        NamespaceKind::Ipc => "NEWIPC",
        NamespaceKind::Uts => "NEWUTS",
        NamespaceKind::User => "NEWUSER",
        NamespaceKind::Cgroup => "NEWCGROUP",
        NamespaceKind::Time => "NEWTIME",
    }
}

impl Record {
    /// The record of a container whose init `pid` was just made.
    pub fn new(id: &str, pid: i32, spec: &Spec, bundle: &Path, rootfs: &Path, cgroup: &Cgroup) -> Self {
        let namespaces = spec.linux.as_ref().map(|linux| linux.namespaces.as_slice()).unwrap_or_default();
        let path = |kind: NamespaceKind| format!("/proc/{pid}/ns/{}", kind.proc_name());
        Self {
            id: id.to_owned(),
            init_process_pid: pid,
            init_process_start: Process::read(pid).map_or(0, |process| process.start),
            created: rfc3339(SystemTime::now()),
            config: Config::new(spec, bundle, rootfs, cgroup.unit()),
            rootless: false,
            cgroup_paths: cgroup.paths().clone(),
            namespace_paths: namespaces
                .iter()
                .map(|namespace| (runc_name(namespace.kind).to_owned(), path(namespace.kind)))
                .collect(),
            external_descriptors: Vec::new(),
            intel_rdt_path: String::new(),
            spec: Some(Box::new(spec.clone())),
        }
    }

    /// The record of a container whose `cgroup` is about to be made.
    pub(crate) fn planned(id: &str, spec: &Spec, bundle: &Path, rootfs: &Path, cgroup: &Cgroup) -> Self {
        Self {
            id: id.to_owned(),
            created: rfc3339(SystemTime::now()),
            config: Config::new(spec, bundle, rootfs, cgroup.unit()),
            cgroup_paths: cgroup.paths().clone(),
            ..Self::default()
        }
    }

    /// Reads the record in the container's directory `dir`.
    pub fn load(dir: &Path) -> Result<Self, RecordError> {
        let (path, text) = (dir.join(FILE), Self::text(dir)?);
        spec::json::from_slice(&text).map_err(|source| RecordError::Json { path, source })
    }

    /// Reads what a creation in `dir` was about to make.
    pub(crate) fn load_planned(dir: &Path) -> Result<Self, RecordError> {
        let path = dir.join(CREATION_FILE);
        let text = read(&path)?;
        spec::json::from_slice(&text).map_err(|source| RecordError::Json { path, source })
    }

    /// The bytes of the record in the container's directory `dir`, whatever they are.
    pub(crate) fn text(dir: &Path) -> Result<Vec<u8>, RecordError> {
        read(&dir.join(FILE))
    }
}

/// The bytes of the file `path`, as far as a record may be long.
fn read(path: &Path) -> Result<Vec<u8>, RecordError> {
    use std::io::Read;
    let mut text = Vec::new();
    match std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut text)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(RecordError::NotFound),
        Err(error) => Err(failed(&error, "read", path).into()),
        Ok(_) => Ok(text),
    }
}

impl Record {
    /// Writes the record into the container's directory `dir`.
    pub fn save(&self, dir: &Path) -> Result<(), RecordError> {
        self.save_as(dir, FILE)?;
        let _ = std::fs::remove_file(dir.join(CREATION_FILE)); // of no use beside a state file
        Ok(())
    }

    /// Writes the [planned](Self::planned) record into the container's directory `dir`.
    pub(crate) fn save_planned(&self, dir: &Path) -> Result<(), RecordError> {
        self.save_as(dir, CREATION_FILE)
    }

    fn save_as(&self, dir: &Path, name: &str) -> Result<(), RecordError> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = dir.join(name);
        let fresh = dir.join(".state.json.new");
        let text =
            serde_json::to_vec(self).map_err(|source| RecordError::Json { path: path.clone(), source })?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options
            .open(&fresh)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &text))
            .map_err(|error| failed(&error, "write", &fresh))?;
        std::fs::rename(&fresh, &path).map_err(|error| failed(&error, "rename", &fresh))?;
        Ok(())
    }

    /// The cgroup.
    pub fn cgroup(&self) -> Cgroup {
        let ConfigCgroups { name, parent, scope_prefix, systemd, .. } = &self.config.cgroups;
        let paths = self.cgroup_paths.clone();
        match Unit::of(parent, scope_prefix, name) {
            Ok(unit) if *systemd => Cgroup::open_unit(paths, unit),
            _ => Cgroup::open(paths),
        }
    }

    /// The bundle directory; empty if the record names none.
    pub fn bundle(&self) -> &str {
        self.config.labels.iter().find_map(|label| label.strip_prefix("bundle=")).unwrap_or_default()
    }

    /// The annotations.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        if let Some(spec) = &self.spec {
            return spec.annotations.clone();
        }
        let labels = self.config.labels.iter().filter(|label| !label.starts_with("bundle="));
        labels
            .filter_map(|label| label.split_once('='))
            .map(|(key, value)| (key.into(), value.into()))
            .collect()
    }

    /// The hooks of the document.
    pub fn hooks(&self) -> Hooks {
        self.spec.as_ref().and_then(|spec| spec.hooks.clone()).unwrap_or_default()
    }

    /// Whether init still exists: it, and not another process that got its pid.
    pub fn init_is_alive(&self) -> bool {
        Process::read(self.init_process_pid)
            .is_some_and(|process| process.start == self.init_process_start && !process.is_dead)
    }

    /// What the container in `dir` is doing.
    pub fn status(&self, dir: &Path) -> Status {
        if !self.init_is_alive() {
            return Status::Stopped;
        }
        if self.cgroup().freezer_state().is_ok_and(|state| state == FreezerState::Frozen) {
            return Status::Paused;
        }
        if dir.join(GATE).exists() { Status::Created } else { Status::Running }
    }

    /// The specification's state document.
    pub fn state(&self, status: Status) -> State {
        State {
            oci_version: VERSION.into(),
            id: self.id.clone(),
            status,
            pid: if status == Status::Stopped { 0 } else { self.init_process_pid },
            bundle: self.bundle().to_owned(),
            annotations: self.annotations(),
        }
    }
}

/// RFC 3339 as Go writes it: a fraction without trailing zeros.
fn rfc3339(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_nanos(time).to_string();
    let short = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{short}Z")
}

fn failed(error: &std::io::Error, call: &str, path: &Path) -> sys::Error {
    const EIO: i32 = 5;
    sys::Error::new(error.raw_os_error().unwrap_or(EIO), format!("{call}({path:?})"))
}

/// What `/proc/<pid>/stat` says that tells processes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Start time in ticks since boot.
    pub start: u64,
    /// Whether it has ended, with all its threads, and only waits to be reaped.
    pub is_dead: bool,
}

impl Process {
    /// The process `pid`; `None` if there is none.
    pub fn read(pid: i32) -> Option<Self> {
        if pid <= 0 {
            return None;
        }
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name, second of the fields, may hold spaces and parentheses; the last `)` ends it.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        // Fields 20 and 22 of the file; the state just taken is field 3.
        let threads: u64 = fields.nth(16)?.parse().ok()?;
        let start = fields.nth(1)?.parse().ok()?;
        // The first thread of a process that others keep alive is a zombie, too.
        let is_dead = matches!(state, "X" | "x") || (state == "Z" && threads <= 1);
        Some(Self { start, is_dead })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        let at = |nanoseconds| rfc3339(SystemTime::UNIX_EPOCH + std::time::Duration::new(10, nanoseconds));
        assert_eq!(at(0), "1970-01-01T00:00:10Z");
        assert_eq!(at(120_000_030), "1970-01-01T00:00:10.12000003Z");
    }

    #[test]
    fn a_process_name_may_look_like_fields() {
        let text = "7 (a) Z 1) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        assert_eq!(Process::parse(text), Some(Process { start: 4711, is_dead: false }));
        assert_eq!(Process::parse("7 (a"), None);
    }

    #[test]
    fn process_whose_first_thread_has_ended_is_alive() {
        let text = |threads| format!("7 (a) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 {threads} 0 4711 20");
        assert_eq!(Process::parse(&text(2)), Some(Process { start: 4711, is_dead: false }));
        assert_eq!(Process::parse(&text(1)), Some(Process { start: 4711, is_dead: true }));
    }

    #[test]
    fn a_reused_pid_is_not_init() {
        let pid = std::process::id() as i32;
        let mut record = Record { init_process_pid: pid, ..Record::default() };
        record.init_process_start = Process::read(pid).unwrap().start;
        assert!(record.init_is_alive());
        record.init_process_start += 1;
        assert!(!record.init_is_alive());
        assert_eq!(record.status(Path::new("/")), Status::Stopped);
    }

    #[test]
    fn a_record_survives_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Record::load(dir.path()), Err(RecordError::NotFound)));
        let mut spec = spec::runtime::default_unix_spec("default", "one");
        spec.annotations.insert("a".into(), "b=c".into());
        let cgroup = Cgroup::open(BTreeMap::from([("pids".into(), "/sys/fs/cgroup/pids/x".into())]));
        let record = Record::new("one", 1, &spec, Path::new("/b"), Path::new("/b/rootfs"), &cgroup);
        record.save(dir.path()).unwrap();
        let mut read = Record::load(dir.path()).unwrap();
        assert_eq!(read, record);
        assert_eq!((read.bundle(), read.cgroup()), ("/b", cgroup.clone()));
        let unit = Unit::of("a.slice", "cri-containerd", "one").unwrap();
        let scope = Cgroup::open_unit(cgroup.paths().clone(), unit);
        let record = Record::new("one", 1, &spec, Path::new("/b"), Path::new("/b/rootfs"), &scope);
        assert_eq!(record.cgroup(), scope);
        read.spec = None;
        assert_eq!(read.annotations(), spec.annotations);
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(Record::load(dir.path()).unwrap_err().kind(), Kind::DataLoss);
    }

    proptest::proptest! {
        #[test]
        fn damaged_texts_are_refused_without_harm(text in ".{0,200}", cut in 0usize..400) {
            let _ = Process::parse(&text);
            let dir = tempfile::tempdir().unwrap();
            let mut whole = serde_json::to_string(&Record { id: text, ..Record::default() }).unwrap();
            let cut = (0..=cut.min(whole.len())).rev().find(|&at| whole.is_char_boundary(at)).unwrap_or(0);
            whole.truncate(cut);
            std::fs::write(dir.path().join(FILE), &whole).unwrap();
            if let Err(error) = Record::load(dir.path()) {
                proptest::prop_assert_eq!(error.kind(), Kind::DataLoss);
            }
        }
    }
}
