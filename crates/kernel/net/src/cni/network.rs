//! The networks that pods of this node are attached to: loaded from their directory, set up, taken down.
//!
//! A pod's networks have an interface each, and are set up at the same time unless that is to be done in their order.
//!
//! Invariant: a pod whose setup failed has nothing left in its networks; a teardown can be repeated, and begins when nothing
//! attaches the pod any more.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spec::error::{Error as Failure, HasKind, Kind};

use super::cache::{Cache, Entry};
use super::chain::{Chain, ChainError, Runtime};
use super::list::{ConfigError, NetworkList, files};
use super::setup::Setup;
use super::turns::Turns;
use super::{Attachment, CniResult, Error, Plugins, Pod, Version};

/// Names of pods' interfaces: this and a number.
const PREFIX: &str = "eth";
/// File names that configurations have.
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// How many networks of one pod are set up at the same time.
const AT_ONCE: usize = 8;

/// Where configurations and plugins are, and how they are used.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Configurations of networks.
    pub conf_dir: PathBuf,
    /// Plugins' programs, first match first.
    pub bin_dirs: Vec<PathBuf>,
    /// Most networks that are loaded; 0 for all.
    pub max_conf_num: usize,
    /// Whether a pod's networks are set up one after the other.
    pub serially: bool,
    /// Where attachments are remembered.
    pub cache_dir: PathBuf,
    /// Whether plugins of ours run in this process.
    pub in_process: bool,
    /// Longest call of one plugin.
    pub plugin_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            conf_dir: "/etc/cni/net.d".into(),
            bin_dirs: vec!["/opt/cni/bin".into()],
            max_conf_num: 1,
            serially: false,
            cache_dir: "/var/lib/cni".into(),
            in_process: true,
            plugin_timeout: Duration::from_secs(60),
        }
    }
}

/// Why there are no networks.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// The directory has no configuration.
    #[error("no network config found in {dir}: cni plugin not initialized")]
    None {
        /// The directory.
        dir: String,
    },
    /// The directory cannot be read.
    #[error("failed to read CNI config dir {dir}: {text}")]
    Dir {
        /// The directory.
        dir: String,
        /// Why.
        text: String,
    },
    /// A configuration is wrong.
    #[error("failed to load CNI config file {path}: {text}")]
    File {
        /// The file.
        path: String,
        /// Why.
        text: String,
    },
}

/// Why a pod's networks did not do what they were asked for.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// There are none.
    #[error("cni plugin not initialized: {0}")]
    NotLoaded(LoadError),
    /// A plugin failed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Several did, or one did and undoing it failed too.
    #[error("{text}")]
    Several {
        /// All of it.
        text: String,
        /// The kind of the first.
        kind: Kind,
    },
    /// The pod's loopback interface could not be set up.
    #[error("failed to set up loopback: {0}")]
    Loopback(crate::netns::NetnsError),
    /// The attachment could not be remembered, or what is remembered not be read.
    #[error("cache of attachments")]
    Cache(#[from] io::Error),
    /// No thread could be started for a network, or the one that was panicked.
    #[error("no thread for network {network:?}")]
    Thread {
        /// The network.
        network: String,
        /// Why.
        source: io::Error,
    },
    /// A result makes no sense.
    #[error("result of the plugins")]
    Result(#[from] Error),
    /// Somebody attaches for so long that what is stale cannot be told from what is new.
    #[error("attachments are under way")]
    Busy,
    /// `CHECK` of an attachment of which nothing is remembered.
    #[error("network {network:?} of {container_id}: no cached result")]
    NotCached {
        /// The network.
        network: String,
        /// The container.
        container_id: String,
    },
}

impl HasKind for NetworkError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotLoaded(_) => Kind::FailedPrecondition,
            Self::Chain(error) => error.kind(),
            Self::Several { kind, .. } => *kind,
            Self::Loopback(error) => error.kind(),
            Self::Cache(error) | Self::Thread { source: error, .. } => {
                Kind::from_errno(error.raw_os_error().unwrap_or(0))
            }
            Self::Result(error) => error.kind(),
            Self::Busy => Kind::Unavailable,
            Self::NotCached { .. } => Kind::NotFound,
        }
    }
}

/// A network and the interface that pods get in it.
#[derive(Debug)]
struct Loaded {
    list: NetworkList,
    ifname: String,
}

/// The networks of this node.
#[derive(Debug)]
pub struct Network {
    settings: Settings,
    plugins: Plugins,
    cache: Cache,
    loaded: RwLock<Result<Arc<Vec<Loaded>>, LoadError>>,
    turns: Arc<Turns>,
}

impl Network {
    /// Loads the networks. That there are none is their status, no failure.
    pub fn open(settings: Settings) -> Self {
        Self::taking(Arc::default(), settings)
    }

    /// Further networks, whose attaching and collecting takes turns with these: one plugin may serve both.
    pub fn open_beside(&self, settings: Settings) -> Self {
        Self::taking(Arc::clone(&self.turns), settings)
    }

    fn taking(turns: Arc<Turns>, settings: Settings) -> Self {
        let loaded = load(&settings);
        Self {
            plugins: Plugins { bin_dirs: settings.bin_dirs.clone(), in_process: settings.in_process },
            cache: Cache::new(&settings.cache_dir),
            loaded: RwLock::new(loaded),
            turns,
            settings,
        }
    }

    /// Loads the networks anew; what was loaded before is gone when that fails.
    pub fn reload(&self) -> Result<(), LoadError> {
        let loaded = load(&self.settings);
        let done = loaded.as_ref().map(drop).map_err(Clone::clone);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        done
    }

    /// Whether the networks could be loaded when they last were.
    pub fn loaded(&self) -> Result<(), LoadError> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(drop).map_err(Clone::clone)
    }

    /// Whether pods can be attached.
    pub fn status(&self, deadline: Instant) -> Result<(), NetworkError> {
        for network in self.networks()?.iter() {
            self.chain(&network.list, deadline).status()?;
        }
        Ok(())
    }

    /// The settings and the networks, as go-cni describes them.
    pub fn describe(&self) -> Value {
        let networks = self.networks().map(|networks| {
            let describe = |network: &Loaded| {
                let plugins: Vec<Value> = network
                    .list
                    .plugins
                    .iter()
                    .map(|entry| json!({"Network": entry.raw, "Source": Value::Object(entry.raw.clone()).to_string()}))
                    .collect();
                let config = json!({
                    "Name": network.list.name, "CNIVersion": network.list.version.as_str(), "Plugins": plugins,
                    "Source": network.list.source,
                });
                json!({"Config": config, "IFName": network.ifname})
            };
            networks.iter().map(describe).collect::<Vec<_>>()
        });
        json!({
            "PluginDirs": self.settings.bin_dirs,
            "PluginConfDir": self.settings.conf_dir,
            "PluginMaxConfNum": self.settings.max_conf_num,
            "Prefix": PREFIX,
            "Networks": networks.unwrap_or_default(),
        })
    }

    /// Attaches the pod to every network; when that fails it is detached from all of them.
    pub fn setup(&self, pod: &Pod, deadline: Instant) -> Result<Setup, NetworkError> {
        let _attaching = self.turns.attach();
        let networks = self.networks()?;
        match self.attach(&networks, pod, deadline) {
            Ok(setup) => Ok(setup),
            Err(error) => {
                // What is left of the time may be nothing; undoing gets its own.
                let limit = spec::time::deadline(self.settings.plugin_timeout);
                Err(match self.teardown(pod, limit) {
                    Ok(()) => error,
                    Err(undo) => {
                        let (error, undo) = (Failure::from(error), Failure::from(undo));
                        NetworkError::Several { text: format!("{error}; undo: {undo}"), kind: error.kind() }
                    }
                })
            }
        }
    }

    fn attach(&self, networks: &[Loaded], pod: &Pod, deadline: Instant) -> Result<Setup, NetworkError> {
        if let Some(netns) = &pod.netns {
            crate::netns::loopback_up(netns).map_err(NetworkError::Loopback)?;
        }
        let one = |network: &Loaded| self.attach_to(network, pod, deadline);
        let results = match self.settings.serially {
            true => networks.iter().map(one).collect::<Result<Vec<_>, _>>()?,
            false => together(networks, one)?,
        };
        Ok(Setup::of(&results)?)
    }

    fn attach_to(&self, network: &Loaded, pod: &Pod, deadline: Instant) -> Result<CniResult, NetworkError> {
        let runtime = runtime(pod, &network.ifname);
        let remember = |result: Option<Value>| {
            self.cache.write(&Entry::new(
                &network.list,
                &pod.id,
                &network.ifname,
                pod.netns.as_deref(),
                runtime.args.clone(),
                runtime.capabilities.clone(),
                result,
            ))
        };
        // Before the plugins run, so that what a crash leaves half made can be taken down with what it was made.
        remember(None)?;
        let result = self.chain(&network.list, deadline).add(&runtime)?;
        remember(Some(result.to_json(at_least(network.list.version))?))?;
        Ok(result)
    }

    /// Detaches the pod from every network: those of today, and those that it is remembered to have been attached to,
    /// as they were then. What is gone is detached.
    pub fn teardown(&self, pod: &Pod, deadline: Instant) -> Result<(), NetworkError> {
        let mut failures = Vec::new();
        let remembered = self.cache.of_container(&pod.id)?;
        for entry in &remembered {
            self.detach(entry, pod.netns.clone(), deadline, &mut failures);
        }
        let known: BTreeSet<_> = remembered.iter().map(|entry| (&entry.network, &entry.ifname)).collect();
        let loaded = self.networks().ok();
        for network in loaded.iter().flat_map(|networks| networks.iter()) {
            if !known.contains(&(&network.list.name, &network.ifname)) {
                let chain = self.chain(&network.list, deadline);
                failures.extend(chain.del_unfinished(&runtime(pod, &network.ifname)));
            }
        }
        several(failures)
    }

    /// Takes down one attachment with what is remembered of it, and forgets it when that succeeded.
    fn detach(
        &self,
        entry: &Entry,
        netns: Option<PathBuf>,
        deadline: Instant,
        failures: &mut Vec<ChainError>,
    ) {
        let loaded = self.networks().ok();
        let current =
            loaded.iter().flat_map(|networks| networks.iter()).find(|known| known.list.name == entry.network);
        let remembered = entry.list();
        let Some(list) = remembered.as_ref().or(current.map(|network| &network.list)) else {
            // Nothing says how it was made: there is nothing to be done about it but to forget it.
            tracing::warn!(
                container = entry.container_id,
                network = entry.network,
                "attachment without configuration"
            );
            self.forget(entry);
            return;
        };
        let result: Option<CniResult> = entry.result(list.version);
        let (chain, runtime) = (self.chain(list, deadline), entry.runtime(netns));
        let failed = match entry.is_whole() {
            true => chain.del(&runtime, result.as_ref()).err().into_iter().collect(),
            false => chain.del_unfinished(&runtime),
        };
        if failed.is_empty() {
            self.forget(entry);
        }
        failures.extend(failed);
    }

    fn forget(&self, entry: &Entry) {
        if let Err(error) = self.cache.forget(entry) {
            tracing::warn!(%error, container = entry.container_id, "attachment not forgotten");
        }
    }

    /// Whether the pod is attached as it is remembered to have been, by what it was attached with. An attachment whose network
    /// has no `CHECK`, or does without, passes.
    pub fn check(&self, pod: &Pod, deadline: Instant) -> Result<(), NetworkError> {
        let remembered = self.cache.of_container(&pod.id)?;
        let unknown = |network: &str| NetworkError::NotCached {
            network: network.to_owned(),
            container_id: pod.id.clone(),
        };
        for entry in &remembered {
            let Some(list) = entry.list().filter(NetworkList::has_check) else { continue };
            let result = entry.result(list.version).ok_or_else(|| unknown(&entry.network))?;
            self.chain(&list, deadline).check(&entry.runtime(pod.netns.clone()), &result)?;
        }
        let loaded = self.networks().ok().filter(|_| remembered.is_empty());
        let forgotten = loaded.iter().flat_map(|networks| networks.iter()).find(|one| one.list.has_check());
        forgotten.map_or(Ok(()), |network| Err(unknown(&network.list.name)))
    }

    /// Takes down every attachment that is neither one of `ours` nor in a namespace that is still there, whoever made it,
    /// and has the plugins free what else such containers left. Nobody attaches meanwhile.
    pub fn gc(&self, ours: &[&str], deadline: Instant) -> Result<(), NetworkError> {
        let _alone = self.turns.collect(deadline).ok_or(NetworkError::Busy)?;
        let networks = self.networks()?;
        let mut valid = self.attached()?;
        valid.extend(ours.iter().map(|&id| id.to_owned()));
        let valid: BTreeSet<&str> = valid.iter().map(String::as_str).collect();
        let mut failures = Vec::new();
        let mut attachments: BTreeSet<Attachment> = networks
            .iter()
            .flat_map(|network| {
                valid
                    .iter()
                    .map(|id| Attachment { container_id: (*id).into(), ifname: network.ifname.clone() })
            })
            .collect();
        for entry in self.cache.entries()? {
            // Other networks' attachments are those of who runs them: podman and nerdctl share this folder.
            let ours = networks.iter().any(|known| known.list.name == entry.network);
            if valid.contains(entry.container_id.as_str()) {
                attachments.insert(Attachment { container_id: entry.container_id, ifname: entry.ifname });
            } else if ours {
                let netns = Some(PathBuf::from(&entry.netns)).filter(|path| crate::netns::exists(path));
                self.detach(&entry, netns, deadline, &mut failures);
            }
        }
        let attachments: Vec<Attachment> = attachments.into_iter().collect();
        for network in networks.iter() {
            failures.extend(self.chain(&network.list, deadline).gc(&attachments));
        }
        several(failures)
    }

    /// The containers that are remembered as attached and whose namespace is still there, whoever attached them.
    fn attached(&self) -> Result<Vec<String>, NetworkError> {
        let mut entries = self.cache.entries()?;
        entries.retain(|entry| crate::netns::exists(std::path::Path::new(&entry.netns)));
        Ok(entries.into_iter().map(|entry| entry.container_id).collect())
    }

    fn networks(&self) -> Result<Arc<Vec<Loaded>>, NetworkError> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.clone().map_err(NetworkError::NotLoaded)
    }

    fn chain<'a>(&'a self, list: &'a NetworkList, deadline: Instant) -> Chain<'a> {
        Chain { list, plugins: &self.plugins, each: self.settings.plugin_timeout, deadline }
    }
}

/// Does `one` for several networks at the same time, and waits for all of them whatever fails; the results are in the order
/// of the networks.
fn together<T: Send>(
    networks: &[Loaded],
    one: impl Fn(&Loaded) -> Result<T, NetworkError> + Sync,
) -> Result<Vec<T>, NetworkError> {
    let mut results = Vec::new();
    for lot in networks.chunks(AT_ONCE) {
        // The usual case is one network, which needs no further thread.
        let Some((last, others)) = lot.split_last() else { continue };
        let one = &one;
        let outcomes: Vec<Result<T, NetworkError>> = thread::scope(|scope| {
            let start = |network| thread::Builder::new().spawn_scoped(scope, move || one(network));
            let started: Vec<_> = others.iter().map(|network| (network, start(network))).collect();
            let here = one(last);
            let ended = started.into_iter().map(|(network, thread)| {
                let failed = |source| NetworkError::Thread { network: network.list.name.clone(), source };
                let joined = thread.map_err(failed)?.join();
                joined.map_err(|_| failed(io::Error::other("it panicked")))?
            });
            ended.chain([here]).collect()
        });
        let (done, failures): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        all_of(failures.into_iter().filter_map(Result::err).collect())?;
        results.extend(done.into_iter().flatten());
    }
    Ok(results)
}

fn runtime(pod: &Pod, ifname: &str) -> Runtime {
    Runtime {
        container_id: pod.id.clone(),
        ifname: ifname.to_owned(),
        netns: pod.netns.clone(),
        args: pod.args(),
        capabilities: pod.capabilities(),
    }
}

/// The version that a result is remembered in: the oldest forms cannot hold all of it.
fn at_least(version: Version) -> Version {
    version.max(Version::V0_3_0)
}

/// [`all_of`] plugins' failures.
fn several(failures: Vec<ChainError>) -> Result<(), NetworkError> {
    all_of(failures.into_iter().map(NetworkError::from).collect())
}

/// One failure as it is, several as one.
fn all_of(failures: Vec<NetworkError>) -> Result<(), NetworkError> {
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else { return Ok(()) };
    let rest: Vec<String> = failures.map(|failure| Failure::from(failure).to_string()).collect();
    if rest.is_empty() {
        return Err(first);
    }
    let first = Failure::from(first);
    let mut text = first.to_string();
    for failure in rest {
        // Writing to a string cannot fail.
        let _ = write!(text, "; {failure}");
    }
    Err(NetworkError::Several { text, kind: first.kind() })
}

/// Loads the first networks of the directory, in the order of their files' names.
fn load(settings: &Settings) -> Result<Arc<Vec<Loaded>>, LoadError> {
    let dir = settings.conf_dir.display().to_string();
    let paths = files(&settings.conf_dir, &EXTENSIONS)
        .map_err(|error| LoadError::Dir { dir: dir.clone(), text: error.to_string() })?;
    let most = if settings.max_conf_num == 0 { usize::MAX } else { settings.max_conf_num };
    let mut loaded = Vec::new();
    for path in paths {
        if loaded.len() == most {
            break;
        }
        match NetworkList::load(&path) {
            Ok(list) => loaded.push(Loaded { list, ifname: format!("{PREFIX}{}", loaded.len()) }),
            Err(ConfigError::NoPlugins) => {
                tracing::warn!(path = %path.display(), "CNI config list has no networks, skipping");
            }
            Err(error) => {
                let text = Failure::from(error).to_string();
                return Err(LoadError::File { path: path.display().to_string(), text });
            }
        }
    }
    if loaded.is_empty() { Err(LoadError::None { dir }) } else { Ok(Arc::new(loaded)) }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
